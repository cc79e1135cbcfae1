"""Write the measured tables into README: `python -m benchmarks.render`.

Each section stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; README's other text stays as it is.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import FULL_SIZE, PARTS, SLOW_PARTS
from benchmarks.results import FOLDER, markdown, read_results

log = logging.getLogger(__name__)

README = Path(__file__).resolve().parents[1] / "README.md"

SECTIONS = {FULL_SIZE: (FULL_SIZE,), "stages": (*PARTS, *SLOW_PARTS)}
"""README's sections, and the tables whose rows stand in each."""


def rendered(text: str, machines: Sequence[Mapping[str, Any]]) -> str:
    """Return a text with the machines' tables between the markers of their sections; other markers are left alone."""
    for name, tables in SECTIONS.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, begin_found, rest = text.partition(begin)
        _, end_found, after = rest.partition(end)
        if begin_found and end_found:
            text = before + begin + markdown(machines, tables) + end + after
    return text


def main() -> None:
    """Rewrite README's tables from the result files."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    before = README.read_text()
    after = rendered(before, read_results(FOLDER))
    README.write_text(after)
    log.info("%s: %s", README.name, "unchanged" if after == before else "rewritten")


if __name__ == "__main__":
    main()
