"""The dense network: counts written out, masks at their place, context through the LSTM, runs at a scan's ends."""

import numpy as np
import pytest
import torch

from pipeline.config import UserError, variant
from pipeline.core.slice_runs import centred_runs
from pipeline.nets.build import build_densenet, parameter_count
from pipeline.nets.densenet import DenseNet
from pipeline.runs import recipe

BRAIN = (0.0, 80.0)


def small(masks=True, hidden=0, layers=2, growth=3, stem=4, hu_range=BRAIN, input_range=(0.0, 1.0)) -> DenseNet:
    torch.manual_seed(3)
    return DenseNet(stem, layers, growth, masks, hidden, hu_range, input_range)


def test_parameters_of_table_1_by_hand():
    # Channels into the 12 layers: 16 + 12 i, 160 + 12 i, 304 + 12 i; each has 2 of BN and 9 x 12 weights a channel.
    layers = 110 * ((12 * 16 + 12 * 66) + (12 * 160 + 12 * 66) + (12 * 304 + 12 * 66))
    transitions = (2 * 160 + 160 * 160) + (2 * 304 + 304 * 304)
    dense = 1 * 16 * 9 + layers + transitions + 2 * 448
    assert dense == 1_014_944
    # Huang et al. 2017, Table 2: 1.0 million with the classifier.
    densenet = dense + 448 + 1
    # A mask: 1x1 convolution to one map, deconvolution of 4, 8, 16 pixels a side, each with a bias.
    masks = (160 + 1 + 4 * 4 + 1) + (304 + 1 + 8 * 8 + 1) + (448 + 1 + 16 * 16 + 1)
    # 2 directions x 4 gates x 128 cells x (448 inputs + 128 cells + 2 biases), and a classifier of both directions.
    radnet = dense + masks + 2 * 4 * 128 * (448 + 128 + 2) + 2 * 128 + 1
    found = [
        parameter_count(build_densenet(recipe(f"grewal2018{name}").settings))
        for name in ("-densenet", "-densenet-a", "")
    ]
    assert found == [densenet, densenet + masks, radnet] == [1_015_393, 1_016_647, 1_608_327]


def test_blocks_run_at_a_half_a_quarter_and_an_eighth():
    network = small(layers=2, growth=3, stem=4).eval()
    seen = []
    for block in network.blocks:
        block.register_forward_hook(lambda _module, given, found: seen.append((given[0].shape, found.shape)))
    with torch.inference_mode():
        network(torch.zeros(2, 1, 40, 24))
    assert seen == [
        ((2, 4, 20, 12), (2, 10, 20, 12)),
        ((2, 10, 10, 6), (2, 16, 10, 6)),
        ((2, 16, 5, 3), (2, 22, 5, 3)),
    ]


def test_a_layer_passes_on_what_came_in_and_a_transition_is_convolution_then_pooling():
    network = small().eval()
    x = torch.randn(2, 4, 6, 10)
    with torch.inference_mode():
        torch.testing.assert_close(network.blocks[0][0](x)[:, :4], x)
        transition = network.transitions[0]
        x = torch.randn(2, 10, 6, 10)
        huang = torch.nn.functional.avg_pool2d(transition.conv(transition.norm(x).relu()), 2)
        torch.testing.assert_close(transition(x), huang)


def test_hu_are_clipped_and_scaled_inside():
    network = small(hu_range=(-100.0, 300.0), input_range=(-3.0, 3.0))
    # The middle of the range is 100 HU.
    found = network._scaled(torch.tensor([-2000, -100, 100, 200, 300, 3000], dtype=torch.int16))
    torch.testing.assert_close(found, torch.tensor([-3.0, -3.0, 0.0, 1.5, 3.0, 3.0]))
    network = small().eval()
    hu = torch.randint(-60, 160, (1, 2, 24, 40), dtype=torch.int16)
    with torch.inference_mode():
        torch.testing.assert_close(network(hu)[0], network(hu.float().clamp(0, 80))[0])


@pytest.mark.parametrize(("side", "margins"), [(250, (3, 3)), (100, (2, 2)), (81, (3, 4)), (80, (0, 0))])
def test_images_are_padded_to_a_multiple_of_8_by_air(side, margins):
    network = small().eval()
    seen = []
    network.stem.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.inference_mode():
        _, masks = network(torch.full((1, 1, side, 16), 80))
    before, behind = margins
    image = seen[0][0, 0]
    assert image.shape == (side + before + behind, 16)
    assert (image[before : before + side] == 1).all()
    assert not image[:before].any()
    assert not image[before + side :].any()
    assert [mask.shape for mask in masks] == [(1, 1, side, 16)] * 3


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_mask_lies_over_what_it_is_of(level):
    """A new mask head interpolates: the centre of mass of what it draws is that of the map, in pixels of the image."""
    network = small()
    factor = 2 ** (level + 1)
    head = network.masks[level]
    with torch.no_grad():
        head.conv.weight.fill_(1 / head.conv.in_channels)
        maps = torch.zeros(1, head.conv.in_channels, 7, 9)
        maps[:, :, 3, 5] = 1
        drawn = head(maps)[0]
        even = head(torch.ones_like(maps))[0]
    assert drawn.shape == (7 * factor, 9 * factor)
    # Pixel 3 of the map covers 3 f to 4 f - 1 of the image, whose middle is 3.5 f - 0.5.
    rows, columns = torch.meshgrid(torch.arange(7 * factor), torch.arange(9 * factor), indexing="ij")
    assert (drawn * rows).sum() / drawn.sum() == pytest.approx(3.5 * factor - 0.5, abs=1e-4)
    assert (drawn * columns).sum() / drawn.sum() == pytest.approx(5.5 * factor - 0.5, abs=1e-4)
    inside = even[factor:-factor, factor:-factor]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_weights_begin_as_he_draws_them():
    torch.manual_seed(0)
    network = DenseNet(64, 3, 48, False, 0, BRAIN, (0.0, 1.0))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 20_000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
    assert not network.head.bias.any()


