"""All stages on a small phantom: same seed same submission, memory of a rejected slice, real slices as a test part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.config import LABELS, P_LABELS, UserError
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_provenance, read_table, read_vectors
from tests.stages import ALL, TINY, job_of, run_stage, run_stages

REAL = Path(os.environ.get("REALCT", Path(__file__).resolve().parents[2] / "shared" / "realct")) / "ge-head"
TRAINING = ("train", "embed", "reduce", "sequence", "predict", "score", "submit")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which every stage of `tiny` has run on fold 0; tests read it, or copy what they change."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_stages(ALL, *TINY)
        run_stage("score", *TINY, "--fold", "0")
        run_stage("leaderboard", *TINY)
    return folder


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A folder with the finished data, images and folds, linked where they are not written, and no models."""
    shutil.copytree(finished / "data", tmp_path / "data", symlinks=True, ignore=shutil.ignore_patterns("raw"))
    (tmp_path / "data/phantom/raw").symlink_to(finished / "data/phantom/raw")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submission(folder: Path, run: str) -> bytes:
    return (folder / "submissions" / "phantom" / f"{run}.csv").read_bytes()


def test_the_submission_is_the_sample_submission_with_probabilities(finished):
    sample = pd.read_csv(finished / "data/phantom/raw/stage_2_sample_submission.csv")
    made = pd.read_csv(finished / "submissions/phantom/tiny.csv")
    assert list(made.columns) == ["ID", "Label"]
    assert made["ID"].tolist() == sample["ID"].tolist()
    assert made["Label"].between(1e-6, 1 - 1e-6).all()
    assert made["Label"].nunique() > len(made) / 2


def test_the_truncated_test_slice_is_rejected_and_still_gets_its_rows_from_its_neighbours(finished):
    data = finished / "data/phantom"
    rejected = read_table(data / "rejected.parquet")
    lost = rejected[(rejected["split"] == "test") & (rejected["reason"] == "truncated pixel data")]
    assert len(lost) == 1
    slice_id, scan_id, z_mm = lost.iloc[0][["slice_id", "scan_id", "z_mm"]]  # noqa: RUF059 - used by query
    slices = read_table(data / "slices.parquet").query("scan_id == @scan_id").sort_values("z_mm")
    neighbours = pd.concat([slices[slices["z_mm"] < z_mm].tail(1), slices[slices["z_mm"] > z_mm].head(1)])
    predictions = read_table(finished / "submissions/phantom/tiny/fold-0.parquet").set_index(["stage", "slice_id"])
    for stage in ("cnn", "sequence"):
        around = predictions.loc[stage].loc[neighbours["slice_id"], list(P_LABELS)].astype(float)
        filled = predictions.loc[stage].loc[slice_id, list(P_LABELS)].astype(float)
        assert (filled >= around.min() - 1e-9).all()
        assert (filled <= around.max() + 1e-9).all()


def test_predictions_are_out_of_fold_and_of_the_test_part(finished):
    predictions = read_table(finished / "submissions/phantom/tiny/fold-0.parquet")
    slices = read_table(finished / "data/phantom/slices.parquet")
    folds = read_table(finished / "data/phantom/folds.parquet").set_index("patient_id")["fold"]
    for _, rows in predictions.groupby("stage"):
        train = rows[rows["split"] == "train"].merge(slices, on="slice_id", suffixes=("", "_of_slice"))
        assert (train["patient_id"].map(folds) == 0).all()
        expected = slices[(slices["split"] == "train") & (slices["patient_id"].map(folds) == 0)]
        assert sorted(train["slice_id"]) == sorted(expected["slice_id"])
        test_files = len(list((finished / "data/phantom/raw/stage_2_test").iterdir()))
        assert (rows["split"] == "test").sum() == test_files


