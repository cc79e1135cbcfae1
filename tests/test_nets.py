"""Networks: pinned parameter counts, shapes by hand, packing that changes nothing, weights that fit or say why not."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import LABELS, UserError, last_stage, trains_whole, variant
from pipeline.nets.build import build_network, build_sequence, build_slice_classifier, parameter_count
from pipeline.nets.scan_bilstm import SIDE_BY_SIDE, ScanBiLSTM
from pipeline.nets.weights import load_encoder
from pipeline.runs import recipe, recipe_names, variant_names


def lstm(features: int, hidden: int, layers: int) -> int:
    """Return the parameters of bidirectional layers: 2 directions x 4 gates x hidden x (inputs + hidden + 2 biases)."""
    widths = [features] + [2 * hidden] * (layers - 1)
    return sum(2 * 4 * hidden * (width + hidden + 2) for width in widths)


def head(states: int) -> int:
    return 6 * states + 6


def dense(stem: int, growth: int) -> int:
    """Return the parameters of a DenseNet-40 up to pooling: BN has 2 a channel, no convolution has a bias.

    3x3 stem; 3 blocks of 12 layers, BN and a 3x3 convolution each; BN and a 1x1 convolution behind the first two
    blocks; BN at the end.
    """
    into = [stem + 12 * growth * block + growth * layer for block in range(3) for layer in range(12)]
    ends = [stem + 12 * growth * block for block in (1, 2, 3)]
    return (
        9 * stem + sum(2 * c + 9 * c * growth for c in into) + sum(2 * c for c in ends) + sum(c * c for c in ends[:2])
    )


def masks(stem: int, growth: int) -> int:
    """Return the parameters of three masks: 1x1 convolution to one map, deconvolution of 4, 8, 16 px a side."""
    return sum(stem + 12 * growth * block + 1 + (2 * 2**block) ** 2 + 1 for block in (1, 2, 3))


# A DenseNet-40 of growth 12 is pooled to 16 + 3 x 12 x 12 = 448 features, of growth 4 behind 8 filters to 152.
DENSENET = dense(16, 12) + 448 + 1
DENSENET_A = DENSENET + masks(16, 12)
RADNET = dense(16, 12) + masks(16, 12) + lstm(448, 128, 1) + 256 + 1
SMALL_DENSENET = dense(8, 4) + 152 + 1
SMALL_DENSENET_A = SMALL_DENSENET + masks(8, 4)
SMALL_RADNET = dense(8, 4) + masks(8, 4) + lstm(152, 32, 1) + 64 + 1

# ResNeXt-101 32x8d without its ImageNet layer, and 2048 x 6 + 6 of ours; the paper: about 88 million with it.
RESNEXT101 = 86_742_336 + 12_294
RESNET14T = 8_032_632 + 12_294
RESNET10T = 4_922_488 + 512 * 6 + 6
# Their features are 1792 (EfficientNet-B4) and 256 (timm's smallest EfficientNet).
EFFICIENTNET_B4 = 17_548_616 + 1792 * 6 + 6
TEST_EFFICIENTNET = 99_196 + 256 * 6 + 6
TABLE_2 = {
    "cnn": 0,
    "preds": lstm(6, 256, 3) + head(512),
    "std192": lstm(192, 256, 3) + head(512),
    "largest192": lstm(192, 256, 3) + head(512),
    "smallest192": lstm(192, 256, 3) + head(512),
    "smallest120": 3_928_064 + head(512),
    "pca192-2x128": lstm(192, 128, 2) + head(256),
    "pca192-3x128": lstm(192, 128, 3) + head(256),
    "pca192": lstm(192, 256, 3) + head(512),
    "pca120": 3_928_064 + head(512),
}


def densenet_bc(growth: int, blocks: tuple[int, ...], bottleneck: int = 4) -> int:
    """Parameters of a DenseNet-BC without head (Huang et al. 2017, table 1): convolutions, and two a channel a BN."""
    stem = 2 * growth
    total, channels = 3 * 7 * 7 * stem + 2 * stem, stem
    for number, layers in enumerate(blocks):
        for _ in range(layers):
            narrow = bottleneck * growth
            total += 2 * channels + channels * narrow + 2 * narrow + 9 * narrow * growth
            channels += growth
        if number < len(blocks) - 1:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels


PARAMETERS = {
    "grewal2018": (RADNET, 0),
    "grewal2018-densenet": (DENSENET, 0),
    "grewal2018-densenet-a": (DENSENET_A, 0),
    "grewal2018-small": (SMALL_RADNET, 0),
    "grewal2018-small-densenet": (SMALL_DENSENET, 0),
    "grewal2018-small-densenet-a": (SMALL_DENSENET_A, 0),
    "burduja2020": (RESNEXT101, 3_928_064 + head(512 + 6)),
    **{f"burduja2020-{name}": (RESNEXT101, sequence) for name, sequence in TABLE_2.items()},
    "burduja2020-effnetb4": (EFFICIENTNET_B4, 0),
    "quickstart": (RESNET14T, 3_928_064 + head(512 + 6)),
    **{f"quickstart-{name}": (RESNET14T, sequence) for name, sequence in TABLE_2.items()},
    "quickstart-effnetb4": (TEST_EFFICIENTNET, 0),
    # torchvision's counts with 1000 classes, 7,978,856 and 11,689,512, less their heads, and six labels' head.
    "murphy2021": (7_978_856 - 1000 * 1025 + head(1024), 0),
    "murphy2021-folds": (7_978_856 - 1000 * 1025 + head(1024), 0),
    "murphy2021-resnet18": (11_689_512 - 1000 * 513 + head(512), 0),
    # A growth of 8 in the place of 32: a quarter of the channels everywhere.
    "murphy2021-small": (densenet_bc(8, (6, 12, 24, 16)) + head(256), 0),
    "murphy2021-small-resnet18": (11_689_512 - 1000 * 513 + head(512), 0),
    # ResNet-10-T has 512 features; an LSTM of 8 cells a direction.
    "tiny": (RESNET10T, lstm(12, 8, 1) + head(16 + 6)),
    "tiny-cnn": (RESNET10T, 0),
    "tiny-preds": (RESNET10T, lstm(6, 8, 1) + head(16)),
    "tiny-pca120": (RESNET10T, lstm(12, 8, 1) + head(16)),
}


def test_no_recipe_and_no_variant_escapes_the_list_of_parameter_counts():
    variants = [f"{name}-{variant}" for name in recipe_names() for variant in variant_names(name)]
    # Those of the others are in test_patel2019.py and test_mask_rcnn.py.
    elsewhere = ("patel2019", "chang2018")
    names = [name for name in [*recipe_names(), *variants] if not name.startswith(elsewhere)]
    assert sorted(PARAMETERS) == sorted(names)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_counts(name):
    settings = recipe(name).settings
    cnn = parameter_count(build_network(settings, pretrained=False))
    sequence = 0
    if last_stage(settings) == "sequence" and not trains_whole(settings):
        features = len(LABELS) if settings.reduce.method == "predictions_only" else settings.reduce.count
        sequence = parameter_count(build_sequence(settings, features))
    assert (cnn, sequence) == PARAMETERS[name]


def test_burduja2020_at_full_size_embeds_eight_slices_on_the_cpu():
    settings = recipe("burduja2020").settings
    torch.manual_seed(0)
    network = build_slice_classifier(settings, pretrained=False).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 3, 256, 256), dtype=np.uint8))
    with torch.inference_mode():
        embeddings, logits = network(images)
        alone, _ = network(images[3:4])
    assert embeddings.shape == (8, 2048)
    assert logits.shape == (8, 6)
    assert torch.isfinite(embeddings).all()
    assert embeddings.std() > 0
    torch.testing.assert_close(embeddings[3:4], alone, rtol=1e-4, atol=1e-5)


def test_an_encoder_of_windows_refuses_hounsfield_units():
    with pytest.raises(UserError, match="view.kind=hu: train.network=timm sees 8-bit windows, set view.kind=windows"):
        build_slice_classifier(variant(recipe("tiny").settings, **{"view.kind": "hu"}), pretrained=False)


def test_images_are_normalised_per_channel_where_the_network_runs():
    settings = variant(recipe("tiny").settings, **{"train.mean": (0.1, 0.2, 0.4), "train.std": (0.5, 0.25, 0.2)})
    network = build_slice_classifier(settings, pretrained=False).eval()
    seen = []
    network.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    with torch.inference_mode():
        network(image)
    # (0/255 - .1)/.5, (51/255 - .2)/.25, (255/255 - .4)/.2
    np.testing.assert_allclose(seen[0][0, :, 5, 7].numpy(), [-0.2, 0.0, 3.0], atol=1e-6)


@pytest.mark.parametrize(("layers", "probabilities"), [(1, False), (3, True)])
def test_many_scans_at_once_give_what_one_at_a_time_gives(layers, probabilities):
    torch.manual_seed(1)
    network = ScanBiLSTM(11, 9, layers, 0.3, probabilities).eval()
    lengths = (1, 40, 7, 40, 23, *range(60, 20, -2))  # more than run side by side
    assert len(lengths) > SIDE_BY_SIDE
    features = [torch.randn(length, 11) for length in lengths]
    chances = [torch.rand(length, 6) for length in lengths]
    with torch.inference_mode():
        together = network(features, chances)
        alone = torch.cat([network([f], [c]) for f, c in zip(features, chances, strict=True)])
    assert together.shape == (sum(lengths), 6)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_way_of_the_cpu_and_of_the_gpu_give_the_same_states_and_gradients(training):
    torch.manual_seed(6)
    network = ScanBiLSTM(11, 9, 3, 0.0, False).train(training)
    features = [torch.randn(length, 11) for length in (13, 1, 29, *range(2 * SIDE_BY_SIDE, 0, -1))]
    found = []
    for way in (network._padded, network._packed, network._grouped):
        network.zero_grad()
        states = way(features)
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).mean().backward()
        found.append([states.detach(), *(weights.grad.clone() for weights in network.lstm.parameters())])
    for padded, packed, grouped in zip(*found, strict=True):
        torch.testing.assert_close(padded, packed, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(padded, grouped, rtol=1e-5, atol=1e-5)


def test_a_few_scans_run_as_one_group_with_the_same_numbers():
    torch.manual_seed(8)
    network = ScanBiLSTM(4, 5, 2, 0.5, False)
    features = [torch.randn(length, 4) for length in range(1, SIDE_BY_SIDE + 1)]
    found = []
    for way in (network._padded, network._grouped):
        torch.manual_seed(9)
        found.append(way(features))
    assert torch.equal(*found)


def test_dropout_falls_between_layers_and_in_training_alone():
    torch.manual_seed(7)
    network = ScanBiLSTM(4, 5, 2, 0.5, False)
    features, chances = [torch.randn(6, 4)], [torch.zeros(6, 6)]
    assert not torch.equal(network(features, chances), network(features, chances))
    assert torch.equal(network.eval()(features, chances), network(features, chances))
    single = ScanBiLSTM(4, 5, 1, 0.5, False)
    assert torch.equal(single(features, chances), single(features, chances))


def test_context_reaches_a_slice_from_both_sides_and_only_inside_its_scan():
    torch.manual_seed(2)
    network = ScanBiLSTM(4, 5, 1, 0.0, False).eval()
    scans = [torch.randn(6, 4), torch.randn(5, 4)]
    chances = [torch.zeros(6, 6), torch.zeros(5, 6)]
    with torch.inference_mode():
        before = network(scans, chances)
        for changed in (0, 5):
            other = [scans[0].clone(), scans[1]]
            other[0][changed] += 1
            moved = (network(other, chances) - before).abs().amax(dim=1) > 0
            assert moved[:6].all()
            assert not moved[6:].any()


def test_the_cnns_probabilities_reach_the_classifier_only_where_asked_for():
    torch.manual_seed(3)
    features, zeros, ones = [torch.randn(3, 4)], [torch.zeros(3, 6)], [torch.ones(3, 6)]
    with_them, without = ScanBiLSTM(4, 5, 1, 0.0, True).eval(), ScanBiLSTM(4, 5, 1, 0.0, False).eval()
    with torch.inference_mode():
        expected = with_them.head.weight[:, 10:].sum(dim=1).expand(3, 6)
        torch.testing.assert_close(with_them(features, ones) - with_them(features, zeros), expected)
        torch.testing.assert_close(without(features, ones), without(features, zeros))


@pytest.fixture(scope="module")
def tiny_encoder():
    torch.manual_seed(4)
    return build_slice_classifier(recipe("tiny").settings, pretrained=False).encoder


@pytest.fixture
def fresh_encoder():
    torch.manual_seed(5)
    return build_slice_classifier(recipe("tiny").settings, pretrained=False).encoder


@pytest.mark.parametrize("form", ["safetensors with a foreign head", "lightning checkpoint", "bare checkpoint"])
def test_weights_are_found_in_every_usual_form(form, tmp_path, tiny_encoder, fresh_encoder):
    state = dict(tiny_encoder.state_dict())
    if form == "safetensors with a foreign head":
        path = tmp_path / "model.safetensors"
        save_file({**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    elif form == "lightning checkpoint":
        path = tmp_path / "last.ckpt"
        torch.save({"epoch": 1, "state_dict": {f"network.encoder.{k}": v for k, v in state.items()}}, path)
    else:
        path = tmp_path / "model.pth"
        torch.save({f"module.{k}": v for k, v in state.items()}, path)
    load_encoder(fresh_encoder, "resnet10t", str(path))
    for name, tensor in tiny_encoder.state_dict().items():
        assert torch.equal(fresh_encoder.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), r"they lack layer1.0.conv1.weight; are they of another encoder"),
        (lambda s: s.update({"layer9.weight": torch.zeros(1)}), r"they have unknown layer9.weight"),
        (lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(2)}), r"another shape for layer1.0.conv1.weight"),
    ],
)
def test_weights_that_do_not_fit_say_where(damage, message, tmp_path, tiny_encoder, fresh_encoder):
    state = dict(tiny_encoder.state_dict())
    damage(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_encoder(fresh_encoder, "resnet10t", str(tmp_path / "model.safetensors"))


def test_missing_and_broken_weight_files_are_mistakes_of_the_user(tmp_path, fresh_encoder):
    with pytest.raises(UserError, match="no such file; give a safetensors file or checkpoint, hub, or none"):
        load_encoder(fresh_encoder, "resnet10t", str(tmp_path / "absent.safetensors"))
    for name in ("broken.safetensors", "broken.pth"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(UserError, match="not a readable safetensors file or checkpoint"):
            load_encoder(fresh_encoder, "resnet10t", str(tmp_path / name))


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path, fresh_encoder):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match="not a readable"):
        load_encoder(fresh_encoder, "resnet10t", str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


def test_hub_without_a_network_says_which_file_to_fetch_and_how_to_pass_it(fresh_encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
    message = rf"fetch model.safetensors from https://huggingface.co/timm/{name} and pass it: SET=train.weights="
    with pytest.raises(UserError, match=message):
        load_encoder(fresh_encoder, name, "hub")
    with pytest.raises(UserError, match="timm has no pre-trained weights for resnet_tall; pass a path, or none"):
        load_encoder(fresh_encoder, "resnet_tall", "hub")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("resnet14tt", "timm has no such model; similar: resnet14t"),
        ("resnet10t.tag", "timm has no weights of that name; it has resnet10t.c3_in1k"),
    ],
)
def test_an_unknown_encoder_brings_similar_names(encoder, message):
    with pytest.raises(UserError, match=message):
        build_slice_classifier(variant(recipe("tiny").settings, **{"train.encoder": encoder}), pretrained=False)
