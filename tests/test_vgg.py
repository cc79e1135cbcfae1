"""The VGG-like slice network: sides by hand, parameters to the unit, scaling of HU, dropout, what backward keeps."""

import pytest
import torch

from pipeline.config import BASE, UserError, variant
from pipeline.nets.build import build_vgg, parameter_count
from pipeline.nets.vgg import SliceVGG, activation_bytes, least_side, map_side

SMALL = {"side": 36, "filters": 3, "units": 2, "features": 10, "drop": 0.5}
RANGES = {"hu_range": (0.0, 100.0), "input_range": (-1.0, 1.0)}


def small(**changes) -> SliceVGG:
    torch.manual_seed(0)
    return SliceVGG(**{**SMALL, **RANGES, **changes})


def test_sides_by_hand():
    # A unit takes 2 + 2 px and halves: (256 - 4) / 2 = 126, 61, 28 (of 28.5), 12, 4; the last: (4 - 2) / 2 = 1.
    assert map_side(256, 5) == 1
    # Backwards from one pixel: 1 * 2 + 2 = 4, then 2 s + 4: 12, 28, 60, 124, 252.
    assert [least_side(units) for units in range(6)] == [4, 12, 28, 60, 124, 252]
    assert map_side(252, 5) == 1
    # 64: (64 - 4) / 2 = 30, 13, 4; (4 - 2) / 2 = 1. 96: 46, 21, 8; 3.
    assert (map_side(64, 3), map_side(96, 3)) == (1, 3)


@pytest.mark.parametrize("units", [1, 3, 5])
def test_the_least_side_is_what_torch_can_do_and_no_less(units):
    side = least_side(units)
    network = SliceVGG(side, 1, units, 2, 0.0, **RANGES)
    assert network(torch.zeros(1, 1, side, side))[0].shape == (1, 2)
    message = rf"images of {side - 1} px a side are too small for {units} units: give at least {side} px"
    with pytest.raises(ValueError, match=message):
        SliceVGG(side - 1, 1, units, 2, 0.0, **RANGES)


def test_parameters_of_the_published_network():
    convolutions = (
        (9 * 1 * 16 + 16) + (9 * 16 * 16 + 16)  # 160 + 2,320
        + (9 * 16 * 32 + 32) + (9 * 32 * 32 + 32)  # 4,640 + 9,248
        + (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64)  # 18,496 + 36,928
        + (9 * 64 * 128 + 128) + (9 * 128 * 128 + 128)  # 73,856 + 147,584
        + (9 * 128 * 256 + 256) + (9 * 256 * 256 + 256)  # 295,168 + 590,080
        + (9 * 256 * 512 + 512)  # 1,180,160
    )  # fmt: skip
    dense = 2 * (512 * 512 + 512)  # the last map has 1 x 1 pixel of 512 filters
    assert (convolutions, dense) == (2_358_640, 525_312)
    network = SliceVGG(256, 16, 5, 512, 0.5, **RANGES)
    assert parameter_count(network) == 2_358_640 + 525_312 + (512 + 1) == 2_884_465


def test_a_larger_last_map_is_seen_whole():
    # Units of 3 and 6 filters, then 12; 60 px: 28, 12, 5 -> 25 pixels of 12 filters.
    network = small(side=60)
    convolutions = (27 + 3) + (81 + 3) + (162 + 6) + (324 + 6) + (648 + 12)
    assert parameter_count(network) == convolutions + (300 * 10 + 10) + (10 * 10 + 10) + 11
    assert network(torch.zeros(2, 1, 60, 60))[1].shape == (2, 1)


def test_hounsfield_units_are_clipped_and_scaled_where_the_network_runs():
    network = small()
    hu = torch.tensor([-1024, 0, 25, 50, 100, 3071], dtype=torch.int16).view(6, 1, 1, 1).expand(6, 1, 36, 36)
    seen = []
    network.convolutions.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network.eval()(hu)
    assert seen[0][:, 0, 3, 30].tolist() == [-1, -1, -0.5, 0, 1, 1]


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"images \(2, 1, 36, 40\): this network takes \(slices, 1, 36, 36\)"):
        small()(torch.zeros(2, 1, 36, 40))


