"""Running masked and small networks side by side."""

import contextlib
import copy
import functools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import (
    PruningFailed,
    bit_equal,
    derived_seed,
    forked,
    tensors_in,
)

Masks = Mapping[str, torch.Tensor]

_TOLERANCE = 1e-5  # of the largest output
_FLOOR = 1e-9  # in float64: where all outputs are next to nothing
# What a forward may raise that does not take float64, or numbers drawn at random.
_REFUSALS = (
    RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError, IndexError, KeyError,
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a network did with one input.

    Args:
        outputs: its output tensors.
        inside: layer -> mean of each of its output channels, one tensor a call. A wrong channel
            may be hidden from the outputs by activations that happen to be zero.
    """

    outputs: list[torch.Tensor]
    inside: dict[str, list[torch.Tensor]] = field(default_factory=dict)


class Comparison:
    """Runs masked and small networks on the dummy input and on a random one of its shape.

    In float64, or in the model's own dtype where its forward does not take that.

    Args:
        model: the dense network, left as it is.
        masks: the masks as they were given, by parameter name.
        graph: a ``ChannelGraph`` of the model.
        dummy_input: what it was traced with.
    """

    def __init__(self, model: nn.Module, masks: Masks, graph: Any, dummy_input: Any) -> None:
        self._inputs = [graph.runner(dummy_input)]
        self._dtype: torch.dtype | None = torch.float64
        self._twin = _twin(model, self._dtype)
        given = folded_values(model, masks)
        try:
            self._given = self.reference(given)
        except _REFUSALS:
            self._dtype = None
            self._twin = _twin(model, self._dtype)
            self._given = self.reference(given)
        if any(t.is_floating_point() for t in tensors_in(dummy_input)):
            self._add_random(graph.runner(_random_like(dummy_input)))

    def reference(self, folded: Mapping[str, torch.Tensor]) -> list[Seen]:
        """Outputs of the dense network with other parameters.

        Args:
            folded: parameter name -> value.

        Returns:
            What was seen, one entry an input.
        """
        with torch.no_grad():
            for name, parameter in self._twin.named_parameters():
                parameter.copy_(folded[name])
        return [self._seen(self._twin, run) for run in self._inputs]

    def check(
        self, small: nn.Module, reference: list[Seen], gone: Mapping[str, Collection[int]]
    ) -> tuple[float, float]:
        """Compare a small network with a masked one.

        Args:
            small: the small network.
            reference: what the masked one did.
            gone: layer -> its output channels that the small one has not.

        Returns:
            The largest difference from it, and from the network with the masks as given.

        Raises:
            PruningFailed: the small one does not run, or computes something else.
        """
        came = self._seen_of_small(small)
        self._check_inside(came, reference, gone)
        difference = _largest_gap(came, reference)
        allowed = self._allowed(largest_output(reference))
        if not difference <= allowed:
            raise PruningFailed(
                f"outputs of the cut network would differ by {difference:.1e} from the masked one, "
                f"where {allowed:.1e} is allowed"
            )
        return difference, _largest_gap(came, self._given)

    def _check_inside(
        self, ours: list[Seen], reference: list[Seen], gone: Mapping[str, Collection[int]]
    ) -> None:
        for one, other in zip(ours, reference, strict=True):
            for name, calls in other.inside.items():
                lost = gone.get(name, ())
                mine = one.inside.get(name, [])
                theirs = [t[[c for c in range(t.numel()) if c not in lost]] for t in calls]
                alike = [t.shape for t in mine] == [t.shape for t in theirs]
                for pair in zip(mine, theirs, strict=True) if alike else ():
                    alike = alike and _gap(*pair) <= self._allowed(_size(pair[1]))
                if not alike:
                    raise PruningFailed(
                        f"outputs of {name!r} would differ between the cut network and the masked "
                        "one, so what is masked before it is not zero there"
                    )

    def _allowed(self, largest: float) -> float:
        return max(self._relative() * largest, _FLOOR)

    def _seen_of_small(self, small: nn.Module) -> list[Seen]:
        twin = _twin(small, self._dtype)
        try:
            return [self._seen(twin, run) for run in self._inputs]
        except _REFUSALS as error:
            raise PruningFailed(
                f"the cut network does not run ({type(error).__name__}: {error})"
            ) from error

    def _relative(self) -> float:
        if self._dtype is not None:
            return _TOLERANCE
        dtypes = [p.dtype for p in self._twin.parameters() if p.is_floating_point()]
        return max((math.sqrt(torch.finfo(d).eps) for d in dtypes), default=_TOLERANCE)

    def _seen(self, network: nn.Module, run: Any) -> Seen:
        with _watched(network) as inside:
            return Seen(list(tensors_in(run(network, self._dtype))), inside)

    def _add_random(self, run: Any) -> None:
        try:
            self._given.append(self._seen(self._twin, run))
        except _REFUSALS:
            return  # a forward that insists on certain numbers: the dummy input alone is left
        self._inputs.append(run)


def _twin(network: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy in another dtype, whose parameters are converted while they are copied."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        kind = dtype if parameter.is_floating_point() else None
        value = parameter.detach().to(kind or parameter.dtype, copy=True)
        memo[id(parameter)] = nn.Parameter(value, requires_grad=False)
    return copy.deepcopy(network, memo).to(dtype).eval()


@contextlib.contextmanager
def _watched(network: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Note the channel means of linear layers and convolutions for a block."""
    inside: dict[str, list[torch.Tensor]] = {}

    def note(name: str, layer: Any, inputs: Any, output: torch.Tensor) -> None:
        spatial = 0 if isinstance(layer, nn.Linear) else layer.weight.dim() - 2
        channels = output.movedim(output.dim() - 1 - spatial, -1)
        inside.setdefault(name, []).append(channels.flatten(0, -2).mean(0))

    handles = [
        layer.register_forward_hook(functools.partial(note, name))
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd))
    ]
    try:
        yield inside
    finally:
        for handle in handles:
            handle.remove()


