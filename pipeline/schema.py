"""The contract of every table: columns, types, units, keys, and the laws that every row keeps."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LABELS, P_LABELS

REASONS = (
    "unreadable",
    "no pixel data",
    "truncated pixel data",
    "not a CT slice",
    "unusable transfer syntax",
    "unsupported pixel format",
    "unusable geometry",
    "unusable rescale",
    "no label",
    "not in the sample submission",
    "repeated slice id",
    "no such frame",
    "unusable name",
    "undecodable pixel data",
    "unusable mask",
)
"""Why a file is left out; a fixed list, so that counts can be compared."""


class ContractError(Exception):
    """A table does not keep its contract: a fault of the program, never of the user's."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, its unit (kept in the field's metadata), and whether it may be null."""

    name: str
    type: pa.DataType
    unit: str | None = None
    nullable: bool = False


@dataclass(frozen=True)
class Contract:
    """A table's name, its key (a row's identity) and its columns."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    def schema(self) -> pa.Schema:
        """Return the Arrow schema, units in the fields' metadata."""
        return pa.schema(
            [
                pa.field(c.name, c.type, nullable=c.nullable, metadata={"unit": c.unit} if c.unit else None)
                for c in self.columns
            ]
        )

    def check(self, table: pa.Table) -> None:
        """Check columns, types, nulls, labels, probabilities and the key's uniqueness; raises ContractError."""
        self.check_rows(table)
        if self.key and table.num_rows:
            keys = table.select(list(self.key))
            unique = keys.group_by(list(self.key)).aggregate([]).num_rows
            if unique != table.num_rows:
                raise ContractError(f"{self.name}: {table.num_rows - unique} rows repeat the key {', '.join(self.key)}")

    def check_rows(self, table: pa.Table) -> None:
        """Check all that can be seen in some of the rows: everything but the key; raises ContractError."""
        expected = self.schema()
        if table.schema.names != expected.names:
            raise ContractError(f"{self.name}: columns {table.schema.names}, expected {expected.names}")
        for column in self.columns:
            values = table.column(column.name)
            if values.type != column.type:
                raise ContractError(f"{self.name}.{column.name}: type {values.type}, expected {column.type}")
            if not column.nullable and values.null_count:
                raise ContractError(f"{self.name}.{column.name}: {values.null_count} nulls where none may be")
            bounded = column.name in LABELS or column.name in P_LABELS
            if bounded and len(values) > values.null_count:
                low, high = pc.min(values).as_py(), pc.max(values).as_py()
                finite = column.name in LABELS or pc.all(pc.is_finite(values)).as_py()
                if not finite or not 0 <= low <= high <= 1:
                    raise ContractError(f"{self.name}.{column.name}: values from {low} to {high}, expected 0 to 1")


def _texts(*names: str, nullable: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, pa.string(), nullable=nullable) for name in names)


def _labels() -> tuple[Column, ...]:
    return tuple(Column(label, pa.int8(), nullable=True) for label in LABELS)


def _probabilities() -> tuple[Column, ...]:
    return tuple(Column(name, pa.float64(), nullable=True) for name in P_LABELS)


SLICES = Contract(
    "SLICES",
    ("slice_id",),
    (
        *_texts("slice_id", "scan_id", "study_id", "patient_id", "split"),
        Column("position", pa.int32(), "slices from the most caudal one"),
        Column("z_mm", pa.float64(), "mm"),
        Column("spacing_mm", pa.float64(), "mm", nullable=True),
        Column("thickness_mm", pa.float64(), "mm", nullable=True),
        Column("orientation", pa.list_(pa.float64(), 6)),
        Column("tilt_deg", pa.float64(), "degrees"),
        Column("rows", pa.int32(), "px"),
        Column("columns", pa.int32(), "px"),
        Column("row_mm", pa.float64(), "mm"),
        Column("column_mm", pa.float64(), "mm"),
        Column("bits", pa.int16()),
        Column("signed", pa.bool_()),
        Column("slope", pa.float64(), "HU per stored unit"),
        Column("intercept", pa.float64(), "HU"),
        Column("padding_low", pa.int32(), "stored units", nullable=True),
        Column("padding_high", pa.int32(), "stored units", nullable=True),
        *_texts("transfer_syntax", "path"),
        Column("frame", pa.int32(), "number in its file, from 1"),
        Column("bytes", pa.int64(), "bytes"),
        Column("pixel_offset", pa.int64(), "bytes from the file's beginning", nullable=True),
        *_labels(),
        *_texts("mask", nullable=True),
    ),
)