def test_dropout_acts_before_the_first_dense_layer_and_before_the_logit_in_training_alone():
    network = small().eval()
    images = torch.randint(0, 100, (4, 1, 36, 36))
    assert torch.equal(network(images)[1], network(images)[1])
    assert network.draw_mask(4) is None
    network.train()
    mask = network.draw_mask(1000)
    assert mask.shape == (1000, 48)
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert abs(mask.mean().item() - 1) < 0.05
    # Nothing of the maps comes through a mask of zeros: what is left is what the biases say, for all slices alike.
    without = network.vectors(images, torch.zeros(4, 48))
    assert torch.equal(without, without[:1].expand(4, -1))
    # The embedding of the same mask is the same, its logit is not: there is dropout between them.
    torch.manual_seed(1)
    embeddings, logits = network(images)
    torch.manual_seed(1)
    assert torch.equal(network.vectors(images, network.draw_mask(4)), embeddings)
    assert not torch.equal(network.head(embeddings), logits)


def test_slices_do_not_depend_on_those_beside_them():
    network = small().double().eval()
    images = torch.randint(0, 100, (5, 1, 36, 36))
    together, alone = network(images)[0], network(images[3:4])[0]
    torch.testing.assert_close(together[3:4], alone, rtol=1e-12, atol=1e-12)
    assert together.std() > 0


def kept_bytes(network: SliceVGG, images: torch.Tensor) -> int:
    """Return the bytes of all tensors that torch keeps for backward, each once, but for the network's own weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    mask = network.draw_mask(len(images))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vectors = network.vectors(images, mask)
    assert vectors.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(("side", "units", "slices"), [(36, 2, 3), (61, 3, 2), (47, 2, 1)])
def test_activation_memory_is_what_torch_keeps(side, units, slices):
    network = small(side=side, units=units)
    images = torch.randint(0, 100, (slices, 1, side, side), dtype=torch.int16)
    assert activation_bytes(slices, side, 3, units, 10) == kept_bytes(network, images)


def test_a_whole_scan_of_the_papers_size_fits_a_gpu_of_80_gb():
    # 320 slices of 512 x 512 are 160 of 256 x 256 behind the filter. A slice's largest layers: 16 filters on 254 x 254
    # and 252 x 252 pixels of 4 bytes are 8.2 MB.
    a_slice = activation_bytes(1, 256, 16, 5, 512)
    assert 8_193_280 == 4 * 16 * (254**2 + 252**2) < a_slice < 25e6
    at_once, in_chunks = activation_bytes(160, 256, 16, 5, 512), activation_bytes(16, 256, 16, 5, 512)
    assert at_once == 160 * a_slice
    assert (round(a_slice / 1e6, 1), round(in_chunks / 1e6), round(at_once / 1e9, 2)) == (A_SLICE_MB, CHUNK_MB, SCAN_GB)


A_SLICE_MB, CHUNK_MB, SCAN_GB = 20.2, 324, 3.24


def test_the_settings_choose_the_network_and_what_does_not_fit_is_said():
    settings = variant(BASE, **{"view.size": 127, "volume.maximum_filter": "1,2,2", "volume.units": 3})
    network = build_vgg(settings)
    assert (network.side, network.width, network.units) == (64, 512, 3)
    with pytest.raises(UserError, match="view.size=127, volume.units=5: images of 64 px a side are too small for 5"):
        build_vgg(variant(settings, **{"volume.units": 5}))
    with pytest.raises(UserError, match=r"volume.maximum_filter=1.0,2.0,1.0: give three sizes, z,y,x, the last two"):
        build_vgg(variant(settings, **{"volume.maximum_filter": "1,2,1"}))