def test_embeddings_hold_every_cached_slice_beside_its_probabilities(finished):
    rows, vectors = read_vectors(finished / "features/phantom/tiny/fold-0.embeddings.parquet")
    images = read_table(next((finished / "data/phantom/png").glob("brain3-????????.parquet")))
    assert sorted(rows["slice_id"]) == sorted(images["slice_id"])
    assert vectors.shape == (len(rows), 512)
    assert vectors.dtype == np.float16
    schema = pq.read_schema(finished / "features/phantom/tiny/fold-0.embeddings.parquet")
    assert str(schema.field("vector").type).startswith("fixed_size_list<")


def test_the_reducer_is_saved_with_the_digest_of_what_it_saw_and_gives_the_reduced_vectors(finished):
    folder = finished / "features/phantom/tiny"
    _, embeddings = read_vectors(folder / "fold-0.embeddings.parquet")
    rows, reduced = read_vectors(folder / "fold-0.reduced.parquet")
    with np.load(folder / "fold-0.reducer.npz", allow_pickle=False) as reducer:
        projected = (embeddings.astype(float) - reducer["mean"]) @ reducer["components"].T
        np.testing.assert_allclose(reduced, projected, atol=0.02, rtol=0.01)
        seen = rows["fold"].notna() & (rows["fold"] != 0)
        assert int(reducer["fitted_on"]) == seen.sum()
        np.testing.assert_allclose(reducer["mean"], embeddings[seen.to_numpy(bool)].astype(float).mean(axis=0))
        inputs = read_provenance(folder / "fold-0.reduced.parquet")["inputs"]
        assert str(reducer["embeddings_sha256"]) == inputs["features/phantom/tiny/fold-0.embeddings.parquet"]


def test_records_say_settings_inputs_versions_and_seconds(finished):
    record = read_json(finished / "models/phantom/tiny/fold-0.json")
    assert record["settings"]["train"]["encoder"] == "resnet10t"
    assert set(record["inputs"]) >= {"data/phantom/slices.parquet", "data/phantom/folds.parquet"}
    assert record["versions"]["torch"]
    assert record["parameters"] == 4_925_566
    assert record["seconds"] > 0
    assert record["threads"] == 1


def test_the_leaderboard_has_every_stage_and_fold_of_the_run(finished):
    board = pd.read_csv(finished / "submissions/leaderboard.csv")
    assert set(board["stage"]) == {"cnn", "sequence", "constant-0.5", "constant-prevalence"}
    assert set(board["fold"].astype(str)) == {"0", "oof", "test"}
    half = board[board["stage"] == "constant-0.5"]
    np.testing.assert_allclose(half["weighted_log_loss"], np.log(2))
    assert (board["weighted_log_loss_low"] <= board["weighted_log_loss"]).all()
    assert (board["weighted_log_loss"] <= board["weighted_log_loss_high"]).all()


def test_nothing_temporary_is_left(finished):
    assert not [path for path in finished.rglob("*.partial*")]


def test_the_same_seed_gives_the_same_submission_and_another_does_not(finished, copy):
    run_stages(TRAINING, *TINY)
    assert submission(copy, "tiny") == submission(finished, "tiny")
    run_stages(TRAINING, *TINY, "--seed", "1")
    other = pd.read_csv(copy / "submissions/phantom/tiny-s1.csv")["Label"]
    assert (other != pd.read_csv(copy / "submissions/phantom/tiny.csv")["Label"]).mean() > 0.9


@pytest.mark.parametrize("method", ["largest_weights", "smallest_weights", "largest_std", "none", "predictions_only"])
def test_every_way_of_reducing_goes_through_to_predictions(method, finished, copy):
    for part in ("models", "features"):
        shutil.copytree(finished / part, copy / part)
    arguments = (*TINY, "--set", f"reduce.method={method}", "reduce.count=7", "sequence.epochs=1")
    job = run_stages(("reduce", "sequence", "predict"), *arguments)
    assert job.paths.cnn(0) == Path("models/phantom/tiny/fold-0.safetensors")
    _, vectors = read_vectors(job.paths.reduced(0))
    assert vectors.shape[1] == {"none": 512, "predictions_only": 6}.get(method, 7)
    assert set(read_table(job.paths.predictions(0))["stage"]) == {"cnn", "sequence"}


