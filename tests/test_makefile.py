"""The Makefile's graph, seen through `make -n` on empty files: what is redone, and what is not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.draw_graph import edges
from pipeline import plan
from pipeline.job import PhantomSettings
from pipeline.paths import Paths, record_of
from pipeline.runs import make_run, recipe_folds, variant_names
from tests.stages import ALL

STAGE_ORDER = [*ALL, "leaderboard"]
"""Every stage of the graph, in its order."""


@pytest.fixture
def clone(tmp_path, project_root) -> Path:
    """A folder with the Makefile and the program, and no artefacts."""
    shutil.copy(project_root / "Makefile", tmp_path)
    shutil.copy(project_root / "requirements.txt", tmp_path)
    (tmp_path / "pipeline").symlink_to(project_root / "pipeline")
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    # Whoever runs the tests by `make test PYTHON=...` has that in the environment, too.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "PYTHON"}
    command = ["make", f"BARE_PYTHON={sys.executable}", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def planned(clone: Path, *arguments: str) -> list[str]:
    """Return the calls of stages that `make -n` announces, as `train 0`, in the graph's order."""
    found = make(clone, "-n", f"PYTHON={sys.executable}", *arguments)
    assert found.returncode == 0, found.stderr
    calls = re.findall(r"-m pipeline (\w+) (?:.*?--fold (\d))?", found.stdout)
    names = {f"{stage} {fold}".strip() for stage, fold in calls if stage in STAGE_ORDER}
    return sorted(names, key=lambda name: (STAGE_ORDER.index(name.split()[0]), name))


def finish(
    clone: Path,
    recipe: str = "quickstart",
    changes: dict | None = None,
    folds=None,
    start: int = 1000,
    dataset="phantom",
) -> int:
    """Touch every artefact of a run in the graph's order, as if all stages had run."""
    run = make_run(recipe, changes)
    paths = Paths(dataset, run, "rsna")
    folds = folds or recipe_folds(recipe)
    settings = plan.settings_files(paths, folds, PhantomSettings())
    artefacts = [path for path, _ in settings.values()]
    artefacts += [paths.labels, paths.sample_submission, paths.slices, paths.folds, paths.images]
    for fold in folds:
        artefacts += [paths.cnn(fold), paths.embeddings(fold), paths.reduced(fold), paths.sequence(fold)]
        artefacts += [paths.predictions(fold), paths.score(fold)]
    artefacts += [paths.score("oof"), paths.score("test"), paths.submission, Path("submissions/leaderboard.csv")]
    artefacts += [other for others in plan.companions(paths, folds).values() for other in others]
    for second, path in enumerate(artefacts, 1000):
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        if not (clone / path).exists():
            (clone / path).touch()
            os.utime(clone / path, (second, second))
    record = clone / record_of(paths.slices)
    csvs = (paths.labels, paths.sample_submission)
    record.write_text(json.dumps({"inputs": {str(path): plan.file_digest(clone / path) for path in csvs}}))
    # The record is what Make follows of the index: not older than what it was made of, not newer than SLICES.
    second = (clone / paths.slices).stat().st_mtime
    os.utime(record, (second, second))


ALL_OF_QUICKSTART = [
    "phantom", "index", "split", "window", "train 0", "train 1", "embed 0", "embed 1", "reduce 0", "reduce 1",
    "sequence 0", "sequence 1", "predict 0", "predict 1", "score", "score 0", "score 1", "submit", "leaderboard",
]  # fmt: skip


def test_everything_from_a_fresh_clone(clone):
    assert planned(clone, "submission") == ALL_OF_QUICKSTART
    assert planned(clone, "submission", "FOLDS=3") == [
        "phantom", "index", "split", "window", "train 3", "embed 3", "reduce 3", "sequence 3", "predict 3",
        "score", "score 3", "submit", "leaderboard",
    ]  # fmt: skip


def test_the_environment_is_made_first_unless_the_user_brings_one(clone):
    assert "-m venv .venv" in make(clone, "-n", "submission").stdout
    assert "-m venv .venv" in make(clone, "-n", "test").stdout
    assert "-m venv .venv" in make(clone, "-n", ".venv").stdout
    assert "-m venv" not in make(clone, "-n", "submission", f"PYTHON={sys.executable}").stdout


def test_nothing_is_redone_when_all_is_there_and_make_says_so(clone):
    finish(clone)
    assert planned(clone, "submission") == []
    assert "Nothing to be done for 'submission'" in make(clone, "submission", f"PYTHON={sys.executable}").stdout