def folded_values(model: nn.Module, masks: Masks) -> dict[str, torch.Tensor]:
    """A model's parameters with masks folded in; exactly zero where masked.

    Args:
        model: the network.
        masks: parameter name -> bool mask.

    Returns:
        Parameter name -> tensor, the model's own where nothing is masked.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> folded_values(layer, {"weight": torch.tensor([[False, False]])})
        {'weight': tensor([[0., 0.]])}
    """
    return {
        name: torch.where(masks[name], value.detach(), torch.zeros_like(value))
        if name in masks
        else value.detach()
        for name, value in model.named_parameters()
    }


def _random_like(nested: Any) -> Any:
    with forked(derived_seed("speedup")):
        return _redrawn(nested)


def _redrawn(nested: Any) -> Any:
    if isinstance(nested, torch.Tensor):
        return torch.randn_like(nested) if nested.is_floating_point() else nested
    if isinstance(nested, Mapping):
        return {key: _redrawn(value) for key, value in nested.items()}
    if type(nested) in (list, tuple):
        return type(nested)(map(_redrawn, nested))
    return nested


def _floats(outputs: list[Seen]) -> Iterator[torch.Tensor]:
    return (t for each in outputs for t in each.outputs if t.is_floating_point())


def largest_output(outputs: list[Seen]) -> float:
    """Largest finite number among outputs.

    Args:
        outputs: what one network did, one entry an input.

    Example:
        >>> largest_output([Seen([torch.tensor([-2.0, 1.0])])])
        2.0
    """
    return max(map(_size, _floats(outputs)), default=0.0)


def _size(tensor: torch.Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _largest_gap(ones: list[Seen], others: list[Seen]) -> float:
    gaps = [0.0]
    for one, other in zip(ones, others, strict=True):
        if [t.shape for t in one.outputs] != [t.shape for t in other.outputs]:
            raise PruningFailed("cutting would change the shapes of the network's outputs")
        gaps += [_gap(*pair) for pair in zip(one.outputs, other.outputs, strict=True)]
    return max(gaps)


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference; infinite where only one of two numbers is finite."""
    if not one.is_floating_point():
        return 0.0 if bit_equal(one, other) else math.inf
    differs = ~((one == other) | (one.isnan() & other.isnan()))
    if not bool(differs.any()):
        return 0.0
    gap = float((one - other)[differs].abs().max())
    return gap if math.isfinite(gap) else math.inf
