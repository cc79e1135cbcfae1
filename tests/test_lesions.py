"""Lesions by hand: classes of bits, parts and boxes, volumes at any spacing, drawings, run lengths, a threshold."""

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.core.drawings import drawn_masks, highest_scores
from pipeline.core.lesions import CLASSES, cached_pixel_mm, class_masks, scan_lesions, slice_parts
from pipeline.core.plain_threshold import inside_skull, threshold_mask
from pipeline.core.run_lengths import mask_text, text_mask

EPIDURAL, INTRAPARENCHYMAL, INTRAVENTRICULAR, SUBARACHNOID, SUBDURAL = (1 << bit for bit in range(5))


def test_each_label_belongs_to_one_class_and_a_pixel_may_belong_to_several():
    mask = np.array(
        [[0, EPIDURAL, SUBDURAL, SUBARACHNOID], [INTRAPARENCHYMAL, INTRAVENTRICULAR, EPIDURAL | SUBARACHNOID, 32]],
        dtype=np.uint8,
    )
    masks = dict(zip(CLASSES, class_masks(mask).astype(int).tolist(), strict=True))
    assert masks == {
        "IPH": [[0, 0, 0, 0], [1, 1, 0, 0]],
        "EDH/SDH": [[0, 1, 1, 0], [0, 0, 1, 0]],
        "SAH": [[0, 0, 0, 1], [0, 0, 1, 0]],
    }


def test_parts_have_boxes_from_outer_edge_to_outer_edge():
    mask = np.zeros((9, 14), dtype=np.uint8)
    mask[2:5, 3:9] = INTRAPARENCHYMAL
    mask[5, 9] = INTRAVENTRICULAR  # touches at a corner, and is drawn as the same class
    mask[8, 13] = SUBARACHNOID  # a single pixel in the image's corner
    mask[0, 0:2] = EPIDURAL
    mask[0, 5] = SUBDURAL
    parts = slice_parts(mask)
    assert parts.boxes.tolist() == [[3, 2, 10, 6], [0, 0, 2, 1], [5, 0, 6, 1], [13, 8, 14, 9]]
    assert parts.classes.tolist() == [1, 2, 2, 3]
    assert parts.masks.sum(axis=(1, 2)).tolist() == [19, 2, 1, 1]
    assert parts.masks[0, 5, 9]


def test_boxes_hold_their_parts_exactly():
    mask = (np.random.default_rng(0).random((23, 31)) < 0.3).astype(np.uint8) * SUBDURAL
    parts = slice_parts(mask)
    np.testing.assert_array_equal(parts.masks.sum(axis=0), mask > 0)
    for (x0, y0, x1, y1), part in zip(parts.boxes.astype(int), parts.masks, strict=True):
        assert part[y0:y1, x0:x1].sum() == part.sum()
        assert part[y0].any()
        assert part[y1 - 1].any()
        assert part[:, x0].any()
        assert part[:, x1 - 1].any()


def test_small_parts_are_dropped_but_for_the_largest_of_a_slice():
    mask = np.zeros((8, 11), dtype=np.uint8)
    mask[1, 1:3], mask[5, 5:8], mask[7, 0] = SUBARACHNOID, SUBDURAL, SUBDURAL
    assert slice_parts(mask, 2).masks.sum(axis=(1, 2)).tolist() == [3, 2]
    assert slice_parts(mask, 4).masks.sum(axis=(1, 2)).tolist() == [3]
    empty = slice_parts(np.zeros((8, 11), dtype=np.uint8), 4)
    assert (empty.boxes.shape, empty.classes.shape, empty.masks.shape) == ((0, 4), (0,), (0, 8, 11))


@pytest.mark.parametrize(
    ("row_mm", "column_mm", "z_mm"),
    [
        (0.5, 0.4, 5.0 * np.arange(7)),
        (1.0, 2.0, 2.5 * np.arange(7) - 40),
        (0.25, 0.5, np.r_[0, 5, 10, 15, 20, 21, 22]),
    ],
)
def test_a_cube_of_10_mm_is_1_ml_at_any_spacing_and_its_abc2_comes_from_its_diameters(row_mm, column_mm, z_mm):
    masks = np.zeros((3, 7, 60, 70), dtype=bool)
    slices, rows, columns = (round(10 / side_mm) for side_mm in (z_mm[2] - z_mm[1], row_mm, column_mm))
    masks[1, 1 : 1 + slices, 3 : 3 + rows, 4 : 4 + columns] = True
    (size,) = scan_lesions(masks, row_mm, column_mm, z_mm)
    assert (size.type, size.lesion) == ("EDH/SDH", 1)
    assert size.volume_ml == pytest.approx(1.0)
    # A is a square's diagonal, B the other one, C the slices' 10 mm: 10 * sqrt(2) squared * 10 / 2.
    assert size.abc2_ml == pytest.approx(1.0, rel=1e-6)


