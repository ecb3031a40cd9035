"""Whether masking the shared network computes what the small network computes."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import ChannelPlan, compact_with, derived_seed, tensors_in

_TOLERANCE = 1e-6  # in float64, relative to the largest output
_SMALL = 1e-3  # weights that are all below this may hide what happens before them


def compact_only_layers(
    model: nn.Module, plan: ChannelPlan, run: Callable[[nn.Module, torch.dtype | None], Any]
) -> tuple[str, ...]:
    """Why the masked network is not the small one.

    Layers that look across channels are known by kind (LayerNorm, GroupNorm, RMSNorm, attention
    with fewer or smaller heads). Whatever else mixes channels shows in the outputs, which are
    compared in float64 (in the model's own dtype where it does not run in that), with biases,
    statistics and weights of zero shaken so that zeros hide nothing.

    Args:
        model: the shared network, left as it is.
        plan: what was cut.
        run: ``run(network, dtype)`` runs a network on the example input, converted to a dtype
            unless that is None.

    Returns:
        One reason a layer; empty where both compute the same.
    """
    found = tuple(_mixing_layers(model, plan))
    if found:
        return found
    differ = _outputs_differ(model, plan, run)
    return (f"{type(model).__name__} ({differ})",) if differ else ()


def _mixing_layers(model: nn.Module, plan: ChannelPlan) -> Iterator[str]:
    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    for name, module in model.named_modules():
        edits = plan.attributes.get(name, {})
        if isinstance(module, norms) and edits:
            yield f"{name} ({type(module).__name__} normalises over the channels that are left)"
        elif isinstance(module, nn.MultiheadAttention) and edits:
            yield f"{name} (MultiheadAttention scales by the size of its heads)"


def _outputs_differ(
    model: nn.Module, plan: ChannelPlan, run: Callable[[nn.Module, torch.dtype | None], Any]
) -> str:
    """How much, in words; empty where they are alike."""
    try:
        gap, tolerance = _output_gap(model, plan, run, torch.float64), _TOLERANCE
    # A forward that insists on its own dtype, in whatever way; other faults come again below.
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError):
        gap = _output_gap(model, plan, run, None)
        dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
        tolerance = max((math.sqrt(torch.finfo(d).eps) for d in dtypes), default=_TOLERANCE)
    return "" if gap <= tolerance else f"outputs differ by {gap:.1e} of the largest one"


def _output_gap(
    model: nn.Module,
    plan: ChannelPlan,
    run: Callable[[nn.Module, torch.dtype | None], Any],
    dtype: torch.dtype | None,
) -> float:
    shaken = copy.deepcopy(model).to(dtype).eval()
    _shake(shaken)
    small = compact_with(shaken, plan, {})
    with torch.no_grad():
        for name, parameter in shaken.named_parameters():
            if name in plan.maps:
                parameter.mul_(plan.maps[name].mask().to(parameter.device))
        masked = [t for t in tensors_in(run(shaken, dtype)) if t.is_floating_point()]
        cut = [t for t in tensors_in(run(small, dtype)) if t.is_floating_point()]
    return max((_gap(one, other) for one, other in zip(masked, cut, strict=True)), default=0.0)


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference relative to the largest value; infinite where only one is finite."""
    alike = (one == other) | (one.isnan() & other.isnan())
    if bool(alike.all()):
        return 0.0
    difference = float((one - other)[~alike].abs().max())
    largest = float(other[other.isfinite()].abs().max()) if bool(other.isfinite().any()) else 0.0
    return difference / max(largest, 1e-12) if math.isfinite(difference) else math.inf


def _shake(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(derived_seed("exactness"))

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        return 0.1 * drawn.to(tensor.device)

    with torch.no_grad():
        for parameter in network.parameters():
            # Heads and last layers of a block often start at zero, layer scales close to it.
            hides = parameter.dim() == 1 or not bool((parameter.abs() > _SMALL).any())
            if hides and parameter.is_floating_point():
                parameter.add_(noise(parameter))
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(noise(buffer))