def test_without_an_lstm_a_slice_stands_for_itself_and_with_one_it_does_not():
    hu = torch.randint(0, 80, (2, 5, 24, 16)).float()
    other = hu.clone()
    other[0, 4] = 80 - other[0, 4]
    for hidden in (0, 7):
        network = small(hidden=hidden).eval()
        with torch.inference_mode():
            moved = (network(other)[0] - network(hu)[0]).abs() > 1e-7
        assert moved[0, 4]
        # With one: the whole run, up to its first slice, and no other run.
        assert moved[0, :4].all() if hidden else not moved[0, :4].any()
        assert not moved[1].any()


def test_the_loss_of_one_slice_reaches_the_convolutions_through_its_neighbours():
    network = small(hidden=7)
    hu = torch.randint(0, 80, (1, 5, 24, 16)).float().requires_grad_()
    network.eval()(hu)[0][0, 0].backward()
    assert hu.grad[0].abs().amax(dim=(1, 2)).gt(0).all()
    assert network.stem.weight.grad.abs().sum() > 0
    assert network.lstm.weight_ih_l0_reverse.grad.abs().sum() > 0
    # The first slice is the first of the forward direction: its state knows no slice before it.
    assert not network.lstm.weight_hh_l0.grad.any()


def test_the_masks_alone_teach_the_blocks_and_leave_the_classifier():
    network = small(hidden=7)
    _, masks = network(torch.randint(0, 80, (2, 3, 24, 16)).float())
    sum(mask.square().mean() for mask in masks).backward()
    assert network.stem.weight.grad.abs().sum() > 0
    assert all(head.conv.weight.grad.abs().sum() > 0 for head in network.masks)
    assert network.head.weight.grad is None
    assert network.lstm.weight_ih_l0.grad is None


def test_pooled_and_classified_is_what_the_whole_gives():
    network = small(hidden=7).eval()
    hu = torch.randint(-50, 130, (2, 3, 20, 28), dtype=torch.int16)
    with torch.inference_mode():
        logits, _ = network(hu)
        pooled = torch.stack([network.pooled(run) for run in hu])
        torch.testing.assert_close(network.classify(pooled), logits)


def test_runs_by_hand():
    runs, places = centred_runs(5, 3)
    assert runs.tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    assert places.tolist() == [0, 1, 1, 1, 2]
    runs, places = centred_runs(5, 4)
    assert runs.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]]
    runs, places = centred_runs(2, 5)
    assert runs.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert places.tolist() == [1, 2]
    assert centred_runs(3, 1)[0].tolist() == [[0], [1], [2]]
    with pytest.raises(ValueError, match="a run of 0 slices: give at least 1"):
        centred_runs(3, 0)


@pytest.mark.parametrize(("slices", "run"), [(1, 1), (1, 4), (3, 8), (8, 8), (9, 8), (31, 5), (0, 3)])
def test_a_slice_is_at_its_place_in_its_run_and_neighbours_follow_one_another(slices, run):
    runs, places = centred_runs(slices, run)
    assert runs.shape == (slices, run)
    np.testing.assert_array_equal(runs[np.arange(slices), places], np.arange(slices))
    steps = np.diff(runs, axis=1)
    assert ((steps == 1) | ((steps == 0) & (slices < run))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"view.kind": "windows"}, "reads images in HU, and view.kind=windows: set view.kind=hu"),
        ({"view.masks": False}, r"dense.mask_weight=1 learns from masks, and view.masks=False: set view.masks=true"),
        ({"dense.hidden": 0}, r"dense.run_slices=5 without an LSTM: give dense.hidden cells"),
        ({"dense.growth": 0}, r"growth=0.*: block_layers, growth, stem_filters and run_slices are at least 1"),
        ({"train.hu_range": (80.0, 0.0)}, r"train.hu_range=80.0,0.0: give two numbers, the lower one first"),
        ({"train.input_range": (0.0,)}, r"train.input_range=0.0: give two numbers"),
    ],
)
def test_settings_that_contradict_each_other_say_what_would_fit(changes, message):
    with pytest.raises(UserError, match=message):
        build_densenet(variant(recipe("grewal2018").settings, **changes))
