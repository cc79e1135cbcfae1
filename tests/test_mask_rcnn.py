"""The network that draws: parameters by hand, how slabs shrink, what sees which slices, losses that change nothing."""

import numpy as np
import pytest
import torch

from pipeline.config import UserError, variant
from pipeline.nets.build import build_mask_rcnn, parameter_count
from pipeline.nets.hybrid_pyramid import HybridPyramid, slab_depths
from pipeline.runs import recipe, variant_names

TINY = variant(
    recipe("chang2018-small").settings,
    **{"view.size": 48, "boxes.filters": 8, "boxes.channels": 12, "boxes.box_head": 10, "boxes.mask_head": 6},
)


def block(channels: int) -> int:
    """Return a bottleneck's parameters: to a quarter, 27 places there, and back; two a channel of normalisation."""
    narrow = channels // 4
    return channels * narrow + 27 * narrow**2 + narrow * channels + 2 * (narrow + narrow + channels)


def heads(channels: int, box_head: int, mask_head: int) -> int:
    """Return the parameters of torchvision's heads for 3 anchors a place, and 3 classes and the background."""
    proposals = 9 * channels**2 + channels + (channels * 3 + 3) + (channels * 12 + 12)
    boxes = 49 * channels * box_head + box_head + box_head**2 + box_head + (box_head * 4 + 4) + (box_head * 16 + 16)
    masks = 9 * channels * mask_head + mask_head + 3 * (9 * mask_head**2 + mask_head)
    return proposals + boxes + masks + 4 * mask_head**2 + mask_head + (mask_head * 4 + 4)


# A stem of 27 places for one channel; a level: 1x2x2 and 2x1x1 convolutions with normalisation, two bottlenecks; then
# projections over 4, 3, 2 and 1 slices, and 3x3 convolutions, both with biases.
FULL_PYRAMID = (
    27 * 64 + 2 * 64
    + 4 * 64 * 64 + 2 * 64 + 2 * 64 * 64 + 2 * 64 + 2 * block(64)
    + 4 * 64 * 128 + 2 * 128 + 2 * 128 * 128 + 2 * 128 + 2 * block(128)
    + 4 * 128 * 256 + 2 * 256 + 2 * 256 * 256 + 2 * 256 + 2 * block(256)
    + 4 * 256 * 512 + 2 * 512 + 2 * 512 * 512 + 2 * 512 + 2 * block(512)
    + (4 * 64 + 3 * 128 + 2 * 256 + 1 * 512) * 128 + 4 * 128
    + 4 * (9 * 128 * 128 + 128)
)  # fmt: skip
# The first level's 2x1x1 convolution comes without a subsampling one: the stem's stride is already its map's.
SMALL_PYRAMID = (
    27 * 16 + 2 * 16
    + 2 * 16 * 16 + 2 * 16 + block(16)
    + 4 * 16 * 32 + 2 * 32 + 2 * 32 * 32 + 2 * 32 + block(32)
    + 4 * 32 * 64 + 2 * 64 + 2 * 64 * 64 + 2 * 64 + block(64)
    + 4 * 64 * 128 + 2 * 128 + 2 * 128 * 128 + 2 * 128 + block(128)
    + (4 * 16 + 3 * 32 + 2 * 64 + 1 * 128) * 32 + 4 * 32
    + 4 * (9 * 32 * 32 + 32)
)  # fmt: skip
PARAMETERS = {
    "chang2018": (3_739_328, 13_711_335),
    "chang2018-small": (SMALL_PYRAMID, SMALL_PYRAMID + heads(32, 128, 32)),
}


def test_no_variant_escapes_the_list_of_parameter_counts():
    assert sorted(PARAMETERS) == ["chang2018", *(f"chang2018-{name}" for name in variant_names("chang2018"))]
    assert PARAMETERS["chang2018"] == (FULL_PYRAMID, FULL_PYRAMID + heads(128, 1024, 256))


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_counts(name):
    network = build_mask_rcnn(recipe(name).settings)
    assert (parameter_count(network.detector.backbone), parameter_count(network)) == PARAMETERS[name]


def test_what_the_paper_gives_arrives_in_torchvisions_parts():
    detector = build_mask_rcnn(recipe("chang2018").settings).detector
    assert [tuple(size) for size in detector.rpn.anchor_generator.sizes] == [(16,), (32,), (64,), (128,)]
    assert set(detector.rpn.anchor_generator.aspect_ratios) == {(1.0, 0.5, 2.0)}
    assert detector.rpn._post_nms_top_n["testing"] == 256
    sampler = detector.roi_heads.fg_bg_sampler
    assert (sampler.batch_size_per_image, sampler.positive_fraction) == (128, 0.25)  # 32 to 96 is 1 to 3
    assert detector.backbone.out_channels == 128
    assert detector.roi_heads.box_predictor.cls_score.out_features == 4
    with torch.no_grad():
        images, _ = detector.eval().transform([torch.full((5, 512, 512), -3.0)])
    assert images.tensors.shape == (1, 5, 512, 512)
    assert (images.tensors == -3).all()


