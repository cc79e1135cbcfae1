"""Tells apart the acquisitions that one series holds, and orders the slices of each.

Two runs of the table, or a retake, may share a series: read as one stack, their slices would alternate. Uneven spacing
alone is no second acquisition: scans change their spacing above the skull base, jitter, and lack slices.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.core.geometry import common_normal, slice_normals, spacings_mm, tilts_deg

SAME_NORMAL_DEG = 2.0
"""Slices whose normals differ by more cannot belong to one stack."""
REPEATED_MM = 0.1
"""Slices of one stack do not lie closer than this."""
OVERLAP_SLICES = 3
"""Two runs overlap where at least so many slices of each lie beside slices of the other."""
ROUGH_MM, ROUGH_SHARE = 0.15, 0.15
"""Spacing changes roughly where neighbouring gaps differ by more than both: this, and this share of their mean."""
EVEN_MM = 0.45
"""Spacing is even where neighbouring gaps differ by no more than this."""
CHAIN_MM = 0.3
"""A slice continues a chain of even spacing where it lies this close to the next expected place."""
LEAST_GAIN = 4
"""Two runs must explain at least so many rough places; uneven spacing alone makes one or two."""
USUAL_MM = 5.0
"""The spacing of head CT, for comparison where no slice lies outside an overlap."""
DENSER = 0.75
"""In an overlap the mean gap is at most this share of the gap outside."""
MOSTLY_ROUGH = 0.6
"""In an overlap, where slices of two runs alternate, at least this share of places is rough."""
LONGEST_GAP_SLICES = 2
"""Slices that a chain may lack in one place."""
CHAIN_STARTS = 12
CHAIN_REACH = 4
"""Chains are tried from so many slices, to each of so many next ones: bounds the work for a long uneven series."""


class Ordered(NamedTuple):
    """Where each slice of a series belongs; arrays (slices,) in the order given."""

    run: np.ndarray
    """0 for the acquisition that starts lowest, then 1, ..."""
    position: np.ndarray
    """Place in its run, 0 = most caudal."""
    z_mm: np.ndarray
    """Along the run's normal."""
    spacing_mm: np.ndarray
    """NaN for the only slice of a run."""
    tilt_deg: np.ndarray


def order_series(
    slice_ids: Sequence[str],
    positions_mm: np.ndarray,
    orientation: np.ndarray,
    signatures: Sequence[Sequence[Hashable]] | None = None,
) -> Ordered:
    """Tell apart the acquisitions of one series and order each by itself, whatever the order of the slices given.

    `positions_mm` (slices, 3) and `orientation` (slices, 6) are ImagePositionPatient and ImageOrientationPatient. Each
    slice's signature holds header fields that one acquisition shares (size, pixel spacing, rescale, ...); where runs
    cannot be told by place alone, they are told by these, then by slice id.
    """
    return order_stacks(slice_ids, positions_mm, slice_normals(orientation), signatures)


def order_stacks(
    slice_ids: Sequence[str],
    positions_mm: np.ndarray,
    normals: np.ndarray,
    signatures: Sequence[Sequence[Hashable]] | None = None,
) -> Ordered:
    """Do what `order_series` does, for normals (slices, 3) as `slice_normals` gives them."""
    by_id = np.argsort(np.asarray(slice_ids, dtype=object), kind="stable")
    signatures = signatures or [()] * len(slice_ids)
    z_mm = np.empty(len(slice_ids))
    runs: list[np.ndarray] = []
    for stack in _same_normal(normals, by_id):
        z_mm[stack] = positions_mm[stack] @ common_normal(normals[stack])
        upwards = stack[np.argsort(z_mm[stack], kind="stable")]
        split = split_acquisitions(z_mm[upwards], [signatures[i] for i in upwards])
        runs += [upwards[split == k] for k in range(split.max() + 1)]
    if len(runs) > 1:
        runs.sort(key=lambda members: (z_mm[members[0]], min(slice_ids[i] for i in members)))
    run, position = np.empty(len(z_mm), np.int32), np.empty(len(z_mm), np.int32)
    spacing_mm = np.empty(len(z_mm))
    for number, members in enumerate(runs):
        run[members], position[members] = number, np.arange(len(members))
        spacing_mm[members] = spacings_mm(z_mm[members])
    return Ordered(run, position, z_mm, spacing_mm, tilts_deg(normals))


