"""Tables and files on disk: contracts, provenance, streaming, and files that are whole or not there."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import P_LABELS
from pipeline.plan import file_digest
from pipeline.schema import FOLDS, PREDICTIONS, SLICES, ContractError, vectors
from pipeline.shell import tables as shell_tables
from pipeline.shell.atomic import atomic_path, remove_leftovers, write_atomic
from pipeline.shell.parallel import CHUNK_ITEMS, parallel_map
from pipeline.shell.provenance import Provenance, read_json
from pipeline.shell.tables import (
    holds,
    read_batches,
    read_provenance,
    read_table,
    read_vectors,
    row_count,
    to_arrow,
    to_frame,
    vector_array,
    vector_matrix,
    write_stream,
    write_table,
)

FOLD_ROWS = pd.DataFrame({"patient_id": ["a", "b"], "fold": [0, 4], "holdout": ["train", "val"]})


def embeddings(ids, width=3, low=0.0):
    contract = vectors("EMBEDDINGS", width)
    matrix = np.arange(len(ids) * width, dtype=np.float16).reshape(len(ids), width)
    columns = {
        "slice_id": pa.array(ids),
        "fold": pa.array([None if i == "test" else 1 for i in ids], pa.int8()),
        "vector": vector_array(matrix),
        **{name: pa.array(np.linspace(low, 1, len(ids))) for name in P_LABELS},
    }
    return contract, pa.table(columns, schema=contract.schema()), matrix


def test_a_table_comes_back_as_it_was_with_its_provenance_and_units(tmp_path):
    write_table(tmp_path / "folds.parquet", FOLDS, FOLD_ROWS, {"stage": "split", "inputs": {"x": "1"}})
    back = read_table(tmp_path / "folds.parquet")
    assert back["fold"].tolist() == [0, 4]
    assert read_provenance(tmp_path / "folds.parquet") == {"stage": "split", "inputs": {"x": "1"}}
    assert SLICES.schema().field("z_mm").metadata == {b"unit": b"mm"}


def test_writing_the_same_table_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name, FOLDS, FOLD_ROWS, {"stage": "split", "threads": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.assign(patient_id=["a", "a"]), "FOLDS: 1 rows repeat the key patient_id"),
        (lambda f: f.assign(holdout=["train", None]), "FOLDS.holdout: 1 nulls where none may be"),
        (lambda f: f.drop(columns="holdout"), "FOLDS: columns holdout are missing"),
    ],
)
def test_a_table_that_breaks_its_contract_is_not_written_and_the_old_one_stays(damage, message, tmp_path):
    path = tmp_path / "folds.parquet"
    write_table(path, FOLDS, FOLD_ROWS, {})
    before = path.read_bytes()
    with pytest.raises(ContractError, match=message):
        write_table(path, FOLDS, damage(FOLD_ROWS), {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["folds.parquet"]


@pytest.mark.parametrize("bad", [1.5, -0.1, np.nan, np.inf])
def test_probabilities_lie_between_0_and_1(bad):
    row = {"slice_id": ["a"], "stage": ["cnn"], "scan_id": ["s"], "fold": [0], "split": ["test"]}
    frame = pd.DataFrame({**row, **{name: [0.5] for name in P_LABELS}})
    PREDICTIONS.check(to_arrow(PREDICTIONS, frame))
    table = to_arrow(PREDICTIONS, frame)
    table = table.set_column(table.schema.get_field_index("p_any"), "p_any", pa.array([bad]))
    with pytest.raises(ContractError, match=r"PREDICTIONS.p_any: .*expected 0 to 1"):
        PREDICTIONS.check(table)


def test_vectors_travel_as_half_precision_lists_of_one_width(tmp_path):
    contract, table, matrix = embeddings(["a", "b", "test"])
    write_stream(tmp_path / "e.parquet", contract, [table], {}, "slice_id")
    rows, back = read_vectors(tmp_path / "e.parquet")
    np.testing.assert_array_equal(back, matrix)
    assert back.dtype == np.float16
    assert rows["fold"].isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(vector_matrix(table.slice(1, 2)), matrix[1:3])


def test_a_stream_is_written_batch_by_batch_and_checked_as_a_whole(tmp_path):
    contract, first, _ = embeddings(["a", "b"])
    _, second, _ = embeddings(["c"])
    assert write_stream(tmp_path / "e.parquet", contract, iter([first, second]), {"stage": "embed"}, "slice_id") == 3
    assert pq.ParquetFile(tmp_path / "e.parquet").num_row_groups == 2
    assert read_provenance(tmp_path / "e.parquet") == {"stage": "embed"}
    with pytest.raises(ContractError, match="EMBEDDINGS: slice_id repeats"):
        write_stream(tmp_path / "f.parquet", contract, iter([first, second, first]), {}, "slice_id")
    _, bad, _ = embeddings(["d", "e"], low=-1)
    with pytest.raises(ContractError, match=r"EMBEDDINGS.p_epidural: values from -1.0"):
        write_stream(tmp_path / "f.parquet", contract, iter([first, bad]), {}, "slice_id")
    assert [p.name for p in tmp_path.iterdir()] == ["e.parquet"]


def test_keys_whose_hashes_are_equal_are_compared_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(shell_tables, "_hashes", lambda keys: np.zeros(len(keys), dtype=np.uint64))
    contract, first, _ = embeddings(["a", "b"])
    _, second, _ = embeddings(["c"])
    assert write_stream(tmp_path / "e.parquet", contract, [first, second], {}, "slice_id") == 3
    with pytest.raises(ContractError, match="EMBEDDINGS: slice_id repeats"):
        write_stream(tmp_path / "f.parquet", contract, [second, first, second], {}, "slice_id")
    assert write_stream(tmp_path / "g.parquet", contract, [], {}, "slice_id") == 0


def test_a_table_is_read_in_batches_of_few_rows_in_its_order(tmp_path, monkeypatch):
    monkeypatch.setattr(shell_tables, "BATCH_ROWS", 2)
    rows = pd.DataFrame({"patient_id": list("abcde"), "fold": range(5), "holdout": "train"})
    write_table(tmp_path / "t.parquet", FOLDS, rows, {})
    batches = [to_frame(batch) for batch in read_batches(tmp_path / "t.parquet", ["patient_id"])]
    assert [batch["patient_id"].tolist() for batch in batches] == [["a", "b"], ["c", "d"], ["e"]]
    assert row_count(tmp_path / "t.parquet") == 5


def test_a_table_holds_the_same_rows_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(shell_tables, "BATCH_ROWS", 2)
    rows = pd.DataFrame({"patient_id": list("abcde"), "fold": range(5), "holdout": "train"})
    facts = {"settings": {}, "inputs": {}}
    write_table(tmp_path / "t.parquet", FOLDS, rows, facts)
    assert holds(tmp_path / "t.parquet", FOLDS, rows, facts)
    for other in (rows.head(4), pd.concat([rows, rows.head(1)]), rows.assign(fold=[0, 1, 2, 3, 0])):
        assert not holds(tmp_path / "t.parquet", FOLDS, other, facts)
    assert not holds(tmp_path / "t.parquet", FOLDS, rows, facts | {"inputs": {"x": "1"}})


def test_a_file_is_whole_or_not_there(tmp_path):
    def fail_halfway():
        with atomic_path(tmp_path / "x") as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []
    with atomic_path(tmp_path / "deep" / "x") as partial:
        partial.write_text("whole")
    assert (tmp_path / "deep" / "x").read_text() == "whole"


def test_small_files_are_whole_or_not_there_too(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "x"
    write_atomic(path, b"first")
    write_atomic(str(path), b"whole")
    write_atomic(path.with_name("empty"), b"")
    written = []
    monkeypatch.setattr(os, "write", lambda _, data: written.append(bytes(data)) or min(2, len(data)))
    write_atomic(path.with_name("bit by bit"), b"12345")
    assert written == [b"12345", b"345", b"5"]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"lost")
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == {"x": b"whole", "empty": b"", "bit by bit": b""}


def test_leftovers_of_processes_that_are_gone_are_removed_and_nothing_else(tmp_path):
    gone, here = 99_999_999, os.getpid()
    at_work = f".c.png.{here}.partial"
    for name in (f".a.png.{gone}.partial", f".b.json.{gone}.partial", at_work, "a.png", "kept.partial"):
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [at_work, "a.png", "kept.partial"]
    assert remove_leftovers(tmp_path / "absent") == 0


def test_provenance_names_what_was_read_by_its_digest(tmp_path):
    (tmp_path / "input").write_bytes(b"abc")
    provenance = Provenance("train", {"epochs": 1}, [tmp_path / "input"], threads=2)
    (tmp_path / "record.json").write_text("of an earlier run")
    with provenance.recorded(tmp_path / "record.json", tmp_path / "output") as more:
        # Killed here, the stage leaves no record that could speak for another file.
        assert not (tmp_path / "record.json").exists()
        (tmp_path / "output").write_bytes(b"abc")
        more["parameters"] = 5
    record = read_json(tmp_path / "record.json")
    assert record["outputs"] == {str(tmp_path / "output"): record["inputs"][str(tmp_path / "input")]}
    # FIPS 180-2's test vector of SHA-256.
    assert record["inputs"] == {
        str(tmp_path / "input"): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
    assert file_digest(tmp_path / "input").startswith("ba7816bf")
    assert (record["stage"], record["settings"], record["parameters"]) == ("train", {"epochs": 1}, 5)
    assert record["versions"]["numpy"] == np.__version__
    assert "seconds" not in provenance.facts


def test_processes_follow_the_caller_to_another_folder(tmp_path, monkeypatch):
    items = ["x"] * (CHUNK_ITEMS + 1)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert set(parallel_map(_text, items, 2, "files")) == {name}


def _text(name: str) -> str:
    return Path(name).read_text()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_parallel_map_keeps_the_order(n_jobs):
    items = list(range(2 * CHUNK_ITEMS + 3))
    assert list(parallel_map(float, items, n_jobs, "numbers")) == [float(i) for i in items]
    assert list(parallel_map(float, [], n_jobs, "numbers")) == []


def busily(number):
    """Return the number after some work: whoever asks for the first result gets it long before the last."""
    return max(sum(range(5000)) * 0, number)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_items_are_taken_as_they_are_needed(n_jobs):
    taken = []
    total = 100 * CHUNK_ITEMS
    results = parallel_map(busily, (taken.append(i) or i for i in range(total)), n_jobs, "numbers", total=total)
    assert next(results) == 0
    assert len(taken) < total / 2
    assert list(results) == list(range(1, total))


def test_items_that_cannot_be_had_are_an_error():
    def items():
        yield from range(5 * CHUNK_ITEMS)
        raise OSError("the table cannot be read")

    with pytest.raises(OSError, match="the table cannot be read"):
        list(parallel_map(float, items(), 2, "numbers", total=6 * CHUNK_ITEMS))


def test_vectors_are_kept_without_a_dictionary(tmp_path):
    contract, table, matrix = embeddings(["a", "b", "test"])
    write_stream(tmp_path / "e.parquet", contract, [table], {}, "slice_id")
    group = pq.read_metadata(tmp_path / "e.parquet").row_group(0)
    encodings = {column.path_in_schema: column.encodings for column in map(group.column, range(group.num_columns))}
    assert set(encodings.pop("vector.list.element")) == {"BYTE_STREAM_SPLIT", "RLE"}
    assert all("RLE_DICTIONARY" in found for found in encodings.values())
    np.testing.assert_array_equal(read_vectors(tmp_path / "e.parquet")[1], matrix)
