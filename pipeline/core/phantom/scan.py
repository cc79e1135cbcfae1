"""One scan, from its plan to the HU and the mask of every slice."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.phantom.acquisition import headholder, noise, outside_view, streaks
from pipeline.core.phantom.anatomy import Shift, build_fields
from pipeline.core.phantom.geometry import Geometry, pixel_to_head, scan_geometry, slice_heights
from pipeline.core.phantom.head import Head, at_study, draw_head, draw_inclusions
from pipeline.core.phantom.hemorrhage import (
    EPIDURAL,
    INTRAPARENCHYMAL,
    INTRAVENTRICULAR,
    SUBARACHNOID,
    SUBDURAL,
    place_lesion,
)
from pipeline.core.phantom.masks import mask_from_shares
from pipeline.core.phantom.plan import ScanPlan
from pipeline.core.phantom.render import render_slice
from pipeline.core.phantom.storage import STORAGES, encode_pixels, intended_hu

RUN_OFFSET = 0.43
"""By what part of the spacing a second acquisition is displaced: far from both slices of the first one."""

RUN_OVERLAP = 7
"""Slices of the first acquisition that the second one passes again."""

SHIFT_FROM_ML = 8.0
"""Smaller lesions do not move the midline."""

SHIFT_MM_PER_ML = 0.2
MAX_SHIFT_MM = 7.0


@dataclass(frozen=True)
class Scan:
    """A head in a scanner, ready to be drawn. `fields` (z, y, x, 12), `inclusions` (n, 7), `lesions` (m, 11)."""

    plan: ScanPlan
    head: Head
    geometry: Geometry
    fields: np.ndarray
    inclusions: np.ndarray
    lesions: np.ndarray
    noise_hu: float
    streak_hu: float
    noise_seed: int


@dataclass(frozen=True)
class Slice:
    """A drawn slice. `hu` int16, `outside` bool and `mask` uint8 are (rows, columns); `origin_mm` (3,).

    `hu` is what a reader must find inside the field of view; `stored` (uint16 or int16) what the file holds.
    """

    index: int
    hu: np.ndarray
    outside: np.ndarray
    stored: np.ndarray
    mask: np.ndarray
    origin_mm: np.ndarray


def build_scan(plan: ScanPlan, seed: int) -> Scan:
    """Return the scan of a plan. All that is a patient's own is the same in each of the patient's studies."""
    person = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1, plan.patient])))
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2, plan.number])))
    kinds = {lesion.kind for lesion in plan.lesions}
    head = at_study(draw_head(person), INTRAVENTRICULAR in kinds, plan.scalp_haematoma)
    inclusions = draw_inclusions(person, head)
    side = float(rng.choice([-1.0, 1.0]))
    # Blow and counterblow: epidural and subdural blood lie on opposite sides, so that neither hides the other.
    sides = {EPIDURAL: side, SUBDURAL: -side, INTRAPARENCHYMAL: side, SUBARACHNOID: -side, INTRAVENTRICULAR: side}
    pushing = [lesion for lesion in plan.lesions if lesion.kind in (EPIDURAL, INTRAPARENCHYMAL, SUBDURAL)]
    push = sum(sides[lesion.kind] * SHIFT_MM_PER_ML * max(lesion.volume_ml - SHIFT_FROM_ML, 0.0) for lesion in pushing)
    fields = build_fields(person, head, Shift(float(np.clip(push, -MAX_SHIFT_MM, MAX_SHIFT_MM)), 0.0, 35.0))
    heights, thickness = _heights(rng, plan)
    geometry = scan_geometry(rng, heights, thickness, plan.tilt_deg, plan.side_px)
    lesions = [place_lesion(rng, lesion, fields, geometry.gravity, sides[lesion.kind]) for lesion in plan.lesions]
    return Scan(
        plan=plan,
        head=head,
        geometry=geometry,
        fields=fields,
        inclusions=inclusions,
        lesions=np.array(lesions).reshape(-1, 11),
        noise_hu=rng.uniform(2.2, 4.6),
        streak_hu=rng.uniform(5.0, 16.0),
        noise_seed=int(rng.integers(2**32)),
    )


def _heights(rng: np.random.Generator, plan: ScanPlan) -> tuple[np.ndarray, np.ndarray]:
    """Return height and thickness of each slice (n,), mm, with the plan's second run or missing slice."""
    heights, thickness = slice_heights(rng, plan.slices, plan.uneven)
    if plan.second_run:
        middle = plan.slices // 2
        second = heights[middle - RUN_OVERLAP :] + RUN_OFFSET * thickness[middle]
        heights = np.concatenate([heights[:middle], second])
        thickness = np.full(len(heights), thickness[middle])
    if plan.missing_slice:
        kept = np.arange(len(heights)) != len(heights) // 2
        heights, thickness = heights[kept], thickness[kept]
    return heights, thickness


def draw_slices(scan: Scan) -> Iterator[Slice]:
    """Yield the slices of a scan, in the order of acquisition."""
    storage = STORAGES[scan.plan.storage]
    background = headholder(scan.geometry)
    outside = outside_view(scan.plan.side_px)
    for index, origin in enumerate(scan.geometry.origins_mm):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([scan.noise_seed, index])))
        frame = pixel_to_head(scan.geometry, index)
        hu, shares = render_slice(scan.fields, scan.head, scan.inclusions, scan.lesions, frame, background)
        band = streaks(scan.geometry, index, scan.head, scan.streak_hu)
        if band is not None:
            hu += band
        # Noise goes with the square root of the photons that got through, so thinner slices have more.
        sigma = scan.noise_hu * (5.0 / scan.geometry.thickness_mm[index]) ** 0.5
        hu += noise(rng, scan.plan.side_px, sigma)
        pixels = intended_hu(hu, storage)
        stored = encode_pixels(pixels, storage)
        stored[outside] = storage.outside
        mask = mask_from_shares(shares)
        mask[outside] = 0
        yield Slice(index, pixels, outside, stored, mask, origin)
