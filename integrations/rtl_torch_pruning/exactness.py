"""Whether masking the shared network computes what the small network computes."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import ChannelPlan, compact_with, derived_seed, tensors_in

_TOLERANCE = 1e-6  # in float64, relative to the largest output


def compact_only_layers(
    model: nn.Module, plan: ChannelPlan, run: Callable[[nn.Module, torch.dtype], Any]
) -> tuple[str, ...]:
    """Why the masked network is not the small one.

    Layers that look across channels are known by kind (LayerNorm, GroupNorm, RMSNorm, attention
    with fewer or smaller heads). Whatever else mixes channels shows in the outputs, which are
    compared in float64, with biases and statistics shaken so that zeros hide nothing.

    Args:
        model: the shared network, left as it is.
        plan: what was cut.
        run: ``run(network, dtype)`` runs a network on the example input, converted to a dtype.

    Returns:
        One reason a layer; empty where both compute the same.
    """
    found = tuple(_mixing_layers(model, plan))
    if found:
        return found
    gap = _output_gap(model, plan, run)
    if gap <= _TOLERANCE:
        return ()
    return (f"{type(model).__name__} (outputs differ by {gap:.1e} of the largest one)",)


def _mixing_layers(model: nn.Module, plan: ChannelPlan) -> Iterator[str]:
    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    for name, module in model.named_modules():
        edits = plan.attributes.get(name, {})
        if isinstance(module, norms) and edits:
            yield f"{name} ({type(module).__name__} normalises over the channels that are left)"
        elif isinstance(module, nn.MultiheadAttention) and edits:
            yield f"{name} (MultiheadAttention scales by the size of its heads)"


def _output_gap(
    model: nn.Module, plan: ChannelPlan, run: Callable[[nn.Module, torch.dtype], Any]
) -> float:
    shaken = copy.deepcopy(model).to(torch.float64).eval()
    _shake(shaken)
    small = compact_with(shaken, plan, {})
    with torch.no_grad():
        for name, parameter in shaken.named_parameters():
            if name in plan.maps:
                parameter.mul_(plan.maps[name].mask().to(parameter.device))
        masked = [t for t in tensors_in(run(shaken, torch.float64)) if t.is_floating_point()]
        cut = [t for t in tensors_in(run(small, torch.float64)) if t.is_floating_point()]
    gap = 0.0
    for one, other in zip(masked, cut, strict=True):
        largest = float(one.abs().max()) if one.numel() else 0.0
        difference = float((one - other).abs().max()) if one.numel() else 0.0
        gap = max(gap, difference / max(largest, 1e-12))
    return gap


def _shake(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(derived_seed("exactness"))

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        return 0.1 * drawn.to(tensor.device)

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(noise(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(noise(buffer))
