"""Batch normalisation folded into the convolutions before it: the same outputs from fewer passes over memory."""

import copy
import logging
from collections import Counter

from timm.layers import BatchNormAct2d, Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
"""By exact type: others, such as weight-standardised ones, do more with their weights than to convolve."""
NORMALISATIONS = (nn.BatchNorm2d, BatchNormAct2d)
UNTRACEABLE = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)
"""What tracing raises: torch.fx's TraceError is a ValueError, the others come from the code that meets no number."""

log = logging.getLogger(__name__)


def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a network, for inference alone, in which convolutions do what batch normalisation did.

    Folded is what surely can be: a convolution whose output goes into one normalisation with running statistics and
    nowhere else, each called once. A network that torch.fx cannot follow is returned as it is, in evaluation mode.
    The copy gives the same as the network in evaluation mode, but for float32's rounding.
    """
    network = network.eval()
    if not any(type(module) in NORMALISATIONS for module in network.modules()):
        return network
    try:
        pairs = _pairs(network)
    except UNTRACEABLE as error:
        log.info("batch normalisation stays as it is: %s", " ".join(str(error).split()))
        return network
    network = copy.deepcopy(network)
    for convolution, normalisation in pairs:
        norm = network.get_submodule(normalisation)
        network.set_submodule(convolution, fuse_conv_bn_eval(network.get_submodule(convolution), norm))
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        network.set_submodule(normalisation, rest)
    return network


class _Tracer(fx.Tracer):
    """Follows values from module to module, and not into those that are to be folded."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module) in (*CONVOLUTIONS, *NORMALISATIONS) or super().is_leaf_module(module, name)


def _pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of convolutions and of the normalisations that alone read their outputs."""
    modules = dict(network.named_modules())
    calls = [node for node in _Tracer().trace(network).nodes if node.op == "call_module"]
    times = Counter(modules[node.target] for node in calls)

    def is_called_once(node: fx.Node, types: tuple[type, ...]) -> bool:
        return node.op == "call_module" and type(modules[node.target]) in types and times[modules[node.target]] == 1

    return [
        (node.args[0].target, node.target)
        for node in calls
        if is_called_once(node, NORMALISATIONS)
        and modules[node.target].track_running_stats
        and is_called_once(node.args[0], CONVOLUTIONS)
        and len(node.args[0].users) == 1
    ]