def test_a_recipe_may_end_with_its_slice_classifier(finished, copy):
    for part in ("models", "features"):
        shutil.copytree(finished / part, copy / part)
    job = run_stages(("predict", "score", "submit"), *TINY, "--set", "sequence.kind=none")
    assert set(read_table(job.paths.predictions(0))["stage"]) == {"cnn"}
    cnn = read_table(job.paths.predictions(0)).query("split == 'test'").set_index("slice_id")["p_any"]
    made = pd.read_csv(job.paths.submission).set_index("ID")["Label"]
    for slice_id, probability in cnn.items():
        assert made[f"{slice_id}_any"] == pytest.approx(np.clip(probability, 1e-6, 1 - 1e-6), rel=1e-6)


def test_one_model_of_the_holdout_division_predicts_patients_that_it_never_saw(copy, capsys):
    held = (*TINY, "--set", "split.kind=holdout", "train.epochs=1", "sequence.epochs=1")
    job = run_stages(("train", "embed", "reduce", "sequence", "predict", "score", "submit"), *held)
    assert job.paths.folds == Path("data/phantom/folds.parquet")  # the same table: nothing is divided anew
    part = read_table(job.paths.folds).set_index("patient_id")["holdout"]
    slices = read_table(job.paths.slices)
    patients = slices[slices["split"] == "train"].set_index("slice_id")["patient_id"]
    predicted = read_table(job.paths.predictions(0)).query("split == 'train' and stage == 'cnn'")["slice_id"]
    assert set(part[patients[predicted]]) == {"test"}
    assert len(predicted) == (part[patients] == "test").sum()
    embedded = read_table(job.paths.embeddings(0)).set_index("slice_id")["fold"].dropna()
    numbers = part[patients[embedded.index]].map({"test": 0, "val": 1, "train": 2})
    assert embedded.tolist() == numbers.tolist()
    trained = read_json(job.paths.reduced(0).with_suffix(".json"))["fitted_on"]
    assert trained == (numbers == 2).sum()
    row = read_json(job.paths.score("oof"))["rows"][0]
    assert row["slices"] == len(predicted)
    with pytest.raises(UserError, match="FOLDS='0 1': give different numbers; the one model of split.kind=holdout is"):
        job_of("score", *held, "--folds", "0 1")
    capsys.readouterr()
    run_stage("tables", *held)
    printed = capsys.readouterr().out
    assert printed.startswith("Table 3 of Burduja et al. 2020, slices: their validation part")
    cells = next(line for line in printed.splitlines() if line.startswith("ResNeXt-101 32x8d, any ")).split()
    probabilities = read_table(job.paths.predictions(0)).query("split == 'train' and stage == 'cnn'")
    truth = slices.set_index("slice_id")["any"][probabilities["slice_id"]].to_numpy()
    accuracy = ((probabilities["p_any"].to_numpy() >= 0.5) == truth).mean()
    assert cells[3:5] == ["0.9543", f"{accuracy:.4f}"]


def test_the_papers_table_stands_beside_our_figures_and_their_differences(finished, copy, capsys):
    for part in ("models", "features", "submissions"):
        shutil.copytree(finished / part, copy / part)
    with pytest.raises(UserError, match=r"tiny-cnn/fold-0.parquet is missing: make it with `make ablation`"):
        run_stage("ablation", *TINY)
    losses = {"": read_json(Path("submissions/phantom/tiny/oof.score.json"))["rows"][1]["weighted_log_loss"]}
    for variant, stage in (("cnn", "cnn"), ("preds", "sequence"), ("pca120", "sequence")):
        own = {"cnn": (), "preds": ("reduce", "sequence"), "pca120": ("sequence",)}[variant]  # the rest is tiny's
        job = run_stages((*own, "predict", "score"), *TINY, "--recipe", f"tiny-{variant}")
        rows = read_json(job.paths.score("oof"))["rows"]
        losses[variant] = next(row["weighted_log_loss"] for row in rows if row["stage"] == stage)
    capsys.readouterr()
    run_stage("ablation", *TINY)
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Table 2 of Burduja et al. 2020: weighted log loss on the challenge's private test set.\n"
    )
    assert "A phantom is not a head" in printed
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    for text, variant, paper in (
        ("ResNeXt-101 32x8d", "cnn", "0.06259"),
        ("+ BiLSTM 3x256 on its predictions", "preds", "0.05540"),
        ("+ BiLSTM 3x256, PCA 120", "pca120", "0.05022"),
        ("+ BiLSTM 3x256, PCA 120 and predictions", "", "0.04989"),
    ):
        assert paper in rows[text]
        assert f"{losses[variant]:.5f}" in rows[text]
        assert not variant or f"{losses[variant] - losses['']:+.5f}" in rows[text]
    assert "EfficientNet-B4" not in rows


