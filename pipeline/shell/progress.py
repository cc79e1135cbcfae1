"""Progress bars on standard error, with rate and time left; none where that is no terminal."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(total: int, what: str, scaled: bool = False) -> tqdm:
    """Return a bar over `total` items that `what` names; whoever works calls its `update`, and closes it.

    scaled: thousands and millions are written as k and M.
    """
    # smoothing: near the mean rate, as one batch is no measure of what is left.
    return tqdm(total=total, unit=" " + what, unit_scale=scaled, disable=None, smoothing=0.1)


def tracked(items: Collection[Item], what: str) -> Iterator[Item]:
    """Yield the items, under a bar that counts them."""
    with progress(len(items), what) as bar:
        for item in items:
            yield item
            bar.update()
