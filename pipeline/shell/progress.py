"""Progress bars on standard error, with rate and time left; none where that is no terminal."""

from tqdm import tqdm


def progress(total: int, what: str) -> tqdm:
    """Return a bar over `total` items that `what` names; whoever works calls its `update`, and closes it."""
    # smoothing: the rate of the last minute rather than of the last second, which is another one for every batch.
    return tqdm(total=total, unit=" " + what, disable=None, smoothing=0.1, dynamic_ncols=True)
