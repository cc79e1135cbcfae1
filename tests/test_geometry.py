"""Where slices lie: positions that can be worked out by hand, and series that hold more than one acquisition."""

import numpy as np
import pytest

from pipeline.core.acquisitions import order_series, split_acquisitions
from pipeline.core.geometry import slice_normals, spacings_mm, tilts_deg

AXIAL = [1.0, 0, 0, 0, 1, 0]
RNG = np.random.default_rng(0)


def tilted(degrees: float) -> list[float]:
    """Return the orientation of a slice turned about the left-right axis."""
    angle = np.radians(degrees)
    return [1.0, 0, 0, 0, np.cos(angle), -np.sin(angle)]


def runs_of(*runs, signatures=None) -> list[list[float]]:
    """Return the positions of each run found in a series of these runs, lowest first."""
    z = np.concatenate([np.asarray(run, dtype=float) for run in runs])
    up = np.argsort(z, kind="stable")
    split = split_acquisitions(z[up], [() if signatures is None else signatures[i] for i in up])
    found = [z[up][split == k].tolist() for k in range(split.max() + 1)]
    return sorted(found)


def lattice(start: float, count: int, step: float = 5.0) -> np.ndarray:
    return start + step * np.arange(count)


def same(found: list[list[float]], *expected) -> bool:
    return found == sorted(np.asarray(run, dtype=float).tolist() for run in expected)


class TestPlaces:
    @pytest.mark.parametrize(
        ("orientation", "normal"),
        [
            (AXIAL, [0, 0, 1]),
            ([1, 0, 0, 0, -1, 0], [0, 0, 1]),  # upside down, and still counted from below
            ([-1, 0, 0, 0, 1, 0], [0, 0, 1]),
            ([0, 1, 0, 0, 0, -1], [1, 0, 0]),  # sagittal: its one component positive
            ([1, 0, 0, 0, 0, -1], [0, 1, 0]),  # coronal
        ],
    )
    def test_normals_point_to_the_head(self, orientation, normal):
        np.testing.assert_allclose(slice_normals(np.array([orientation], float))[0], normal, atol=1e-12)

    @pytest.mark.parametrize("degrees", [-27.0, 0.0, 18.5])
    def test_tilt_is_the_gantry_s(self, degrees):
        assert tilts_deg(slice_normals(np.array([tilted(degrees)])))[0] == pytest.approx(degrees)

    def test_spacing_is_the_mean_of_both_gaps(self):
        assert spacings_mm(np.array([0.0, 5, 10, 12, 20])).tolist() == [5, 5, 3.5, 5, 8]
        assert np.isnan(spacings_mm(np.array([3.0]))).all()
        assert len(spacings_mm(np.array([]))) == 0

    def test_position_is_measured_along_the_normal(self):
        # The table moves 5 mm along z; slices tilted by 60 degrees are 2.5 mm apart.
        positions = np.stack([np.full(4, -125.0), np.full(4, -130.0), 5.0 * np.arange(4)], axis=1)
        ordered = order_series(list("abcd"), positions, np.array([tilted(60.0)] * 4))
        np.testing.assert_allclose(np.diff(ordered.z_mm), 2.5)
        np.testing.assert_allclose(ordered.spacing_mm, 2.5)

    def test_shuffling_then_ordering_changes_nothing(self):
        z = np.concatenate(
            [lattice(0, 17), lattice(62.15, 9), [40.0]]
        )  # an overlap, and a repeated position that may go with either
        positions = np.stack([np.full(27, -125.0), np.full(27, -130.0), z], axis=1)
        orientation = np.array([tilted(12.0)] * 27)
        ids = [f"ID_{i:02d}" for i in range(27)]
        signatures = [(512, i % 2) for i in range(27)]
        straight = order_series(ids, positions, orientation, signatures)
        assert straight.run.max() == 1
        for _ in range(5):
            order = RNG.permutation(27)
            shuffled = order_series(
                [ids[i] for i in order], positions[order], orientation[order], [signatures[i] for i in order]
            )
            for one, other in zip(straight, shuffled, strict=True):
                np.testing.assert_array_equal(one[order], other)

    def test_every_run_is_ordered_by_itself_and_the_lowest_comes_first(self):
        z = np.concatenate([lattice(62.15, 9), lattice(0, 17)])
        positions = np.stack([np.zeros(26), np.zeros(26), z], axis=1)
        ordered = order_series([f"{i:02d}" for i in range(26)], positions, np.array([AXIAL] * 26))
        assert ordered.run.tolist() == [1] * 9 + [0] * 17
        assert ordered.position.tolist() == [*range(9), *range(17)]
        np.testing.assert_allclose(ordered.spacing_mm, 5.0)

    def test_slices_of_another_orientation_are_another_acquisition(self):
        positions = np.stack([np.zeros(10), np.zeros(10), lattice(0, 10)], axis=1)
        orientation = np.array([AXIAL] * 6 + [tilted(15.0)] * 4)
        assert order_series([str(i) for i in range(10)], positions, orientation).run.tolist() == [0] * 6 + [1] * 4

    def test_rounded_orientations_are_one(self):
        positions = np.stack([np.full(10, -125.0), np.full(10, -125.0), lattice(0, 10)], axis=1)
        orientation = np.array([tilted(15.0 + 0.01 * (i % 2)) for i in range(10)])
        ordered = order_series([str(i) for i in range(10)], positions, orientation)
        assert ordered.run.max() == 0
        np.testing.assert_allclose(ordered.spacing_mm, 5 * np.cos(np.radians(15)), atol=1e-3)