def test_slices_are_taken_away_evenly_until_one_is_left():
    assert slab_depths(5, 4) == [4, 3, 2, 1]
    assert slab_depths(1, 3) == [1, 1, 1]
    assert slab_depths(3, 4) == [3, 2, 2, 1]
    assert slab_depths(9, 4) == [7, 5, 3, 1]


@pytest.mark.parametrize(("stride_px", "finest"), [(2, (24, 40)), (4, (12, 20))])
def test_maps_halve_from_level_to_level(stride_px, finest):
    pyramid = HybridPyramid(slab_slices=5, filters=8, blocks=1, levels=3, stride_px=stride_px, channels=12)
    maps = pyramid(torch.randn(2, 5, 48, 80))
    assert list(maps) == ["0", "1", "2"]
    shapes = [(2, 12, finest[0] // factor, finest[1] // factor) for factor in (1, 2, 4)]
    assert [tuple(own.shape) for own in maps.values()] == shapes


def test_every_map_sees_every_slice_of_the_slab():
    torch.manual_seed(0)
    pyramid = HybridPyramid(slab_slices=5, filters=8, blocks=1, levels=4, stride_px=2, channels=12).eval()
    slabs = torch.randn(1, 5, 32, 48)
    with torch.no_grad():
        before = pyramid(slabs)
        for place in range(5):
            changed = slabs.clone()
            changed[0, place] += 1.0
            after = pyramid(changed)
            assert all((after[name] - before[name]).abs().max() > 1e-3 for name in before), place


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view.size": 40}, "images of 40 pixels a side: give a multiple of 16, the coarsest map's stride"),
        ({"boxes.filters": 10}, "10 filters: a bottleneck keeps a quarter, give a multiple of 4"),
        ({"boxes.stride_px": 6}, "a finest stride of 6 pixels: give 2, 4, 8"),
        (
            {"view.kind": "windows"},
            "view.kind=windows: train.network=mask_rcnn sees Hounsfield units, use view.kind=hu",
        ),
    ],
)
def test_settings_that_make_no_network_say_what_would(changes, message):
    with pytest.raises(UserError, match=message):
        build_mask_rcnn(variant(TINY, **changes))


def test_hu_are_clipped_and_scaled_where_the_network_runs():
    network = build_mask_rcnn(variant(TINY, **{"train.hu_range": (-240.0, 240.0)}))
    hu = torch.tensor([-1024, -240, 0, 80, 240, 3000], dtype=torch.int16).view(1, 1, 2, 3)
    np.testing.assert_allclose(network.scaled(hu).flatten().numpy(), [-3, -3, 0, 1, 3, 3], atol=1e-6)


def targets(count: int) -> list[dict[str, torch.Tensor]]:
    mask = torch.zeros(count, 48, 48, dtype=torch.uint8)
    mask[:, 10:30, 8:20] = 1
    boxes = torch.tensor([[8.0, 10.0, 20.0, 30.0]]).repeat(count, 1)
    return [{"boxes": boxes, "labels": torch.full((count,), 2), "masks": mask}]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_losses_are_finite_with_and_without_hemorrhage_and_leave_no_trace_in_evaluation(count):
    torch.manual_seed(0)
    network = build_mask_rcnn(TINY)
    slabs = torch.randint(-100, 100, (1, 5, 48, 48), dtype=torch.int16)
    network.losses(slabs, targets(count))  # the running means are no longer what they began with
    network.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        losses = network.losses(slabs, targets(count))
    names = ["loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    assert sorted(losses) == names
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert (losses["loss_mask"] > 0) == (count > 0)
    assert not any(module.training for module in network.modules())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, msg=name)


def test_detections_of_an_untrained_network_have_boxes_inside_the_image_and_masks_of_its_size():
    torch.manual_seed(0)
    network = build_mask_rcnn(variant(TINY, **{"boxes.least_score": 0.0})).eval()
    slabs = torch.randint(-100, 100, (2, 5, 48, 48), dtype=torch.int16)
    with torch.inference_mode():
        found = network(slabs)
    assert len(found) == 2
    for result in found:
        count = len(result["scores"])
        assert 0 < count <= 100
        assert result["masks"].shape == (count, 1, 48, 48)
        assert set(result["labels"].tolist()) <= {1, 2, 3}
        assert result["boxes"].min() >= 0
        assert result["boxes"].max() <= 48
