"""Parquet tables on disk: check, provenance, temporary file, rename."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schema import Contract, ContractError
from pipeline.shell.atomic import atomic_path

PROVENANCE_KEY = b"provenance"


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
        pq.write_table(_with_provenance(table, provenance), partial, compression="zstd")


def holds(path: Path, contract: Contract, frame: pd.DataFrame, provenance: Mapping[str, Any]) -> bool:
    """Return whether a file already holds this table, made with the same settings of the same inputs."""
    if not path.exists():
        return False
    of_file = read_provenance(path)
    if any(of_file.get(key) != provenance[key] for key in ("settings", "inputs")):
        return False
    return pq.read_table(path).equals(to_arrow(contract, frame).cast(contract.schema()))


def write_stream(
    path: Path, contract: Contract, batches: Iterable[pa.Table], provenance: Mapping[str, Any], key_column: str
) -> int:
    """Write a table that need not fit in memory, one row group a batch; return its rows.

    Each batch is checked as it comes; of the whole, only the key column is kept, to see that no row repeats.
    """
    seen: set[str] = set()
    schema = contract.schema().with_metadata({PROVENANCE_KEY: json.dumps(provenance, sort_keys=True)})
    rows = 0
    with atomic_path(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in batches:
            contract.check_rows(batch)
            seen.update(batch.column(key_column).to_pylist())
            rows += batch.num_rows
            if len(seen) != rows:
                raise ContractError(f"{contract.name}: {key_column} repeats")
            writer.write_table(batch.cast(schema))
    return rows


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a table as a data frame; nullable integers and booleans keep their type through nulls."""
    return _frame(pq.read_table(path, columns=list(columns) if columns else None))


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
    return _frame(table.drop_columns("vector")), vector_matrix(table)


def read_provenance(path: Path) -> dict[str, Any]:
    """Return the provenance that a table carries."""
    return json.loads(pq.read_schema(path).metadata[PROVENANCE_KEY])


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper={pa.int8(): pd.Int8Dtype()}.get)


def _with_provenance(table: pa.Table, provenance: Mapping[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({PROVENANCE_KEY: json.dumps(provenance, sort_keys=True)})
