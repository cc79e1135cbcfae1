"""One of four changes: drawn evenly, applied as drawn; a shifted voxel, a mirrored one, a rod that turns in mm."""

from collections import Counter

import numpy as np
import pytest

from pipeline.core.one_of_four import KINDS, Change, apply_change, draw_change

AIR = -1024
ISOTROPIC = (1.0, 1.0, 1.0)


def draws(count: int, **changes) -> list[Change]:
    rng = np.random.default_rng(11)
    return [draw_change(rng, **{"angle_deg": 25.0, "shift": (2, 15, 15), **changes}) for _ in range(count)]


def test_each_sample_is_exactly_one_of_four_with_equal_chance():
    drawn = draws(4000)
    counts = Counter(change.kind for change in drawn)
    assert set(counts) == set(KINDS)
    assert all(900 < count < 1100 for count in counts.values())  # 1000 each; 1100 is 3.6 standard deviations away
    for change in drawn:
        assert (change.angle_deg != 0) == (change.kind == "rotated")
        assert change.shift == (0, 0, 0) or change.kind == "shifted"


def test_numbers_are_drawn_evenly_from_both_ends_of_their_ranges():
    drawn = draws(6000)
    angles = [change.angle_deg for change in drawn if change.kind == "rotated"]
    assert -25 <= min(angles) < -24.5
    assert 24.5 < max(angles) <= 25
    assert Counter(change.axis for change in drawn if change.kind == "rotated").keys() == {0, 1, 2}
    shifts = np.array([change.shift for change in drawn if change.kind == "shifted"])
    for axis, most in enumerate((2, 15, 15)):
        assert set(shifts[:, axis].tolist()) == set(range(-most, most + 1))
    flat = [change for change in draws(400, axes=(0,), shift=(0, 3, 3)) if change.kind != "original"]
    assert {change.axis for change in flat} == {0}
    assert {change.shift[0] for change in flat} == {0}


def test_drawing_leaves_the_global_random_state_alone_and_belongs_to_its_own():
    assert draws(20) == draws(20)


def test_a_shift_moves_whole_voxels_and_brings_in_air():
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    moved = apply_change(volume, Change("shifted", shift=(0, 1, -2)), ISOTROPIC, AIR)
    assert moved[0].tolist() == [[AIR] * 4, [2, 3, AIR, AIR], [6, 7, AIR, AIR]]
    assert (apply_change(volume, Change("shifted", shift=(-5, 0, 0)), ISOTROPIC, AIR) == AIR).all()
    assert apply_change(volume, Change("shifted", shift=(1, 0, 0)), ISOTROPIC, AIR)[1].tolist() == volume[0].tolist()


def test_mirroring_exchanges_left_and_right_and_twice_is_nothing():
    volume = np.random.default_rng(0).integers(-100, 100, (3, 4, 5), dtype=np.int16)
    mirrored = apply_change(volume, Change("mirrored"), ISOTROPIC, AIR)
    assert mirrored[2, 1, 0] == volume[2, 1, 4]
    np.testing.assert_array_equal(apply_change(mirrored, Change("mirrored"), ISOTROPIC, AIR), volume)
    np.testing.assert_array_equal(apply_change(volume, Change("original"), ISOTROPIC, AIR), volume)


def test_a_quarter_turn_in_the_plane_is_the_turned_array():
    volume = np.random.default_rng(1).integers(-900, 900, (2, 7, 7), dtype=np.int16)
    turned = apply_change(volume, Change("rotated", axis=0, angle_deg=90.0), ISOTROPIC, AIR)
    clockwise, other = (np.rot90(volume, times, axes=(1, 2)) for times in (1, -1))
    assert np.array_equal(turned, clockwise) or np.array_equal(turned, other)
    back = apply_change(turned, Change("rotated", axis=0, angle_deg=-90.0), ISOTROPIC, AIR)
    np.testing.assert_array_equal(back, volume)


@pytest.mark.parametrize("spacing_z", [1.0, 5.0])
def test_thick_slices_turn_in_mm(spacing_z):
    # A rod along y, 1 mm a pixel; turned by 20 degrees about x, at 40 mm it lies 40 sin 20 = 13.7 mm off its slice.
    size = 21 if spacing_z == 5 else 61
    volume = np.zeros((size, 101, 9), dtype=np.float32)
    volume[size // 2, :, 3:6] = 100
    turned = apply_change(volume, Change("rotated", axis=2, angle_deg=20.0), (spacing_z, 1.0, 1.0), 0)
    along_z = (np.arange(size) - size // 2) * spacing_z
    at = 50 + round(40 * np.cos(np.radians(20)))
    profile = turned[:, at, 4]
    assert profile.sum() > 0
    height = (profile * along_z).sum() / profile.sum()
    assert abs(height) == pytest.approx(40 * np.sin(np.radians(20)), abs=0.6)
    other = turned[:, 100 - at, 4]
    assert (other * along_z).sum() / other.sum() == pytest.approx(-height, abs=0.01)


def test_what_turns_in_from_outside_is_air_and_the_middle_stays():
    volume = np.full((1, 40, 30), 35, dtype=np.int16)
    turned = apply_change(volume, Change("rotated", angle_deg=25.0), ISOTROPIC, AIR)
    assert turned.dtype == np.int16
    assert turned[0, 0, 0] == AIR
    assert (turned[0, 15:25, 10:20] == 35).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="a change of kind 'sheared': it is one of original, rotated, mirrored"):
        apply_change(np.zeros((1, 2, 2)), Change("sheared"), ISOTROPIC, AIR)
