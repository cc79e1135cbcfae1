"""A stage beside the straightforward way: both measured in one run, in turn, so that a busy machine is unfair to none.

Rows of the table `stages`. A row holds one figure, what it is compared with, and one target.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

HEAD = ("stage", "unit", "straightforward", "here", "ratio", "to reach", "reached")
NOT_MEASURED = "not measured"
NO_GPU = "no GPU on this machine"
"""The note of a row that needs one."""
RATE = "/s"
"""How the units end of which more is better."""


@dataclass(frozen=True)
class Target:
    """What a figure is to reach.

    kind `times`: so many times as fast as the baseline, at least; `share`: at most so many times the baseline;
    `most`: at most so many units; `least`: at least so many units.
    """

    kind: str
    bound: float

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind."""
        if self.kind not in ("times", "share", "most", "least"):
            raise ValueError(f"target {self.kind!r}: choose times, share, most or least")

    def text(self) -> str:
        """Return the target as a table says it."""
        sign = "≥" if self.kind in ("times", "least") else "≤"
        return f"{sign} {self.bound:,g}{' ×' if self.kind in ('times', 'share') else ''}"


@dataclass(frozen=True)
class Comparison:
    """One figure of a stage, what it is compared with, and what it is to reach."""

    name: str
    unit: str
    """`ms a slice`, `s`, `MB`; a rate ends in `/s`, and of it more is better."""
    value: float | None
    """None where it could not be measured; `note` says why."""
    target: Target | None = None
    baseline: float | None = None
    """The straightforward way's figure, in the same unit and of the same run."""
    note: str = ""
    """What the baseline is, the floor where a target is beyond it, or why there is no figure."""

    def ratio(self) -> float | None:
        """Return how many times as fast as the baseline, or for the target `share` how many times the baseline."""
        if self.value is None or self.baseline is None:
            return None
        is_share = self.target is not None and self.target.kind == "share"
        upwards = self.unit.endswith(RATE) or is_share
        return self.value / self.baseline if upwards else self.baseline / self.value

    def is_reached(self) -> bool | None:
        """Return whether the target is reached; None where there is none, or no figure."""
        figure = self.ratio() if self.target and self.target.kind in ("times", "share") else self.value
        if self.target is None or figure is None:
            return None
        return figure >= self.target.bound if self.target.kind in ("times", "least") else figure <= self.target.bound

    def cells(self) -> list[str]:
        """Return the row's texts, in the order of HEAD."""
        ratio, reached = self.ratio(), self.is_reached()
        return [
            self.name,
            self.unit,
            "" if self.baseline is None else figure(self.baseline),
            NOT_MEASURED if self.value is None else figure(self.value),
            "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
            self.target.text() if self.target else "",
            "" if reached is None else "yes" if reached else "no",
        ]


def figure(value: float) -> str:
    """Return a number with three digits that mean something, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def alternating(ours: Callable[[], object], baseline: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return the median seconds of a call of each, called in turn so many times after one call that does not count."""
    seconds = medians_in_turn((partial(seconds_of, ours), partial(seconds_of, baseline)), rounds)
    return seconds[0], seconds[1]


def medians_in_turn(measures: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Return the median of what each measure returns, called in turn so many times after one that does not count."""
    turns = [[measure() for measure in measures] for _ in range(rounds + 1)]
    return [statistics.median(found) for found in zip(*turns[1:], strict=True)]


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def median_seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of a call, after one that does not count."""
    return medians_in_turn([partial(seconds_of, call)], rounds)[0]
