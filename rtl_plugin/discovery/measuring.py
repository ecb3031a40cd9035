"""Measuring a trained ticket on its group's validation batches while the rounds go on."""

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import nn

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.modes import eval_mode

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
    evaluate: Evaluate, model: nn.Module, view: Any, batches: Iterable[Any], where: object
) -> float:
    """A metric of one trained ticket.

    Args:
        evaluate: ``evaluate(view, batches) -> float``.
        model: the network that the view runs; in eval mode meanwhile.
        view: the network under its ticket, on buffers that may be written to.
        batches: the group's validation batches, on whatever device they come.
        where: for messages.

    Returns:
        A finite number.

    Raises:
        InvalidArgument: what came back is no finite number.
    """
    with torch.no_grad(), eval_mode(model):
        value = evaluate(view, batches)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InvalidArgument(
            f"{where}: evaluate must return a finite number, got {value!r}: where the metric is "
            "undefined (no positive prediction, say) return the number that it should count as"
        )
    return float(value)
