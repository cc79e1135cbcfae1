"""The summed BiLSTM: one step by hand, the paper's parameters and beginnings, directions, scans by themselves."""

import numpy as np
import pytest
import torch

from pipeline.nets.build import parameter_count
from pipeline.nets.summed_bilstm import SummedBiLSTM


def fresh(features=7, hidden=5, layers=2) -> SummedBiLSTM:
    torch.manual_seed(3)
    return SummedBiLSTM(features, hidden, layers).double()


def lstm_by_equation_1(slices: np.ndarray, layer: torch.nn.LSTM, suffix: str) -> np.ndarray:
    """Return states (slices, hidden) by the paper's equation 1, in torch's order of gates: i, f, C, o."""
    kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    w, u, b, second = (getattr(layer, kind + suffix).detach().numpy() for kind in kinds)
    state = cell = np.zeros(u.shape[1])
    states = []
    for x in slices:
        i, f, c, o = np.split(w @ x + u @ state + b + second, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        cell = i * np.tanh(c) + f * cell
        state = o * np.tanh(cell)
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_scan_by_the_papers_equations(layers):
    network = fresh(layers=layers)
    states = torch.randn(4, 7, dtype=torch.float64)
    logit = network([states]).item()
    below = states.numpy()
    for layer in network.layers:
        forward = lstm_by_equation_1(below, layer, "")
        backward = lstm_by_equation_1(below[::-1], layer, "_reverse")[::-1]
        below = forward + backward  # h_t^A + H_t^B
    # The direction that ends at the last slice, and the one that ends at the first.
    vector = forward[-1] + backward[0]
    expected = network.head.weight.detach().numpy() @ vector + network.head.bias.item()
    assert logit == pytest.approx(expected.item(), rel=1e-10)


def test_parameters_of_the_published_network():
    # A layer: 2 directions x 4 gates x 512 x (512 inputs + 512 states + 1 bias); the directions' sum is 512 wide again.
    layer = 2 * 4 * 512 * (512 + 512 + 1)
    assert layer == 4_198_400
    assert parameter_count(SummedBiLSTM(512, 512, 2)) == 2 * layer + (512 + 1) == 8_397_313
    assert parameter_count(SummedBiLSTM(512, 512, 1)) == layer + 513
    # torch's second bias would make it 4,202,496 a layer; it is there, and stays 0.
    assert sum(p.numel() for p in SummedBiLSTM(512, 512, 1).layers.parameters()) == 4_202_496


def test_weights_begin_as_the_paper_says():
    network = fresh(features=30, hidden=20, layers=2)
    for width, layer in zip((30, 20), network.layers, strict=True):
        for suffix in ("", "_reverse"):
            for gate in getattr(layer, f"weight_hh_l0{suffix}").detach().chunk(4):
                torch.testing.assert_close(gate @ gate.T, torch.eye(20, dtype=torch.float64), atol=1e-6, rtol=0)
            limit = (6 / (width + 20)) ** 0.5  # Glorot's, of each gate
            for gate in getattr(layer, f"weight_ih_l0{suffix}").detach().chunk(4):
                assert 0.95 * limit < gate.abs().max() <= limit
            own, second = (getattr(layer, f"bias_{kind}_l0{suffix}") for kind in ("ih", "hh"))
            assert (own + second).view(4, 20).tolist() == [[0] * 20, [1] * 20, [0] * 20, [0] * 20]
            assert own.requires_grad
            assert not second.requires_grad


def test_a_scan_does_not_depend_on_the_scans_beside_it():
    network = fresh()
    scans = [torch.randn(length, 7, dtype=torch.float64) for length in (9, 1, 30)]
    together = network(scans)
    assert together.shape == (3,)
    assert torch.equal(together, torch.cat([network([scan]) for scan in scans]))
    assert torch.equal(network(scans[::-1]), together.flip(0))


def test_both_ends_of_a_scan_count_and_so_does_its_order():
    network = fresh()
    scan = torch.randn(12, 7, dtype=torch.float64)
    before = network([scan])
    for changed in (0, 6, 11):
        other = scan.clone()
        other[changed] += 1
        assert not torch.equal(network([other]), before)
    assert not torch.allclose(network([scan.flip(0)]), before)