def test_lesions_are_numbered_by_type_from_the_largest_and_touch_across_slices():
    masks = np.zeros((3, 6, 12, 20), dtype=bool)
    masks[0, 0, 1:3, 1:3] = True  # 4 px, and touching it at a corner, a slice above, 9 px
    masks[0, 1, 3:6, 3:6] = True
    masks[0, 3:5, 8:12, 10:20] = True  # 80 px
    masks[2, 2, 0, 0] = True
    sizes = scan_lesions(masks, 1.0, 0.5, 4.0 * np.arange(6))
    assert [(size.type, size.lesion) for size in sizes] == [("IPH", 1), ("IPH", 2), ("SAH", 1)]
    voxel_ml = 1.0 * 0.5 * 4.0 / 1000
    assert [size.volume_ml for size in sizes] == pytest.approx([80 * voxel_ml, 13 * voxel_ml, voxel_ml])
    assert sum(size.volume_ml for size in sizes) == pytest.approx(masks.sum() * voxel_ml)


def test_a_single_slice_has_no_volume():
    masks = np.zeros((3, 1, 8, 9), dtype=bool)
    masks[0, 0, 2:4, 2:4] = True
    (size,) = scan_lesions(masks, 0.5, 0.5, np.array([12.0]))
    assert np.isnan(size.volume_ml)
    assert np.isnan(size.abc2_ml)


def test_a_cached_pixel_is_the_views_or_the_slices_share():
    assert cached_pixel_mm(96, 0.0, 512, 480, 0.45, 0.5) == pytest.approx((2.4, 2.5))
    assert cached_pixel_mm(96, 1.2, 512, 480, 0.45, 0.5) == (1.2, 1.2)


def test_run_lengths_by_hand_and_back():
    mask = np.array([[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    assert mask_text(mask) == "3 2 7"
    assert mask_text(~mask) == "0 3 2 7"
    assert mask_text(np.zeros((2, 3), dtype=bool)) == "6"
    rng = np.random.default_rng(1)
    for share in (0, 0.1, 0.5, 1):
        drawn = rng.random((13, 7)) < share
        np.testing.assert_array_equal(text_mask(mask_text(drawn), (13, 7)), drawn)
    with pytest.raises(ValueError, match="run lengths of 12 pixels for a mask of 4 x 4"):
        text_mask("3 2 7", (4, 4))


def detections() -> pd.DataFrame:
    square, line = np.zeros((2, 6, 6), dtype=bool)
    square[1:4, 1:4], line[3, :] = True, True
    rows = [
        ("a1", "a", "IPH", 0.9, mask_text(square)),
        ("a1", "a", "IPH", 0.6, mask_text(line)),
        ("a2", "a", "SAH", 0.3, mask_text(line)),
        ("b1", "b", "SAH", 0.4, mask_text(square)),
    ]
    return pd.DataFrame(rows, columns=["slice_id", "scan_id", "type", "score", "mask"])


def test_masks_of_a_class_lie_over_one_another_and_unsure_ones_are_left_out():
    masks = drawn_masks(detections(), ["a2", "a1"], 6, 0.5)
    assert masks.shape == (3, 2, 6, 6)
    assert masks.sum(axis=(2, 3)).tolist() == [[0, 9 + 3], [0, 0], [0, 0]]
    assert drawn_masks(detections(), ["a2", "a1"], 6, 0.3).sum(axis=(2, 3)).tolist() == [[0, 12], [0, 0], [6, 0]]


def test_a_scan_scores_as_its_most_certain_detection_and_0_without_one():
    assert highest_scores(detections(), pd.Series(["b", "c", "a"])).tolist() == [0.4, 0.0, 0.9]
    assert highest_scores(detections(), pd.Series(["a2"]), of="slice_id").tolist() == [0.3]
    assert highest_scores(detections().iloc[:0], pd.Series(["b"])).tolist() == [0.0]


def head(gap_px: int = 0) -> np.ndarray:
    """Return a head of 90 x 110 pixels: a ring of bone round brain, scalp, and a headholder of blood's density."""
    hu = np.full((150, 140), -1000.0, dtype=np.float32)
    cv2.ellipse(hu, (70, 70), (50, 60), 0, 0, 360, 60.0, -1)  # scalp
    cv2.ellipse(hu, (70, 70), (45, 55), 0, 0, 360, 900.0, -1)
    cv2.ellipse(hu, (70, 70), (40, 50), 0, 0, 360, 32.0, -1)
    hu[10:22, 70 - gap_px // 2 : 70 - gap_px // 2 + gap_px] = 60.0
    hu[140:146, 20:120] = 60.0
    return hu


def test_a_threshold_draws_blood_inside_the_skull_only():
    hu = head()
    hu[60:70, 65:85] = 65.0
    hu[80:84, 60:64] = 150.0  # calcification
    expected = np.zeros(hu.shape, dtype=bool)
    expected[60:70, 65:85] = True
    np.testing.assert_array_equal(threshold_mask(hu), expected)
    hu[60:70, 65:85] = np.array([44.0, 45.0, 85.0, 86.0]).repeat(5)
    assert threshold_mask(hu).sum() == 10 * 10


def test_a_suture_is_closed_and_a_wide_opening_is_not():
    assert inside_skull(head(gap_px=3))[40, 70]
    assert not inside_skull(head(gap_px=20)).any()
    assert not inside_skull(np.full((64, 48), 40.0)).any()
