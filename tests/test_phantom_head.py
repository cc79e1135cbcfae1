"""The phantom's head, blood, scanner and plan: pure functions, no files."""

import math
from collections import Counter

import numpy as np
import pytest

from pipeline.core.phantom.anatomy import Shift, build_fields
from pipeline.core.phantom.geometry import pixel_to_head, scan_geometry
from pipeline.core.phantom.head import at_study, draw_head, draw_inclusions
from pipeline.core.phantom.hemorrhage import (
    EPIDURAL,
    HU,
    INTRAPARENCHYMAL,
    KIND,
    REACH,
    SIZE,
    SUBARACHNOID,
    SUBDURAL,
    A,
    B,
    C,
    LesionPlan,
    X,
    Z,
    place_lesion,
)
from pipeline.core.phantom.masks import labels_from_mask, mask_from_shares
from pipeline.core.phantom.plan import LEAST_SLICES, MIN_SCANS, MOST_SLICES, make_plan
from pipeline.core.phantom.render import render_slice
from pipeline.core.phantom.storage import STORAGES, encode_pixels
from pipeline.job import PhantomSettings

DEFAULT_SCANS = PhantomSettings.scans


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def head():
    """A head without inclusions' chance: fields, head, inclusions."""
    rng = generator(3)
    person = at_study(draw_head(rng), swollen_ventricles=True, scalp_haematoma=False)
    return build_fields(rng, person, Shift(0.0, 0.0, 0.0)), person, draw_inclusions(rng, person)


@pytest.fixture(params=[0, 1, 2], ids=lambda seed: f"seed {seed}")
def plan(request):
    return make_plan(DEFAULT_SCANS, request.param)


def test_storage_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match=r"HU from 4000 to 4000: 'unsigned 12' holds -1024 to 3071"):
        encode_pixels(np.full((2, 3), 4000, dtype=np.int16), STORAGES["unsigned 12"])


def test_plan_depends_on_the_seed_alone():
    assert make_plan(MIN_SCANS, 1) != make_plan(MIN_SCANS, 2)
    assert make_plan(MIN_SCANS, 1) == make_plan(MIN_SCANS, 1)


def test_a_quarter_of_a_voxel_makes_a_label():
    shares = np.zeros((5, 3, 4), dtype=np.float32)
    shares[2, 1, 1], shares[4, 2, 3], shares[0, 0, 0] = 0.25, 0.24, 1.0
    mask = mask_from_shares(shares)
    assert mask[1, 1] == 4
    assert mask[2, 3] == 0
    assert mask[0, 0] == 1
    assert labels_from_mask(mask) == (1, 0, 1, 0, 0, 1)
    assert labels_from_mask(np.zeros((3, 4), dtype=np.uint8)) == (0,) * 6
    with pytest.raises(ValueError, match="expected \\(5, rows, columns\\)"):
        mask_from_shares(np.zeros((3, 4, 5), dtype=np.float32))


@pytest.mark.parametrize(("slab_mm", "labelled"), [(0.7, False), (2.6, True)])
def test_partial_volume_of_a_thin_slab(head, slab_mm, labelled):
    """A flat disc of blood in a 5 mm slice: less than a quarter of the thickness gives no label."""
    fields, person, _ = head
    lesion = np.zeros(11)
    lesion[KIND], lesion[HU], lesion[REACH] = INTRAPARENCHYMAL, 70.0, 40.0
    lesion[X : Z + 1] = (22.0, 25.0, 50.0)
    # An ellipsoid with half axes SIZE / A, SIZE / B, SIZE / C: 12 mm in the plane, half the slab across it.
    lesion[SIZE], lesion[A], lesion[B], lesion[C] = 12.0, 1.0, 1.0, 12.0 / (slab_mm / 2.0)
    first, step = np.array([-8.0, -5.0, 50.0]), 0.5
    frame = (first, np.array([step, 0.0, 0.0]), np.array([0.0, step, 0.0]), np.array([0.0, 0.0, 5.0]))
    background = np.full((128, 120), -1000.0, dtype=np.float32)
    _, shares = render_slice(fields, person, np.zeros((0, 7)), lesion[None], frame, background)
    assert (labels_from_mask(mask_from_shares(shares))[INTRAPARENCHYMAL] == 1) == labelled


@pytest.mark.parametrize(
    ("kind", "volume_ml", "tolerance"),
    [
        (EPIDURAL, 15.0, 0.12),
        (SUBDURAL, 28.0, 0.15),
        (INTRAPARENCHYMAL, 9.0, 0.08),
        (INTRAPARENCHYMAL, 0.008, 0.7),
        (SUBARACHNOID, 6.0, 0.15),
    ],
)
def test_drawn_volume_is_the_planned_one(head, kind, volume_ml, tolerance):
    fields, person, inclusions = head
    rng = generator(11)
    heights = np.arange(-50.0, 100.0, 5.0)
    geometry = scan_geometry(rng, heights, np.full(len(heights), 5.0), tilt_deg=12.0, side_px=256)
    lesion = place_lesion(rng, LesionPlan(kind, volume_ml, 62.0), fields, geometry.gravity, side=1.0)
    background = np.full((256, 256), -1000.0, dtype=np.float32)
    voxel_ml = geometry.pixel_mm**2 * 5.0 / 1000.0
    drawn, labelled = 0.0, False
    for index in range(len(heights)):
        frame = pixel_to_head(geometry, index)
        _, shares = render_slice(fields, person, inclusions, lesion[None], frame, background)
        drawn += float(shares[kind].sum()) * voxel_ml
        labelled |= bool(mask_from_shares(shares).any())
    assert drawn == pytest.approx(volume_ml, rel=tolerance)
    assert labelled, "even a punctate lesion bears a label"


