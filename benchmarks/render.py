"""Write the measured tables into README: `python -m benchmarks.render`.

Each table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; README's other text stays as it is.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, markdown, read_results

log = logging.getLogger(__name__)

README = Path(__file__).resolve().parents[1] / "README.md"


def rendered(text: str, machines: Sequence[Mapping[str, Any]]) -> str:
    """Return a text with the machines' tables between their markers; markers of other names are left alone."""
    for name in sorted({name for machine in machines for name in machine["tables"]}):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, begin_found, rest = text.partition(begin)
        _, end_found, after = rest.partition(end)
        if begin_found and end_found:
            text = before + begin + markdown(machines, name) + end + after
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
