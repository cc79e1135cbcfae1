"""The cranial cavity: a ring of bone by hand, what it encloses, a gap in it, a corner; a head from neck to crown."""

import numpy as np

from pipeline.core.cranial_cavity import enclosed_soft_tissue, shows_cranial_cavity
from pipeline.core.phantom.anatomy import Shift, build_fields
from pipeline.core.phantom.head import at_study, draw_head
from pipeline.core.phantom.render import render_slice


def ring(outer: float = 40, inner: float = 34, inside: int = 35, shape: tuple[int, int] = (96, 104)) -> np.ndarray:
    """Return a slice (y, x) in HU: air, and a ring of bone about the middle, radii in pixels."""
    y, x = (np.arange(size) - size / 2 for size in shape)
    radius = np.hypot(y[:, None], x[None, :])
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[radius < outer + 6] = 30  # scalp
    hu[radius < outer] = 900
    hu[radius < inner] = inside
    return hu


def test_what_a_ring_encloses_is_counted_and_the_scalp_is_not():
    hu = ring()
    y, x = np.mgrid[:96, :104]
    inside = (np.hypot(y - 48, x - 52) < 34).mean()
    assert enclosed_soft_tissue(hu) == inside
    assert abs(inside - np.pi * 34**2 / (96 * 104)) < 0.005
    assert shows_cranial_cavity(hu)


def test_blood_counts_as_brain_does_and_air_and_fat_do_not():
    hu = ring()
    hu[40:55, 45:60] = 75
    assert enclosed_soft_tissue(hu) == enclosed_soft_tissue(ring())
    assert not shows_cranial_cavity(ring(inside=-1000))
    assert not shows_cranial_cavity(ring(inside=-90))


def test_a_cavity_that_is_too_small_or_has_no_wall_is_none():
    assert not shows_cranial_cavity(ring(outer=12, inner=6))  # 113 of 9,984 pixels: the canal of a vertebra
    assert shows_cranial_cavity(ring(outer=16, inner=10))  # 314 of 9,984
    neck = ring(outer=0, inner=0)
    neck[20:70, 20:80] = 40
    assert not shows_cranial_cavity(neck)
    assert enclosed_soft_tissue(np.full((8, 9), 900)) == 0


def test_a_gap_in_the_bone_opens_it_but_a_corner_does_not():
    hu = ring()
    hu[:48, 50:54] = np.where(hu[:48, 50:54] == 900, 35, hu[:48, 50:54])
    assert enclosed_soft_tissue(hu) == 0
    # Bone that touches at corners alone is a wall.
    wall = np.full((9, 9), 35)
    for step in range(5):
        for y, x in ((step, 4 - step), (step, 4 + step), (8 - step, 4 - step), (8 - step, 4 + step)):
            wall[y, x] = 900
    assert enclosed_soft_tissue(wall) == 25 / 81


def test_a_head_from_the_neck_to_the_air_above_it():
    rng = np.random.default_rng(3)
    person = at_study(draw_head(rng), swollen_ventricles=False, scalp_haematoma=False)
    fields = build_fields(rng, person, Shift(0.0, 0.0, 0.0))
    background = np.full((150, 125), -1000.0, dtype=np.float32)
    shown = {}
    for z in (-80.0, 10.0, 40.0, 70.0, 110.0):  # mm above the skull's base; 1.6 mm a pixel
        frame = (np.array([-100.0, -120.0, z]), np.array([1.6, 0, 0]), np.array([0, 1.6, 0]), np.array([0, 0, 0.1]))
        hu, _ = render_slice(fields, person, np.zeros((0, 7)), np.zeros((0, 11)), frame, background)
        shown[z] = shows_cranial_cavity(hu)
    # The canal of the spine is enclosed too, and is too small.
    assert shown == {-80.0: False, 10.0: True, 40.0: True, 70.0: True, 110.0: False}
