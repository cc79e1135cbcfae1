"""What was measured on a machine: tables of rows in one JSON file a machine, and the same as Markdown.

{"machine": ..., "cpu": ..., "cores": ..., "memory_gb": ..., "gpu": ...,
 "tables": {NAME: {"date", "commit", "threads", "versions", "rows": [{"name", ...}]}}}

Rows of the table `full-size` are Cost, those of `stages` Comparison.
"""

import dataclasses
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.comparison import HEAD, Comparison, Target, figure
from pipeline.shell.provenance import commit, read_json, versions, write_json

FOLDER = Path(__file__).parent / "results"


COST_HEAD = ("stage", "seconds", "peak MB", "to reach")


@dataclass(frozen=True)
class Cost:
    """What a process took: wall seconds and peak resident memory, and at most what it may take of both."""

    name: str
    seconds: float
    peak_mb: float
    most_seconds: float | None = None
    most_mb: float | None = None

    def cells(self) -> list[str]:
        """Return the row's texts, in the order of COST_HEAD."""
        limits = ((self.most_seconds, "s"), (self.most_mb, "MB"))
        texts = [f"{limit:,g} {unit}" for limit, unit in limits if limit is not None]
        return [self.name, figure(self.seconds), figure(self.peak_mb), f"≤ {', '.join(texts)}" if texts else ""]


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as the system gives it."""
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def machine_name(cpu: str, cores: int, gpu: str = "") -> str:
    """Return a file name for a kind of machine: `amd-epyc-7b13-2-cores`, with a GPU `...-nvidia-h200`."""
    without_marks = re.sub(r"\((r|tm|c)\)|@.*|\bcpu\b|\bprocessor\b|\d+-core", " ", cpu.lower())
    words = re.findall(r"[a-z0-9.]+", without_marks)
    gpu_words = re.findall(r"[a-z0-9.]+", gpu.lower())
    return "-".join([*words, str(cores), "core" if cores == 1 else "cores", *gpu_words])


def gpu_name() -> str:
    """Return the first GPU's name, empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.splitlines()[0].strip() if said.strip() else ""


def machine_facts() -> dict[str, Any]:
    """Return what a file says of the machine that this runs on."""
    cpu, cores, gpu = cpu_model(), len(os.sched_getaffinity(0)), gpu_name()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    name = machine_name(cpu, cores, gpu)
    return {"machine": name, "cpu": cpu, "cores": cores, "memory_gb": round(memory / 1024**3), "gpu": gpu}


def write_results(folder: Path, table: str, rows: Sequence[Cost | Comparison], threads: int) -> Path:
    """Write a table into this machine's file, in place of an earlier one of that name; return the file."""
    facts = machine_facts()
    path = folder / f"{facts['machine']}.json"
    tables = read_json(path)["tables"] if path.exists() else {}
    tables[table] = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "threads": threads,
        "versions": versions(),
        "rows": [{"kind": type(row).__name__, **_plain(dataclasses.asdict(row))} for row in rows],
    }
    write_json(path, {**facts, "tables": dict(sorted(tables.items()))})
    return path


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what it does not say, figures with four digits."""
    rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    return {key: value for key, value in rounded.items() if value not in (None, "")}


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return what all machines' files hold, in order of file name."""
    return [read_json(path) for path in sorted(folder.glob("*.json"))]


def rows_of(table: Mapping[str, Any]) -> list[Cost | Comparison]:
    """Return the rows of a table as it stands in a file."""
    return [_row(dict(row)) for row in table["rows"]]


def _row(row: dict[str, Any]) -> Cost | Comparison:
    if row.pop("kind") == Cost.__name__:
        return Cost(**row)
    target = row.pop("target", None)
    return Comparison(**{"value": None, **row, "target": Target(**target) if target else None})


def markdown(machines: Sequence[Mapping[str, Any]], tables: Sequence[str]) -> str:
    """Return the rows of some tables, one after the other, for each machine that has any of them.

    A line says where and when; notes follow below. All the tables hold rows of one kind. The last character ends a
    line.
    """
    texts = []
    for machine in machines:
        held = [machine["tables"][table] for table in tables if table in machine["tables"]]
        if not held:
            continue
        rows = [row for table in held for row in rows_of(table)]
        head = COST_HEAD if isinstance(rows[0], Cost) else HEAD
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *(row.cells() for row in rows))]
        notes = [f"- {row.name}: {row.note}" for row in rows if isinstance(row, Comparison) and row.note]
        threads, commits, dates = (_all(held, key) for key in ("threads", "commit", "date"))
        gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
        origin = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB{gpu}; {threads} threads; "
            f"commit {commits}, {dates}:"
        )
        texts.append("\n".join([origin, "", *lines, *([""] if notes else []), *notes]) + "\n")
    return "\n".join(texts)


def _all(tables: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return what tables say of themselves under a key: once, where all say the same."""
    return ", ".join(sorted({str(table[key]) for table in tables}))