def test_looking_changes_no_file(clone):
    finish(clone)
    before = {path: path.stat().st_mtime_ns for path in clone.rglob("*") if "pipeline" not in path.parts}
    planned(clone, "submission", "SET=sequence.hidden=8")
    planned(clone, "train", "FORCE=1")
    assert {path: path.stat().st_mtime_ns for path in clone.rglob("*") if "pipeline" not in path.parts} == before


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ("sequence.hidden=8", ["sequence 0", "sequence 1", "predict 0", "predict 1"]),
        ("reduce.count=8", ["reduce 0", "reduce 1", "sequence 0", "sequence 1", "predict 0", "predict 1"]),
        ("predict.clip=0.01", ["predict 0", "predict 1"]),
    ],
)
def test_a_variant_redoes_from_its_own_stage_on_and_reuses_its_parents_cnn(clone, change, redone):
    finish(clone)
    scores = ["score", "score 0", "score 1", "submit", "leaderboard"]
    assert planned(clone, "submission", f"SET={change}") == [*redone, *scores]
    assert planned(clone, "submission") == []


def test_a_named_run_stands_beside_its_parent_and_reads_the_parents_files(clone):
    finish(clone)
    found = make(clone, "-n", "submission", "SET=sequence.hidden=8", "NAME=mine", f"PYTHON={sys.executable}").stdout
    assert "submissions/phantom/mine/predict-" in found
    assert "models/phantom/mine/sequence-" in found
    assert "train-" not in found
    assert planned(clone, "submission") == []