def test_a_table_belongs_to_a_recipe_and_has_no_name():
    assert list(job_of("ablation", *TINY, "--recipe", "tiny-cnn").table_runs) == ["", "cnn", "preds", "pca120"]
    with pytest.raises(UserError, match="NAME=mine: names one run, a table has many"):
        job_of("ablation", *TINY, "--name", "mine")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real head scan is not beside this clone; set REALCT=")
def test_real_slices_as_the_test_part_give_six_rows_each(finished, tmp_path, monkeypatch):
    raw = tmp_path / "data" / "mixed" / "raw"
    raw.mkdir(parents=True)
    phantom = finished / "data/phantom/raw"
    (raw / "stage_2_train").symlink_to(phantom / "stage_2_train")
    (raw / "stage_2_train.csv").symlink_to(phantom / "stage_2_train.csv")
    (raw / "stage_2_test").symlink_to(REAL)
    names = sorted(path.stem for path in REAL.glob("*.dcm"))
    rows = [f"{name}_{label},0.5" for name in names for label in LABELS]
    (raw / "stage_2_sample_submission.csv").write_text("\n".join(["ID,Label", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    job = run_stages(ALL[1:], "--dataset", "mixed", *TINY)
    assert len(pd.read_csv(job.paths.submission)) == 168
    test = read_table(job.paths.slices).query("split == 'test'")
    assert len(test) == 28
    assert test["scan_id"].nunique() == 1
    assert not job.paths.score("test").exists()


def files_of_fold_0(folder: Path) -> dict[str, bytes]:
    """Return the data set's files and fold 0's, but logs and records, which hold seconds."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json"):
        parts = path.relative_to(folder).parts
        is_log = any(part.endswith(".run") for part in parts)
        is_fold_0 = parts[0] in ("models", "features", "submissions") and path.name.startswith("fold-0")
        if not is_log and path.name != ".lock" and (parts[0] == "data" or is_fold_0):
            found["/".join(parts)] = path.read_bytes()
    return found


def test_make_does_it_all_and_gives_the_same_bytes_side_by_side_and_then_has_nothing_to_do(
    project_root, tmp_path, finished
):
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(project_root / name, tmp_path)
    (tmp_path / "pipeline").symlink_to(project_root / "pipeline")
    command = ["make", f"PYTHON={sys.executable}", f"BARE_PYTHON={sys.executable}", "submission"]
    # `finished` has run with one process, one fold after the other.
    command += ["-j2", "RECIPE=tiny", "PHANTOM_SCANS=10", "FOLDS=0 1", "THREADS=1", "N_JOBS=2"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    first = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    assert "constant-prevalence" in first.stdout
    assert (tmp_path / "submissions/phantom/tiny.csv").exists()
    theirs, ours = files_of_fold_0(finished), files_of_fold_0(tmp_path)
    assert len(ours) > 800
    assert sorted(ours) == sorted(theirs)
    assert [name for name, data in ours.items() if data != theirs[name]] == []
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "Nothing to be done for 'submission'" in again.stdout
    verify = ["verify" if word == "submission" else word for word in command]
    verified = subprocess.run(verify, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stdout
