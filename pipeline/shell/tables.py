"""Parquet tables on disk: check, provenance, temporary file, rename."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pandas.util import hash_array

from pipeline.schema import Contract, ContractError
from pipeline.shell.atomic import atomic_path

PROVENANCE_KEY = b"provenance"

GROUP_ROWS = 8192
"""Rows of a row group, where a table is written as a whole."""

BATCH_ROWS = 2048
"""Rows that are held of a table that is read batch by batch: few, as rows of Python objects are large."""


def to_arrow(contract: Contract, frame: pd.DataFrame) -> pa.Table:
    """Return a data frame as an Arrow table in the contract's columns and types."""
    missing = [c.name for c in contract.columns if c.name not in frame.columns]
    if missing:
        raise ContractError(f"{contract.name}: columns {', '.join(missing)} are missing")
    # Nulls are let in here, to be refused by the contract with a text that says where.
    lenient = pa.schema([field.with_nullable(True) for field in contract.schema()])
    return pa.Table.from_pandas(frame[lenient.names], schema=lenient, preserve_index=False)


def write_table(path: Path, contract: Contract, table: pd.DataFrame | pa.Table, provenance: Mapping[str, Any]) -> None:
    """Check a whole table and write it; raises ContractError before anything is on disk."""
    table = to_arrow(contract, table) if isinstance(table, pd.DataFrame) else table
    contract.check(table)
    table = table.cast(contract.schema())
    with atomic_path(path) as partial:
        pq.write_table(_with_provenance(table, provenance), partial, compression="zstd", row_group_size=GROUP_ROWS)


def holds(path: Path, contract: Contract, frame: pd.DataFrame, provenance: Mapping[str, Any]) -> bool:
    """Return whether a file already holds this table, made with the same settings of the same inputs."""
    if not path.exists():
        return False
    of_file = read_provenance(path)
    if any(of_file.get(key) != provenance[key] for key in ("settings", "inputs")):
        return False
    table, start = to_arrow(contract, frame).cast(contract.schema()), 0
    for batch in read_batches(path):
        if not table.slice(start, batch.num_rows).equals(batch):
            return False
        start += batch.num_rows
    return start == table.num_rows


def write_stream(
    path: Path, contract: Contract, batches: Iterable[pa.Table], provenance: Mapping[str, Any], key_column: str
) -> int:
    """Write a table that need not fit in memory, whole or not at all, one row group a batch; return its rows.

    Each batch is checked as it comes; of the whole, eight bytes a row are kept, to see that no key repeats.
    """
    with atomic_path(path) as partial:
        return fill_stream(partial, contract, batches, provenance, key_column)


def fill_stream(
    path: Path, contract: Contract, batches: Iterable[pa.Table], provenance: Mapping[str, Any], key_column: str
) -> int:
    """Write a table like `write_stream`, into a temporary file of the caller's; return its rows."""
    hashes = [np.empty(0, dtype=np.uint64)]
    schema = contract.schema().with_metadata({PROVENANCE_KEY: json.dumps(provenance, sort_keys=True)})
    with pq.ParquetWriter(path, schema, compression="zstd", **_encodings(schema)) as writer:
        for batch in batches:
            contract.check_rows(batch)
            hashes.append(_hashes(batch.column(key_column)))
            writer.write_table(batch.cast(schema))
    of_rows = np.concatenate(hashes)
    if _repeats(path, key_column, of_rows):
        raise ContractError(f"{contract.name}: {key_column} repeats")
    return len(of_rows)


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    """Return how columns are encoded: vectors by streams of their numbers' bytes, all others by dictionaries.

    A dictionary of half-precision numbers saves nothing, and reading it takes three times as long.
    """
    vectors = [f"{field.name}.list.element" for field in schema if pa.types.is_fixed_size_list(field.type)]
    others = [name for name in schema.names if f"{name}.list.element" not in vectors]
    return {"use_dictionary": others, "use_byte_stream_split": vectors}


def _hashes(keys: pa.ChunkedArray) -> np.ndarray:
    """Return 64 bits a key, (rows,)."""
    return hash_array(keys.to_numpy().astype(object), categorize=False)


def _repeats(path: Path, key_column: str, hashes: np.ndarray) -> bool:
    """Return whether a key of a written table repeats; only keys whose hashes repeat are compared themselves."""
    ordered = np.sort(hashes)
    suspects = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(suspects):
        return False
    seen: set[str] = set()
    for batch in read_batches(path, [key_column]):
        keys = batch.column(key_column)
        for key in keys.filter(pa.array(np.isin(_hashes(keys), suspects))).to_pylist():
            if key in seen:
                return True
            seen.add(key)
    return False


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield a table of up to BATCH_ROWS rows after the other."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns) if columns else None):
            yield pa.Table.from_batches([batch])


def row_count(path: Path) -> int:
    """Return the rows of a table, without reading them."""
    return pq.read_metadata(path).num_rows


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a table as a data frame; nullable integers and booleans keep their type through nulls."""
    return to_frame(pq.read_table(path, columns=list(columns) if columns else None))


def vector_array(vectors: np.ndarray) -> pa.Array:
    """Return vectors (rows, width) as a fixed-size list column of half-precision numbers."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float16).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def vector_matrix(table: pa.Table) -> np.ndarray:
    """Return a table's column `vector` as an array (rows, width) float16."""
    column = table.column("vector").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def read_vectors(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return an EMBEDDINGS or REDUCED table: its other columns as a data frame, its vectors (rows, width) float16."""
    table = pq.read_table(path)
    return to_frame(table.drop_columns("vector")), vector_matrix(table)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the provenance that a table carries."""
    return json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as `read_table` returns one."""
    return table.to_pandas(types_mapper={pa.int8(): pd.Int8Dtype()}.get)


def _with_provenance(table: pa.Table, provenance: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({PROVENANCE_KEY: json.dumps(provenance, sort_keys=True)})
