"""Measuring a trained ticket on its group's validation batches while the rounds go on."""

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import fresh_iterator
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.modes import eval_mode
from rtl_plugin.nested import to_device
from rtl_plugin.randomness import derived_seed, forked

Evaluate: TypeAlias = Callable[[Any, Iterable[Any]], float]


def check_evaluate(evaluate: Any, groups: DataGroups) -> None:
    """Refuse, before any training, a metric that could not be measured after it.

    Args:
        evaluate: ``evaluate(model, batches) -> float`` or None.
        groups: the data groups; all need validation batches where there is a metric.

    Raises:
        InvalidArgument: it cannot be called.
        InvalidGroups: a group has no validation batches.

    Example:
        >>> check_evaluate(None, DataGroups.from_loaders({"a": [1]}))
    """
    if evaluate is None:
        return
    if not callable(evaluate):
        raise InvalidArgument(
            f"evaluate must be callable as evaluate(model, batches) -> float, got {evaluate!r}"
        )
    bare = [name for name, group in groups.items() if group.validation is None]
    if bare:
        raise InvalidGroups(
            f"evaluate= measures on validation batches, and {', '.join(bare)} have none: give "
            "validation= when making the groups"
        )


def measured(
    evaluate: Evaluate, model: nn.Module, view: Any, batches: "HeldOutBatches", where: object
) -> float:
    """A metric of one trained ticket.

    Args:
        evaluate: ``evaluate(view, batches) -> float``.
        model: the network that the view runs; in eval mode meanwhile.
        view: the network under its ticket, on tensors that may be written to.
        batches: the group's.
        where: for messages.

    Returns:
        A finite number.

    Raises:
        InvalidArgument: what came back is no finite number.
    """
    with torch.no_grad(), eval_mode(model), forked(batches.seed):
        value = evaluate(view, batches)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InvalidArgument(
            f"{where}: evaluate must return a finite number, got {value!r}: where the metric is "
            "undefined (no positive prediction, say) return the number that it should count as"
        )
    return float(value)


class HeldOutBatches:
    """A group's validation batches on the model's device, the same at every first pass.

    Everything else is asked of the loader itself.

    Args:
        loader: a re-iterable of batches.
        device: where the model lives.
        seed: in [0, 2**63), for generators that the loader holds itself.

    Example:
        >>> batches = HeldOutBatches([torch.zeros(2)], torch.device("cpu"), seed=0)
        >>> len(batches), [len(batch) for batch in batches]
        (1, [2])
    """

    def __init__(self, loader: Iterable[Any], device: torch.device, seed: int) -> None:
        self._loader, self._device, self.seed = loader, device, seed
        self._passes = 0

    def __iter__(self) -> Iterator[Any]:
        seed = derived_seed(self.seed, self._passes)
        self._passes += 1
        for batch in fresh_iterator(self._loader, seed):
            yield to_device(batch, self._device)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]  # a loader without one says so itself

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
