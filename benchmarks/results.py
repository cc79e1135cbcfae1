"""What was measured on a machine: tables of rows in one JSON file a machine, and the same as Markdown.

{"machine": ..., "cpu": ..., "cores": ..., "memory_gb": ...,
 "tables": {NAME: {"date", "commit", "threads", "versions", "rows": [{"name", "seconds", "peak_mb", ...}]}}}
"""

import dataclasses
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.shell.provenance import commit, read_json, versions, write_json

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measurement; `baseline_seconds` is what it is compared with, where there is such a thing."""

    name: str
    seconds: float
    peak_mb: float
    baseline_seconds: float | None = None


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as the system gives it."""
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def machine_name(cpu: str, cores: int) -> str:
    """Return a file name for a kind of machine: `amd-epyc-7b13-2-cores`."""
    without_marks = re.sub(r"\((r|tm|c)\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", cpu.lower())
    words = re.findall(r"[a-z0-9.]+", without_marks)
    return "-".join([*words, str(cores), "core" if cores == 1 else "cores"])


def write_results(folder: Path, table: str, rows: Sequence[Row], threads: int) -> Path:
    """Write a table into this machine's file, in place of an earlier one of that name; return the file."""
    cpu, cores = cpu_model(), len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    path = folder / f"{machine_name(cpu, cores)}.json"
    tables = read_json(path)["tables"] if path.exists() else {}
    tables[table] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "threads": threads,
        "versions": versions(),
        "rows": [_plain(row) for row in rows],
    }
    facts = {"machine": path.stem, "cpu": cpu, "cores": cores, "memory_gb": round(memory / 1024**3)}
    write_json(path, {**facts, "tables": dict(sorted(tables.items()))})
    return path


def _plain(row: Row) -> dict[str, Any]:
    plain = {"name": row.name, "seconds": round(row.seconds, 3), "peak_mb": round(row.peak_mb, 1)}
    return plain if row.baseline_seconds is None else {**plain, "baseline_seconds": round(row.baseline_seconds, 3)}


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return what all machines' files hold, in order of file name."""
    return [read_json(path) for path in sorted(folder.glob("*.json"))]


def rows_of(table: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a table as it stands in a file; a file may say more of a row than is known here."""
    known = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: row[name] for name in known if name in row}) for row in table["rows"]]


def markdown(machines: Sequence[Mapping[str, Any]], table: str) -> str:
    """Return a table of each machine that has it, with a line that says where and when; the last character ends a line.

    The baseline and the ratio to it (how many times as fast) are columns where any row has a baseline.
    """
    texts = []
    for machine in machines:
        if table not in machine["tables"]:
            continue
        held = machine["tables"][table]
        rows = rows_of(held)
        compared = any(row.baseline_seconds is not None for row in rows)
        head = ["", "seconds", "peak MB", *(["baseline, seconds", "times as fast"] if compared else [])]
        cells = [
            [row.name, _seconds(row.seconds), f"{row.peak_mb:,.0f}", *(_compared(row) if compared else [])]
            for row in rows
        ]
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *cells)]
        origin = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {held['threads']} threads; "
            f"commit {held['commit']}, {held['date']}:"
        )
        texts.append("\n".join([origin, "", *lines]) + "\n")
    return "\n".join(texts)


def _compared(row: Row) -> list[str]:
    if row.baseline_seconds is None:
        return ["", ""]
    return [_seconds(row.baseline_seconds), f"{row.baseline_seconds / row.seconds:.1f}"]


def _seconds(seconds: float) -> str:
    """Return seconds with two or three digits that mean something."""
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}"
