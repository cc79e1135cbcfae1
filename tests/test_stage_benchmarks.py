"""The checks that stand before each timing notice what is wrong, and the small parts of the benchmarks run."""

import numpy as np
import pytest
import torch

from benchmarks import reduce, sequence
from benchmarks.baselines import straightforward_scan_logits
from pipeline.core.reduction import Moments
from pipeline.nets.scan_bilstm import ScanBiLSTM


def test_the_components_are_compared_with_an_exact_decomposition(monkeypatch):
    sample = np.random.default_rng(0).normal(size=(90, 12)) * np.arange(1, 13)
    reduce.check(sample, 4)
    covariance = Moments.covariance
    monkeypatch.setattr(Moments, "covariance", lambda self: covariance(self) + 0.1)
    with pytest.raises(ValueError, match="components lie up to .* from those of a full singular value decomposition"):
        reduce.check(sample, 4)


def test_synthetic_embeddings_keep_their_contract(monkeypatch):
    monkeypatch.setattr(reduce, "GROUP_ROWS", 64)
    tables = list(reduce.embeddings(150, seed=0))
    assert [table.num_rows for table in tables] == [64, 64, 22]
    ids = [slice_id for table in tables for slice_id in table.column("slice_id").to_pylist()]
    assert len(set(ids)) == 150
    test_rows = sum(table.column("fold").null_count for table in tables)
    assert test_rows == 150 - 150 * reduce.RSNA_TRAIN.slices // reduce.ROWS


def test_torchs_own_lstm_gives_what_the_network_gives(monkeypatch):
    scans = sequence.sample_scans(20, seed=0)
    sequence.check(scans)
    lengths = np.diff(scans.bounds)
    assert 20 <= lengths.min() < lengths.max() <= 60
    network = ScanBiLSTM(3, 4, 2, 0.3, True).eval()
    features, chances = torch.randn(9, 3), torch.rand(9, 6)
    torch.testing.assert_close(straightforward_scan_logits(network, features, chances), network([features], [chances]))
    monkeypatch.setattr(sequence, "straightforward_scan_logits", lambda _net, f, _p: torch.zeros(len(f), 6))
    with pytest.raises(ValueError, match=r"logits of 20 scans lie up to .* from those of one scan at a time"):
        sequence.check(scans)


@pytest.mark.parametrize("straightforward", [False, True])
def test_an_epoch_trains_the_network(straightforward, monkeypatch):
    made = []
    build = sequence.build_sequence
    monkeypatch.setattr(sequence, "build_sequence", lambda *given: made.append(build(*given)) or made[-1])
    run = sequence.epoch(sequence.sample_scans(4, seed=1), 1 if straightforward else 3, straightforward)
    before = [weights.detach().clone() for weights in made[0].parameters()]
    run()
    assert all(not torch.equal(old, new) for old, new in zip(before, made[0].parameters(), strict=True))