@pytest.fixture
def own_clone(clone, project_root) -> Path:
    """A clone whose program is a copy, so that a test may edit it; `quickstart` and `burduja2020` are finished."""
    (clone / "pipeline").unlink()
    shutil.copytree(project_root / "pipeline", clone / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    finish(clone)
    finish(clone, "burduja2020")
    os.utime(clone / "submissions/leaderboard.csv", (4000, 4000))  # rebuilt by the later of the two
    return clone


def edit(clone: Path, old: str, new: str) -> None:
    """Edit the recipe `quickstart`."""
    path = clone / "pipeline/recipes/quickstart.py"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


BEHIND_TRAIN = ALL_OF_QUICKSTART[ALL_OF_QUICKSTART.index("train 0") :]


@pytest.mark.parametrize(
    ("old", "new", "redone"),
    [
        ("FOLDS = (0, 1)", "FOLDS = (0, 1)  # a comment", []),
        ('"sequence.epochs": 8', '"sequence.epochs": 9', ALL_OF_QUICKSTART[ALL_OF_QUICKSTART.index("sequence 0") :]),
        ('"reduce.fit_rows": 0', '"reduce.fit_rows": 99', ALL_OF_QUICKSTART[ALL_OF_QUICKSTART.index("reduce 0") :]),
        ('"view.size": 96', '"view.size": 64', ["window", *BEHIND_TRAIN]),
        ("(6e-4, 1e-4)", "(6e-4, 2e-4)", BEHIND_TRAIN),
    ],
    ids=["a comment", "a sequence setting", "a reduction", "a window", "a learning rate"],
)
def test_an_edited_recipe_redoes_what_the_edit_concerns_and_no_other_run(own_clone, old, new, redone):
    others = ("submission", "RECIPE=burduja2020")
    assert planned(own_clone, "submission") == planned(own_clone, *others) == []
    edit(own_clone, old, new)
    assert planned(own_clone, "submission") == redone
    assert planned(own_clone, *others) == []
    edit(own_clone, new, old)
    assert planned(own_clone, "submission") == []


def test_what_was_changed_and_run_and_changed_back_is_redone(own_clone):
    epochs = '"sequence.epochs": 8', '"sequence.epochs": 9'
    edit(own_clone, *epochs)
    (settings,) = re.findall(
        r"settings --file (\S+sequence-\S+)", make(own_clone, "-n", "submission", f"PYTHON={sys.executable}").stdout
    )
    assert make(own_clone, settings).returncode == 0  # the run has begun
    edit(own_clone, *reversed(epochs))
    assert planned(own_clone, "submission") == ALL_OF_QUICKSTART[ALL_OF_QUICKSTART.index("sequence 0") :]


def test_a_view_of_its_own_needs_its_own_images_and_all_behind_them(clone):
    finish(clone)
    found = planned(clone, "submission", "SET=view.size=64")
    assert found == [name for name in ALL_OF_QUICKSTART if name not in ("phantom", "index", "split")]


@pytest.mark.parametrize(
    ("artefact", "redone"),
    [
        ("data/phantom/rejected.parquet", ALL_OF_QUICKSTART[1:]),
        ("data/phantom/slices.parquet", ALL_OF_QUICKSTART[1:]),
        ("data/phantom/slices.json", ALL_OF_QUICKSTART[1:]),
        ("data/phantom/raw/stage_2_sample_submission.csv", ALL_OF_QUICKSTART),
        ("features/phantom/quickstart/fold-1.reducer.npz",
         ["reduce 1", "sequence 1", "predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("features/phantom/quickstart/fold-1.reduced.parquet",
         ["reduce 1", "sequence 1", "predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("submissions/phantom/quickstart.csv", ["submit"]),
        ("submissions/phantom/quickstart.json", ["submit"]),
        ("submissions/leaderboard.csv", ["leaderboard"]),
        ("submissions/leaderboard.json", ["leaderboard"]),
        ("submissions/phantom/quickstart/test.score.json", ["score", "leaderboard"]),
        ("submissions/phantom/quickstart/fold-1.score.json", ["score 1", "leaderboard"]),
        ("submissions/phantom/quickstart/fold-1.parquet",
         ["predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("models/phantom/quickstart/fold-1.sequence.safetensors",
         ["sequence 1", "predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("features/phantom/quickstart/fold-1.embeddings.parquet",
         ["embed 1", "reduce 1", "sequence 1", "predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("models/phantom/quickstart/fold-1.json",
         ["train 1", "embed 1", "reduce 1", "sequence 1", "predict 1", "score", "score 1", "submit", "leaderboard"]),
        ("data/phantom/folds.parquet", ["split", *ALL_OF_QUICKSTART[4:]]),
        ("data/phantom/png/brain3-c7993926.parquet", ["window", *ALL_OF_QUICKSTART[4:]]),
    ],
)  # fmt: skip
def test_a_deleted_artefact_is_redone_with_what_lies_behind_it(clone, artefact, redone):
    finish(clone)
    (clone / artefact).unlink()
    assert planned(clone, "submission") == redone


@pytest.mark.parametrize(
    ("goal", "redone"),
    [
        (("train", "FOLD=1"), ["train 1"]),
        (("window",), ["window"]),
        (("submit",), ["submit"]),
        (("score",), ["score", "score 0", "score 1"]),
    ],
)
def test_force_redoes_the_named_stage_alone(clone, goal, redone):
    finish(clone)
    assert planned(clone, *goal) == []
    assert planned(clone, *goal, "FORCE=1") == redone
    assert planned(clone, *goal, "FORCE=0") == []


def later(path: Path) -> None:
    """Give a file a time behind all that `finish` made."""
    os.utime(path, (5000, 5000))


@pytest.mark.parametrize("name", ["stage_2_train.csv", "stage_2_sample_submission.csv"])
def test_a_label_csv_that_was_only_touched_is_indexed_again_and_nothing_else(clone, name):
    finish(clone)
    csv = clone / "data/phantom/raw" / name
    csv.write_text("")
    later(csv)
    redone = ["index"] if name == "stage_2_train.csv" else []  # of the phantom's files, Make follows the labels alone
    assert planned(clone, "submission") == redone


def test_the_same_with_a_data_set_of_the_users_own_and_after_the_index_has_run(clone):
    finish(clone, dataset="mine")
    arguments = ("submission", "DATASET=mine", "RECIPE=quickstart")
    assert planned(clone, *arguments) == []
    raw, record = clone / "data/mine/raw", clone / "data/mine/slices.json"
    later(raw / "stage_2_sample_submission.csv")
    assert planned(clone, *arguments) == ["index"]
    # What the index does: SLICES stays as it was, older than its record.
    os.utime(record, (6000, 6000))
    assert planned(clone, *arguments) == []
    assert "Nothing to be done for 'submission'" in make(clone, *arguments, f"PYTHON={sys.executable}").stdout


def test_a_label_csv_with_other_content_makes_all_behind_it_stale(clone):
    finish(clone)
    csv = clone / "data/phantom/raw/stage_2_train.csv"
    csv.write_text("ID,Label\n")
    later(csv)
    assert planned(clone, "submission") == ALL_OF_QUICKSTART[1:]
    csv.write_text("")
    later(csv)
    assert planned(clone, "submission") == ["index"]


def test_another_phantom_is_made_anew_with_all_behind_it(clone):
    finish(clone)
    assert planned(clone, "submission", "PHANTOM_SEED=1") == ALL_OF_QUICKSTART
    assert planned(clone, "submission", "PHANTOM_SEED=0") == []


def test_other_folds_are_scored_and_submitted_anew(clone):
    finish(clone)
    found = planned(clone, "submission", "FOLDS=0")
    assert found == ["score", "score 0", "submit", "leaderboard"]


def test_settings_files_are_written_by_the_bare_interpreter(clone):
    name = plan.settings_files(Paths("phantom", make_run("tiny"), "rsna"), (0, 1), PhantomSettings())["train"]
    found = make(clone, str(name[0]), "RECIPE=tiny", "PYTHON=/no/such/python")
    assert found.returncode == 0, found.stderr
    assert (clone / name[0]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RECIPE=nope",), "error: RECIPE=nope: no such recipe; recipes are burduja2020, "),
        (("SET=train.epoch=1",), "no field 'epoch' in train"),
        (("FOLDS=0 7",), "FOLDS='0 7': give different numbers; folds are 0 to 4"),
        (("FOLD=9",), "FOLD=9: folds are 0 to 4"),
        (("DATASET=a/b",), "DATASET='a/b': give the name of a folder below data/"),
        (("BARE_PYTHON=no-such-python",), "no-such-python is not Python 3.11 or later"),
        (("DATASET=mine",), "data/mine/raw"),
    ],
)
def test_mistakes_stop_before_any_work(clone, arguments, message):
    found = make(clone, "submission", *arguments)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not (clone / ".venv").exists()


def test_clean_never_takes_the_raw_files_of_a_real_data_set(clone):
    finish(clone)
    for name in ("data/mine/raw/stage_2_train.csv", "data/mine/slices.parquet", "models/mine/r/fold-0.safetensors"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    assert make(clone, "clean", "RECIPE=tiny").returncode == 0
    assert make(clone, "clean", "SEED=1").returncode == 0
    assert (clone / "models/phantom/quickstart/fold-0.safetensors").exists()
    assert make(clone, "clean", "RECIPE=quickstart").returncode == 0
    assert not (clone / "models/phantom/quickstart").exists()
    assert (clone / "data/phantom/slices.parquet").exists()
    assert make(clone, "clean", "DATASET=mine").returncode == 0
    assert not (clone / "data/mine/slices.parquet").exists()
    assert (clone / "data/mine/raw/stage_2_train.csv").exists()
    assert (clone / "data/phantom/raw").exists()
    assert make(clone, "clean").returncode == 0
    assert not (clone / "data/phantom/raw").exists()


def test_a_name_in_the_environment_names_no_run(clone, monkeypatch):
    monkeypatch.setenv("NAME", "hostname")
    monkeypatch.setenv("FORCE", "1")
    assert "hostname" not in make(clone, "-n", "submission").stdout


def test_readmes_graph_is_the_makefiles(project_root):
    found = edges((project_root / "Makefile").read_text())
    assert {stage for _, _, stage in found} == {*ALL, "endtoend", "leaderboard"} - {"phantom"}  # it reads nothing
    for edge in (("LABELS", "SLICES", "index"), ("REDUCED", "SEQUENCE", "sequence"), ("PREDICTIONS", "CSV", "submit")):
        assert edge in found


def test_ablation_runs_each_variant_under_its_own_name(clone):
    finish(clone)
    text = make(clone, "-n", "ablation", f"PYTHON={sys.executable}").stdout
    recipes = re.findall(r"-m pipeline submit .*--recipe \"(\S+)\"", text)
    assert recipes == [f"quickstart-{name}" for name in variant_names("quickstart")]
    # The CNN is there; EfficientNet's stand-in is another one.
    assert set(re.findall(r"-m pipeline train .*--recipe \"(\S+)\"", text)) == {"quickstart-effnetb4"}
    assert text.rstrip().splitlines()[-1].split()[3] == "ablation"


def test_a_table_of_one_name_is_refused_before_any_work(clone):
    found = make(clone, "ablation", "NAME=mine", f"PYTHON={sys.executable}")
    assert found.returncode == 2
    assert "NAME=mine: names one run, a table has many; leave it out" in found.stderr
    assert not (clone / "data/phantom/raw").exists()


def test_readers_is_told_the_csv_and_makes_nothing(clone):
    finish(clone)
    arguments = ("readers", "READERS=my readers.csv", "RECIPE=tiny", "FOLDS=0", f"PYTHON={sys.executable}")
    (line,) = make(clone, "-n", *arguments).stdout.splitlines()
    assert "-m pipeline readers " in line
    assert line.endswith('--readers "my readers.csv"')
    assert '--recipe "tiny"' in line
    assert '--folds "0"' in line


def test_readers_without_a_csv_says_so(clone):
    found = make(clone, "readers", f"PYTHON={sys.executable}")
    assert found.returncode == 2
    assert "error: READERS= is not given: name the CSV of what human readers said, as in READERS=" in found.stderr


def test_help_names_every_stage_and_variable(clone):
    text = make(clone, "help").stdout
    variables = ("DATASET", "RECIPE", "FOLDS", "SET", "SEED", "FORCE", "PYTHON", "N_JOBS", "THREADS", "READERS=")
    for word in (*STAGE_ORDER, "make readers ", *variables):
        assert word in text
