"""`verify`: what was changed behind the pipeline's back is named, and nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config import UserError
from pipeline.plan import settings_files, write_settings_file
from pipeline.shell.provenance import read_json
from pipeline.shell.tables import read_table
from pipeline.verify import findings, image_findings
from tests.stages import ALL, TINY, job_of, run_stage, run_stages

VIEW = "brain3-*[0-9a-f]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which every stage of `tiny` has run on fold 0, with the settings files that Make would write."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        job = job_of("submit", *TINY)
        for path, contents in settings_files(job.paths, job.folds, job.phantom).values():
            write_settings_file(path, contents)
        run_stages(ALL, *TINY)
        run_stage("score", *TINY, "--fold", "0")
        run_stage("leaderboard", *TINY)
    return folder


@pytest.fixture
def copy(finished, tmp_path, monkeypatch) -> Path:
    """The same files by hard links: a test replaces the ones that it changes."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    return folder


def replace(path: str, change: Callable[[bytes], bytes]) -> str:
    """Replace a file by one whose content is changed, with the old one's times; return its name."""
    file = next(iter(sorted(Path().glob(path))))
    data, status = file.read_bytes(), file.stat()
    file.unlink()
    file.write_bytes(change(data))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return str(file)


def found() -> list[str]:
    return list(findings(job_of("verify", *TINY)))


def test_untouched_files_are_what_their_records_say(copy, capsys):
    assert found() == []
    run_stage("verify", *TINY)
    assert capsys.readouterr().out == ""


def test_nothing_there_is_nothing_verified(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data/phantom: nothing of tiny to verify; make it with `make submission`"):
        run_stage("verify", *TINY)


def test_findings_are_printed_and_are_a_mistake(copy, capsys):
    name = replace("submissions/phantom/tiny.csv", flip_last)
    with pytest.raises(UserError, match="1 findings, above; FORCE=1 redoes a stage"):
        run_stage("verify", *TINY)
    assert capsys.readouterr().out.startswith(f"{name} was changed: it is not what submit left at ")


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def better_score(data: bytes) -> bytes:
    score = json.loads(data)
    score["rows"][0]["weighted_log_loss"] = 0.04989
    return json.dumps(score, indent=1).encode()


@pytest.mark.parametrize(
    ("path", "change", "text"),
    [
        ("submissions/phantom/tiny.csv", flip_last, "was changed: it is not what submit left at 20"),
        ("models/phantom/tiny/fold-0.safetensors", flip_last, "was changed: it is not what train left at 20"),
        ("features/phantom/tiny/fold-0.reducer.npz", flip_last, "was changed: it is not what reduce left at 20"),
        ("data/phantom/slices.parquet", flip_last, "was changed: it is not what index left at 20"),
        ("data/phantom/raw/stage_2_train.csv", flip_last, "was changed: it is not what phantom left at 20"),
        ("submissions/phantom/tiny/oof.score.json", better_score, "was changed: its figures are not what score wrote"),
        ("submissions/leaderboard.csv", flip_last, "was changed: it is not what leaderboard left at 20"),
        ("models/phantom/tiny/train-*.json", lambda _: b'{"stage": "train"}', "is not what its name says; remove it"),
        (f"data/phantom/png/{VIEW}/*/*.png", flip_last, "was changed: it is not what window left"),
        ("data/phantom/raw/stage_2_test/*.dcm", flip_last, "is another file than the one that its image was made of"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed_is_named_and_told_once(path, change, text, copy):
    if "slices.parquet" in path:
        # Still a table that can be read: one of the phantom's ids in its metadata, say, was changed.
        table = read_table(Path(path))
        name = path
        Path(path).unlink()
        table.to_parquet(path)
    else:
        name = replace(path, change)
    (line,) = found()
    assert line.startswith(f"{name} ")
    assert text in line


def test_what_is_gone_is_named(copy):
    Path("features/phantom/tiny/fold-0.embeddings.parquet").unlink()
    lines = found()
    assert lines[0].startswith("features/phantom/tiny/fold-0.embeddings.parquet is missing: embed left it, says ")
    # Reduce and predict were made of it.
    assert sum("embeddings.parquet is missing, of which" in line for line in lines) == 2


def test_an_artefact_made_of_another_input_is_named(copy):
    """As if predictions had been copied from another clone, record and all."""
    record = Path("submissions/phantom/tiny/fold-0.json")
    facts = read_json(record)
    facts["inputs"]["data/phantom/slices.parquet"] = "0" * 64
    record.unlink()
    record.write_text(json.dumps(facts))
    (line,) = found()
    assert line == f"data/phantom/slices.parquet is another one than the one of which {record} speaks"


def test_images_that_no_slice_belongs_to_are_named(copy):
    paths = job_of("verify", *TINY).paths
    images, slices = read_table(paths.images), read_table(paths.slices, ["slice_id", "path"])
    lost = images["slice_id"][3]
    (line,) = image_findings(images, slices[slices["slice_id"] != lost], 1)
    assert line == f"{images['path'][3]} shows slice {lost}, of which SLICES does not know"
    assert list(image_findings(images, pd.concat([slices]), 1)) == []
