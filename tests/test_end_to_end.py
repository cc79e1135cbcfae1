"""Training end to end in chunks of slices: the same logits and gradients as at once, and the memory of one chunk."""

import weakref

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.config import BASE, variant
from pipeline.nets.build import build_end_to_end, parameter_count
from pipeline.nets.end_to_end import EndToEnd
from pipeline.nets.summed_bilstm import SummedBiLSTM
from pipeline.nets.vgg import SliceVGG, activation_bytes

LENGTHS = (11, 4)
SIDE = 28


def network(chunk: int, drop: float = 0.5) -> EndToEnd:
    torch.manual_seed(2)
    cnn = SliceVGG(SIDE, 3, 2, 8, drop, (0.0, 100.0), (-1.0, 1.0))
    return EndToEnd(cnn, SummedBiLSTM(8, 6, 2), chunk).double().train()


def scans() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(-50, 150, (n, 1, SIDE, SIDE), generator=generator, dtype=torch.int16) for n in LENGTHS]


def logits_and_gradients(whole: EndToEnd) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)  # dropout's
    logits = whole(scans())
    binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0], dtype=torch.float64)).backward()
    gradients = {name: weights.grad for name, weights in whole.named_parameters() if weights.grad is not None}
    return {"logits": logits.detach(), **gradients}


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("chunk", [1, 3, 4, 10])
def test_chunks_of_any_size_give_the_gradients_of_the_whole_scan(chunk, drop):
    at_once, in_chunks = logits_and_gradients(network(100, drop)), logits_and_gradients(network(chunk, drop))
    assert at_once.keys() == in_chunks.keys()
    assert {name.split(".")[0] for name in at_once} == {"logits", "cnn", "sequence"}
    for name, expected in at_once.items():
        torch.testing.assert_close(in_chunks[name], expected, rtol=1e-9, atol=1e-13, msg=name)
    assert all(gradient.abs().max() > 0 for name, gradient in at_once.items() if name.startswith("cnn.conv"))


def test_dropout_is_drawn_anew_for_each_pass_over_a_scan():
    whole = network(3)
    torch.manual_seed(8)
    assert not torch.equal(whole(scans()), whole(scans()))
    assert torch.equal(whole.eval()(scans()), whole(scans()))


class PeakBytes(TorchDispatchMode):
    """Follows the storages that torch's operations make, and how many bytes of them were alive together at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.alive:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.alive.values()))
        return made


def peak_bytes(chunk: int, slices: int) -> int:
    whole = network(chunk)
    images = torch.zeros(slices, 1, SIDE, SIDE, dtype=torch.int16)
    with PeakBytes() as measured:
        whole([images]).sum().backward()
    return measured.peak


def test_memory_grows_with_the_chunk_and_not_with_the_scan():
    a_chunk = activation_bytes(4, SIDE, 3, 2, 8, bytes_per_value=8)
    short, long, long_at_once = peak_bytes(4, 8), peak_bytes(4, 64), peak_bytes(64, 64)
    # Beside what is kept there are gradients on their way, of a layer or two.
    assert a_chunk < short < 2 * a_chunk
    # 56 slices more bring vectors, states and factors of dropout: little beside the maps that they would bring at once.
    assert long - short < 0.05 * 14 * a_chunk
    assert 16 * a_chunk < long_at_once


def test_parameters_of_the_published_network():
    settings = {
        "view.size": 512,
        "volume.maximum_filter": "1,2,2",
        "sequence.kind": "bilstm_sum",
        "sequence.layers": 2,
        "sequence.hidden": 512,
    }
    whole = build_end_to_end(variant(BASE, **settings))
    # The slice network without its own logit (512 + 1), and the network over the scan: see their tests.
    assert parameter_count(whole) == (2_884_465 - 513) + 8_397_313 == 11_281_265
    assert whole.chunk_slices == BASE.endtoend.chunk_slices


def test_a_chunk_needs_a_slice():
    with pytest.raises(ValueError, match="chunks of 0 slices: give at least 1"):
        network(0)