class TestOneScan:
    """A scan with merely uneven spacing stays whole."""

    @pytest.mark.parametrize(
        "z",
        [
            lattice(0, 30),
            np.delete(lattice(0, 30), 12),
            np.delete(lattice(0, 30), [3, 4, 12, 20]),
            np.concatenate([lattice(0, 14, 4.0), lattice(52 + 1.08, 14, 7.0)]),
            np.concatenate([lattice(0, 20, 2.5), lattice(52.5, 15, 5.0)]),
            np.concatenate([lattice(0, 5), lattice(22.5, 12, 2.5), lattice(55, 5)]),
            np.concatenate([lattice(0, 15), lattice(70 + 144, 15)]),
            np.cumsum(np.tile([4.8, 5.2], 15)),
            np.cumsum(np.tile([4.0, 6.0], 15)),
            np.array([7.0]),
            np.array([0.0, 5.0]),
        ],
        ids=[
            "even",
            "one lacks",
            "four lack",
            "real",
            "base and top",
            "fine middle",
            "far part",
            "4.8 5.2",
            "4 6",
            "1",
            "2",
        ],
    )
    def test_uneven_spacing(self, z):
        assert len(runs_of(z)) == 1

    @pytest.mark.parametrize("seed", range(40))
    def test_jitter_and_chance(self, seed):
        rng = np.random.default_rng(seed)
        count = rng.integers(20, 61)
        for z in (
            lattice(0, count) + rng.uniform(-0.5, 0.5, count),
            lattice(0, count, 2.5) + rng.uniform(-0.5, 0.5, count),
            np.cumsum(rng.uniform(2, 8, count)),
            np.cumsum(rng.choice([4.5, 5.0, 5.5], count)),
            lattice(0, count, 2.5)[rng.random(count) > 0.15],
        ):
            assert len(runs_of(z)) == 1

    def test_two_slices_of_overlap_are_not_enough(self):
        assert len(runs_of(lattice(0, 20), lattice(92.15, 20))) == 1

    def test_a_changing_signature_alone_is_no_second_scan(self):
        signatures = [("thin",)] * 14 + [("thick",)] * 14
        assert len(runs_of(lattice(0, 14), lattice(70, 14), signatures=signatures)) == 1
        for signature in (lambda i: i % 2, lambda i: i * 7919 % 5):
            assert len(runs_of(lattice(0, 28), signatures=[(signature(i),) for i in range(28)])) == 1


