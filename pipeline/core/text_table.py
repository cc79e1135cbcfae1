"""Tables to be read in a terminal."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return rows of text in aligned columns: the first `left` of them flush left, the others flush right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    rule = ["-" * width for width in widths]
    lines = [
        "  ".join(
            cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, rule, *rows)
    ]
    return "".join(line.rstrip() + "\n" for line in lines)


def number(value: float | None, decimals: int) -> str:
    """Return a figure as text, thousands apart; the empty string for None."""
    return "" if value is None else f"{value:,.{decimals}f}"


def limits(low: float | None, high: float | None, decimals: int = 5) -> str:
    """Return an interval as text; the empty string where there is none."""
    return "" if low is None or high is None else f"{low:.{decimals}f} to {high:.{decimals}f}"