# The path alone is no key: a multi-frame file may hold several slices that cannot be used, and one that cannot be read
# owes every slice that the CSVs ask of it. Nor is the slice id: two files may claim the same.
REJECTED = Contract(
    "REJECTED",
    ("path", "slice_id"),
    (
        *_texts("path"),
        *_texts("slice_id", "scan_id", "patient_id", nullable=True),
        Column("z_mm", pa.float64(), "mm", nullable=True),
        *_texts("split", nullable=True),
        *_texts("reason", "detail"),
    ),
)

FOLDS = Contract("FOLDS", ("patient_id",), (*_texts("patient_id"), Column("fold", pa.int8()), *_texts("holdout")))

IMAGES = Contract(
    "IMAGES",
    ("slice_id",),
    (
        *_texts("slice_id", "path"),
        *_texts("mask", nullable=True),
        Column("source_bytes", pa.int64(), "bytes"),
        *_texts("digest", "png_crc"),
        Column("mask_source_bytes", pa.int64(), "bytes", nullable=True),
        *_texts("mask_source_crc", "mask_crc", nullable=True),
    ),
)

PREDICTIONS = Contract(
    "PREDICTIONS",
    ("slice_id", "stage"),
    (*_texts("slice_id", "stage", "scan_id"), Column("fold", pa.int8()), *_texts("split"), *_probabilities()),
)


SCAN_PREDICTIONS = Contract(
    "SCAN_PREDICTIONS",
    ("scan_id", "stage"),
    (
        *_texts("scan_id", "stage"),
        Column("fold", pa.int8()),
        *_texts("split"),
        *_probabilities()[:-1],
        Column(P_LABELS[-1], pa.float64()),
    ),
)


DETECTIONS = Contract(
    "DETECTIONS",
    ("slice_id", "detection"),
    (
        *_texts("slice_id", "scan_id"),
        Column("fold", pa.int8()),
        *_texts("split"),
        Column("detection", pa.int32(), "of its slice, the most certain is 1"),
        *(Column(name, pa.float32(), "px of the view") for name in ("x0_px", "y0_px", "x1_px", "y1_px")),
        *_texts("type"),
        Column("score", pa.float64()),
        *_texts("mask"),
    ),
)

MEASUREMENTS = Contract(
    "MEASUREMENTS",
    ("scan_id", "source", "type", "lesion"),
    (
        *_texts("scan_id", "source", "type"),
        Column("fold", pa.int8()),
        *_texts("split"),
        Column("lesion", pa.int32(), "of its scan and type, the largest is 1"),
        Column("volume_ml", pa.float64(), "mL", nullable=True),
        Column("abc2_ml", pa.float64(), "mL", nullable=True),
    ),
)

OVERLAPS = Contract(
    "OVERLAPS",
    ("slice_id", "type"),
    (
        *_texts("slice_id", "scan_id", "type"),
        Column("fold", pa.int8()),
        *_texts("split"),
        Column("dice", pa.float64()),
        Column("threshold_dice", pa.float64(), nullable=True),
    ),
)


def vectors(name: str, width: int) -> Contract:
    """Return the contract of EMBEDDINGS or REDUCED for vectors of `width` features.

    `fold` is the patient's fold, null for test slices.
    """
    return Contract(
        name,
        ("slice_id",),
        (
            *_texts("slice_id"),
            Column("fold", pa.int8(), nullable=True),
            Column("vector", pa.list_(pa.float16(), width)),
            *_probabilities(),
        ),
    )
