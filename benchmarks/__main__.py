"""All measurements, one part after the other, each a process of its own: `python -m benchmarks [PART ...]`."""

import argparse
import logging
import subprocess
import sys

from benchmarks import render
from benchmarks.parts import FULL_SIZE, PARTS


def main() -> int:
    """Run the parts asked for, or all, write README's tables; return 1 where a part failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join((*PARTS, FULL_SIZE))} (default: all)")
    asked = parser.parse_args().parts
    unknown = [part for part in asked if part not in (*PARTS, FULL_SIZE)]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; parts are {', '.join((*PARTS, FULL_SIZE))}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    failed = []
    for part in asked or (*PARTS, FULL_SIZE):
        logging.getLogger("benchmarks").info("%s", part)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=False).returncode:
            failed.append(part)
    render.main()
    if failed:
        logging.getLogger("benchmarks").error("failed: %s", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
