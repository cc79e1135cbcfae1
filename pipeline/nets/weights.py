"""Pre-trained weights: timm's own download, a file of the user's, or none; strict but for the head."""

from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.config import UserError

PREFIXES = ("module.", "model.", "network.", "encoder.")
"""Put before a network's own names by wrappers, Lightning and this project; removed where all names bear one."""


def load_encoder(encoder: nn.Module, name: str, weights: str) -> None:
    """Fill a timm encoder (built without its head) with weights.

    `weights` is `none`, `hub` (downloads what timm names; asking for it is asking for the network) or a path. All
    names and shapes must match, but for the classifier's. Raises UserError where the download fails, saying which
    file to fetch from which page and how to pass it, and where a file does not fit.
    """
    if weights == "none":
        return
    state = _download(name) if weights == "hub" else _read(Path(weights))
    _load_strictly(encoder, state, _classifier_names(encoder), source=weights if weights != "hub" else f"hub:{name}")


def _download(name: str) -> dict[str, Tensor]:
    config = timm.get_pretrained_cfg(name)
    hub_id = config.hf_hub_id if config is not None else None
    if not hub_id:
        raise UserError(f"train.weights=hub: timm has no pre-trained weights for {name}; pass a path, or none")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError, RuntimeError) as error:
        page = f"https://huggingface.co/{hub_id}"
        raise UserError(
            f"train.weights=hub: the weights of {name} could not be downloaded ({type(error).__name__}); fetch "
            f"model.safetensors from {page} and pass it: SET=train.weights=/path/to/model.safetensors"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"train.weights={path}: no such file; give a safetensors file or checkpoint, hub, or none")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            # weights_only: a checkpoint from elsewhere may hold tensors and plain data, never code.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"train.weights={path}: not a readable safetensors file or checkpoint") from error
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _classifier_names(encoder: nn.Module) -> tuple[str, ...]:
    classifier = encoder.pretrained_cfg.get("classifier", ())
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return (*(f"{name}." for name in names), "head.")


def _load_strictly(encoder: nn.Module, state: dict[str, Tensor], heads: tuple[str, ...], source: str) -> None:
    wanted = encoder.state_dict()
    given = {_bare(name): tensor for name, tensor in state.items()}
    missing = sorted(set(wanted) - set(given))
    foreign = sorted(name for name in set(given) - set(wanted) if not name.startswith(heads))
    misshapen = sorted(n for n in set(wanted) & set(given) if wanted[n].shape != given[n].shape)
    for problem, names in (("lack", missing), ("have unknown", foreign), ("have another shape for", misshapen)):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise UserError(f"train.weights={source}: they {problem} {shown}; are they of another encoder?")
    encoder.load_state_dict({name: given[name] for name in wanted})


def _bare(name: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if name.startswith(prefix):
                name, stripped = name[len(prefix) :], True
    return name
