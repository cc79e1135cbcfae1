"""Networks on disk: safetensors, complete or not there, loaded strictly."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.shell.atomic import atomic_path


def save_network(path: Path, network: nn.Module) -> None:
    """Write a network's state as safetensors: tensors alone, in names' order, no code and no clock."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(network.state_dict().items())}
    with atomic_path(path) as partial:
        save_file(state, partial)


def load_network(path: Path, network: nn.Module) -> None:
    """Fill a network with a state that `save_network` wrote; raises RuntimeError where a name or shape differs."""
    network.load_state_dict(load_file(path), strict=True)