class TestTwoScans:
    @pytest.mark.parametrize("overlap", [3, 4, 7, 15])
    @pytest.mark.parametrize("share", [0.1, 0.3, 0.43, 0.6, 0.9])
    def test_the_second_begins_before_the_first_ends(self, overlap, share):
        first, second = lattice(0, 20), lattice(5 * (20 - overlap + share), 22)
        if share > 0.5:  # the first slice beyond the half lies beside the next one
            second = second - 5
        assert same(runs_of(first, second), first, second)

    @pytest.mark.parametrize("count", [3, 6, 12])
    def test_the_second_lies_within_the_first(self, count):
        first, second = lattice(0, 30), lattice(52.15, count)
        assert same(runs_of(first, second), first, second)

    @pytest.mark.parametrize("share", [0.03, 0.2, 0.43, 0.7])
    def test_both_cover_the_same_range(self, share):
        first, second = lattice(0, 30), lattice(5 * share, 30)
        assert same(runs_of(first, second), first, second)

    @pytest.mark.parametrize("step", [2.5, 3.0, 4.0, 7.0])
    def test_another_spacing(self, step):
        first, second = lattice(0, 30, 2.5), lattice(51.1, 15, step)
        assert same(runs_of(first, second), first, second)

    def test_a_missing_slice_in_each(self):
        first, second = np.delete(lattice(0, 20), 8), np.delete(lattice(62.15, 20), [3, 15])
        assert same(runs_of(first, second), first, second)

    def test_small_jitter(self):
        first, second = lattice(0, 20), lattice(62.15, 20)
        first, second = first + RNG.uniform(-0.05, 0.05, 20), second + RNG.uniform(-0.05, 0.05, 20)
        assert same(runs_of(first, second), first, second)

    def test_three_in_a_row(self):
        runs = lattice(0, 20), lattice(81.4, 20), lattice(163.1, 20)
        assert same(runs_of(*runs), *runs)

    def test_halfway_between_is_told_by_the_signature_alone(self):
        first, second = lattice(0, 20), lattice(52.5, 20)
        assert len(runs_of(first, second)) == 1
        signatures = [(512, 0.45)] * 20 + [(512, 0.49)] * 20
        assert same(runs_of(first, second, signatures=signatures), first, second)


class TestRepeatedPositions:
    def test_one_repeated_slice_is_set_apart(self):
        assert same(runs_of(lattice(0, 20), [50.04]), lattice(0, 20), [50.04])

    def test_of_equal_slices_the_first_id_stays(self):
        positions = np.stack([np.zeros(6), np.zeros(6), [0, 5, 10, 10, 15, 20]], axis=1)
        ordered = order_series(["f", "e", "d", "c", "b", "a"], positions, np.array([AXIAL] * 6))
        assert ordered.run.tolist() == [0, 0, 1, 0, 0, 0]

    def test_the_same_range_twice_and_thrice(self):
        assert same(runs_of(lattice(0, 20), lattice(0, 20)), lattice(0, 20), lattice(0, 20))
        assert len(runs_of(lattice(0, 20), lattice(0, 20), lattice(0, 20))) == 3

    def test_signatures_tell_which_slice_goes_with_which(self):
        # Two runs that meet: without signatures the upper one would keep the two shared places only.
        first, second = lattice(0, 11), lattice(45, 12)
        signatures = [(-1024,)] * 11 + [(0,)] * 12
        assert same(runs_of(first, second, signatures=signatures), first, second)

    def test_without_signatures_the_scan_stays_as_long_as_it_can(self):
        found = runs_of(lattice(0, 20), lattice(75, 20))
        assert sorted(len(run) for run in found) == [5, 35]
