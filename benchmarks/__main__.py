"""All measurements, one part after the other, each a process of its own: `python -m benchmarks [--slow] [PART ...]`."""

import argparse
import logging
import subprocess
import sys

from benchmarks import render
from benchmarks.parts import FULL_SIZE, PARTS, SLOW_PARTS, print_rows
from benchmarks.results import FOLDER, machine_facts, rows_of
from pipeline.shell.provenance import read_json

log = logging.getLogger(__name__)

QUICK = (*PARTS, FULL_SIZE)


def main() -> int:
    """Run the parts asked for, print and write README's tables; return 1 where a part failed."""
    known = (*QUICK, *SLOW_PARTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)} (default: {', '.join(QUICK)})")
    parser.add_argument("--slow", action="store_true", help=f"the rest: {', '.join(SLOW_PARTS)}")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in known]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; parts are {', '.join(known)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    failed = []
    for part in arguments.parts or (SLOW_PARTS if arguments.slow else QUICK):
        log.info("%s", part)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=False).returncode:
            failed.append(part)
    render.main()
    tables = read_json(FOLDER / f"{machine_facts()['machine']}.json")["tables"]
    for section in render.SECTIONS.values():
        rows = [row for table in section if table in tables for row in rows_of(tables[table])]
        if rows:
            sys.stdout.write("\n")
            print_rows(rows)
    if failed:
        log.error("failed: %s; their rows are of an earlier run, or missing", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