def split_acquisitions(z_mm: np.ndarray, signatures: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """Return the run (slices,) of each slice, numbered from 0, of positions z_mm (slices,) in ascending order.

    Two runs are told apart where they overlap over at least three slices and each is even where the whole is not; or
    where they overlap and differ in their signatures throughout; or where positions repeat (closer than 0.1 mm). Of
    slices that repeat and look alike, the first stays with all others.
    """
    runs = _split(np.asarray(z_mm, dtype=np.float64), list(signatures), np.arange(len(z_mm)))
    split = np.empty(len(z_mm), dtype=np.int32)
    for number, members in enumerate(runs):
        split[members] = number
    return split


def _same_normal(normals: np.ndarray, by_id: np.ndarray) -> list[np.ndarray]:
    """Return stacks of slice indices, in order of slice id, whose normals agree with that of their first slice."""
    if (normals == normals[0]).all():
        return [by_id]
    stacks = []
    left = by_id
    while len(left):
        cosine = np.clip(normals[left] @ normals[left[0]], -1, 1)
        same = np.degrees(np.arccos(cosine)) <= SAME_NORMAL_DEG
        stacks.append(left[same])
        left = left[~same]
    return stacks


def _split(z: np.ndarray, signatures: list[Sequence[Hashable]], members: np.ndarray) -> list[np.ndarray]:
    second = _second_run(z[members], [signatures[i] for i in members])
    if second is None:
        return [members]
    return [*_split(z, signatures, members[~second]), *_split(z, signatures, members[second])]


def _second_run(z: np.ndarray, signatures: list[Sequence[Hashable]]) -> np.ndarray | None:
    """Return the mask (slices,) of slices that are not the first run's, or None where there is one run."""
    if len(z) < 2:
        return None
    repeated = np.diff(z) < REPEATED_MM
    rough = _rough_places(z)
    whole, _ = _unevenness(z)
    found = [
        _rank(z, mask)
        for mask in _signature_runs(signatures)
        if _parts(repeated, mask) or (_overlap(z, mask) and _is_denser(z, mask))
    ]
    found = [rank for rank in found if rank[0] <= whole]
    if len(rough) >= LEAST_GAIN:
        most = min(len(rough) - LEAST_GAIN, len(rough) // 2)
        found += [
            _rank(z, mask)
            for mask in _chains(z, rough)
            # The quickest question first: of an uneven scan's many chains few are left by it.
            if _changes(z[mask]).size + _changes(z[~mask]).size <= most
            and _overlap(z, mask)
            and _is_denser(z, mask)
            and _is_rough_inside(z, mask, rough)
        ]
    if found:
        second = np.array(min(found)[-1])
        return ~second if second[0] else second
    if repeated.any():
        return _later_of_repeated(repeated)
    return None


def _rough_places(z: np.ndarray) -> np.ndarray:
    gaps = z[1:] - z[:-1]
    change, mean = np.abs(gaps[1:] - gaps[:-1]), (gaps[1:] + gaps[:-1]) / 2
    return np.flatnonzero(change > np.maximum(ROUGH_MM, ROUGH_SHARE * mean))


def _unevenness(z: np.ndarray) -> tuple[int, float]:
    """Return how often the spacing changes, and by how many mm in all."""
    changes = _changes(z)
    return len(changes), float(changes.sum())


def _changes(z: np.ndarray) -> np.ndarray:
    """Return by how many mm the spacing changes, wherever it does."""
    gaps = z[1:] - z[:-1]
    changes = np.abs(gaps[1:] - gaps[:-1])
    return changes[changes > EVEN_MM]


def _rank(z: np.ndarray, mask: np.ndarray) -> tuple[int, float, int, tuple[bool, ...]]:
    """Return what the best of several partings in two is the least of.

    The most even runs; then the longest, so that little is torn from its context.
    """
    (often, much), (other_often, other_much) = _unevenness(z[mask]), _unevenness(z[~mask])
    return often + other_often, round(much + other_much, 1), -max(mask.sum(), (~mask).sum()), tuple(mask)


def _overlap(z: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether enough slices of each run lie beside the other run, slices being as thick as they are apart."""
    if not OVERLAP_SLICES <= mask.sum() <= len(z) - OVERLAP_SLICES:
        return False
    runs = z[mask], z[~mask]
    reach = [_median(run[1:] - run[:-1]) / 2 for run in runs]
    return all(
        ((run >= other[0] - half) & (run <= other[-1] + half)).sum() >= OVERLAP_SLICES
        for run, other, half in zip(runs, runs[::-1], reach[::-1], strict=True)
    )


def _median(values: np.ndarray) -> float:
    """Return what np.median does, which takes ten times as long over so few values."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _is_denser(z: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether slices lie closer where the two runs overlap than elsewhere."""
    gaps, inside = np.diff(z), _inside(z, mask)
    outside = gaps[~inside]
    usual = _median(outside) if len(outside) > 2 else USUAL_MM
    return bool(inside.any()) and gaps[inside].mean() <= DENSER * usual


def _is_rough_inside(z: np.ndarray, mask: np.ndarray, rough: np.ndarray) -> bool:
    """Return whether the spacing is rough throughout the overlap, as it is where the slices of two runs alternate.

    Every other slice of one even scan also makes an even run; there the spacing is rough only where slices lack.
    """
    inside = _inside(z, mask)
    return (inside[rough] & inside[rough + 1]).sum() >= MOSTLY_ROUGH * (inside.sum() - 1)


def _inside(z: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mask (gaps,) of gaps that lie in the overlap of two runs."""
    low, high = max(z[mask][0], z[~mask][0]), min(z[mask][-1], z[~mask][-1])
    middles = (z[1:] + z[:-1]) / 2
    return (middles > low) & (middles < high)


def _parts(repeated: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether a mask parts all slices that repeat a position from each other."""
    return bool(repeated.any()) and bool((mask[1:] != mask[:-1])[repeated].all())


def _later_of_repeated(repeated: np.ndarray) -> np.ndarray:
    later = np.zeros(len(repeated) + 1, dtype=bool)
    for i in np.flatnonzero(repeated):
        # Of three in one place the third is the second's repetition once the second is gone.
        later[i + 1] = not later[i]
    return later


def _signature_runs(signatures: list[Sequence[Hashable]]) -> Iterator[np.ndarray]:
    """Yield, for each field of the signature and each of its values, the mask of slices that have the value."""
    for field in zip(*signatures, strict=True):
        values = set(field)
        if 1 < len(values) <= 8:
            for value in sorted(values, key=repr):
                yield np.array([own == value for own in field])


def _chains(z: np.ndarray, rough: np.ndarray) -> Iterator[np.ndarray]:
    """Yield masks of evenly spaced slices: from the lowest slice, and from the slices where the spacing gets rough."""
    starts = sorted({0, 1, *(i + k for i in rough[:CHAIN_STARTS].tolist() for k in (0, 1, 2))})[:CHAIN_STARTS]
    places = z.tolist()
    for start in starts:
        for second in range(start + 1, min(start + 1 + CHAIN_REACH, len(places))):
            chain = _chain(places, start, second)
            if len(chain) >= OVERLAP_SLICES:
                mask = np.zeros(len(places), dtype=bool)
                mask[chain] = True
                yield mask


def _chain(z: list[float], start: int, second: int) -> list[int]:
    """Return the slices that go on upwards with the step between the two given, allowing for slices that lack."""
    step = z[second] - z[start]
    chain = [start]
    following: int | None = second if step >= REPEATED_MM else None
    while following is not None:
        chain.append(following)
        expected = (z[following] + step * k for k in range(1, LONGEST_GAP_SLICES + 2))
        following = next((i for place in expected if (i := _nearest(z, place, following + 1)) is not None), None)
    return chain


def _nearest(z: list[float], place: float, first: int) -> int | None:
    """Return the slice nearest to a place, from slice `first` on, where one is near enough."""
    i = bisect_left(z, place, lo=min(first, len(z)))
    near = [j for j in (i - 1, i) if first <= j < len(z) and abs(z[j] - place) <= CHAIN_MM]
    return min(near, key=lambda j: abs(z[j] - place), default=None)