def test_tissues_have_their_densities(head):
    """Without noise: fluid, white and grey matter, bone and air where the anatomy has them."""
    fields, person, _ = head
    frame = (np.array([-100.0, -120.0, 38.0]), np.array([0.8, 0, 0]), np.array([0, 0.8, 0]), np.array([0, 0, 0.1]))
    background = np.full((300, 250), -1000.0, dtype=np.float32)
    hu, _ = render_slice(fields, person, np.zeros((0, 7)), np.zeros((0, 11)), frame, background)

    def at(x_mm: float, y_mm: float) -> float:
        return float(hu[round((y_mm + 120.0) / 0.8), round((x_mm + 100.0) / 0.8)])

    assert at(-98.0, -118.0) == -1000.0
    assert 0.0 <= at(14.0 * person.scale_x, 10.0 * person.scale_y) <= 12.0, "lateral ventricle"
    inside = hu[(hu > 20.0) & (hu < 50.0)]
    assert np.percentile(inside, 5) == pytest.approx(person.white_hu, abs=4.0)
    assert np.percentile(inside, 90) == pytest.approx(person.grey_hu, abs=4.0)
    assert hu.max() > 1000.0


def test_geometry_of_a_tilted_scan():
    heights = np.arange(0.0, 60.0, 5.0)
    geometry = scan_geometry(generator(1), heights, np.full(12, 5.0), tilt_deg=20.0, side_px=512)
    steps = np.diff(geometry.origins_mm, axis=0)
    assert np.allclose(steps[:, :2], 0.0, atol=1e-5), "the table moves along z"
    assert np.allclose(steps[:, 2], 5.0 / math.cos(math.radians(20.0)), atol=1e-5)
    assert np.allclose(steps @ geometry.normal, 5.0, atol=1e-5), "5 mm apart along the normal"
    with pytest.raises(ValueError, match="gantry tilt 30 degrees: at most 27"):
        scan_geometry(generator(1), heights, np.full(12, 5.0), tilt_deg=30, side_px=512)


def test_default_plan_holds_every_trap(plan):
    train = [scan for scan in plan if scan.split == "train"]
    test = [scan for scan in plan if scan.split == "test"]
    assert (len(train), len(test)) == (120, 24)
    assert {scan.storage for scan in plan} == set(STORAGES)
    assert {scan.implicit_vr for scan in plan} == {False, True}
    assert {len(scan.windows[0]) for scan in plan} == {1, 2}
    assert sum(scan.second_run for scan in train) == sum(scan.missing_slice for scan in train) == 1
    assert [scan.side_px for scan in plan].count(404) == 1
    assert sum(scan.truncated for scan in train) == sum(scan.truncated for scan in test) == 1
    assert sum(scan.repeated_rows for scan in train) == 4
    assert not any(scan.second_run or scan.missing_slice or scan.repeated_rows for scan in test)
    tilted = [scan.tilt_deg for scan in plan if scan.tilt_deg]
    assert len(tilted) == 96
    assert max(tilted) <= 27.0
    assert all(LEAST_SLICES <= scan.slices <= MOST_SLICES for scan in plan)
    assert sum(scan.slices for scan in plan) / len(plan) == pytest.approx(29.0, abs=0.5)


def test_default_plan_deals_patients_and_blood_evenly(plan):
    by_split = {split: [scan for scan in plan if scan.split == split] for split in ("train", "test")}
    patients = {split: Counter(scan.patient for scan in scans) for split, scans in by_split.items()}
    assert not set(patients["train"]) & set(patients["test"]), "no patient in both"
    assert max(patients["train"].values()) == 3
    assert sum(count > 1 for count in patients["train"].values()) >= 5
    for split, scans in by_split.items():
        positive = [scan for scan in scans if scan.lesions]
        assert len(positive) == round(0.4 * len(scans))
        for kind in range(5):
            bleeding = {scan.patient for scan in positive if kind in {lesion.kind for lesion in scan.lesions}}
            assert len(bleeding) >= (5 if split == "train" else 1)
    lesions = [lesion for scan in plan for lesion in scan.lesions]
    volumes = [lesion.volume_ml for lesion in lesions]
    assert min(volumes) < 0.01
    assert max(volumes) > 25.0
    assert min(lesion.volume_ml for lesion in lesions if lesion.kind != INTRAPARENCHYMAL) > 0.1
    densities = [lesion.hu for lesion in lesions]
    assert sum(hu < 48.0 for hu in densities) >= 4, "some almost isodense"
    assert max(densities) <= 85.0
    assert any(len(scan.lesions) > 1 for scan in plan)
