"""What a stage is told: the run, the fold, and facts of the machine that no digest holds. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import Run, UserError
from pipeline.paths import Paths
from pipeline.published import FigureTable, PublishedReaders, PublishedTable


@dataclass(frozen=True)
class PhantomSettings:
    """What decides the bytes of the phantom data set."""

    scans: int = 144
    """Of the train part and of the test part together."""
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One call of a stage: the run, the fold, and facts of the machine that no digest holds."""

    run: Run
    paths: Paths
    fold: int | None
    folds: tuple[int, ...]
    phantom: PhantomSettings
    n_jobs: int
    threads: int
    max_rejected: float
    force: bool
    tables: tuple[PublishedTable, ...] = ()
    """For `ablation`: the paper's tables whose rows are variants of the recipe."""
    table_runs: Mapping[str, Run] = field(default_factory=dict)
    """For `ablation`: the recipe under the empty name, and its variants, all with the same SET and SEED."""
    figure_tables: tuple[FigureTable, ...] = ()
    """For `tables`: the paper's tables of several figures."""
    figure_runs: Mapping[str, Run] = field(default_factory=dict)
    """For `tables`: the run of each variant that those tables name, all with the same SET and SEED."""
    system_runs: tuple[Run, ...] = ()
    """For `systems`: a run of each published system, at a size that two cores manage."""
    readers: Path | None = None
    """For `readers`: the CSV of what human readers said."""
    reader_table: PublishedReaders | None = None
    """For `readers`: the reader study of the recipe's paper."""

    def require_fold(self) -> int:
        """Return the fold asked for; raises UserError where none was."""
        if self.fold is None:
            raise UserError("this stage works on one fold: say which, as in --fold 0")
        return self.fold

    def require_readers(self) -> Path:
        """Return the CSV of human readers; raises UserError where none was named."""
        if self.readers is None:
            raise UserError("READERS= is not given: name the CSV of what human readers said, as in READERS=readers.csv")
        return self.readers
