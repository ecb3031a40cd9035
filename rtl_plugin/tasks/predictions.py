"""A network's outputs over all batches of a split, checked: what the tasks' metrics count."""

from collections.abc import Iterable
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import to_device
from rtl_plugin.structure import device_of


def outputs_and_targets(model: Any, batches: Iterable[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a network over all batches, without gradients and in the mode it is in.

    Args:
        model: a module, or a masked view of one; ``model(x)`` gives a float tensor [B, ...].
        batches: at least one pair ``(x, y)`` of tensors with B rows, on any device.

    Returns:
        All outputs as float64 and all targets in their own dtype, both with N rows, on a CPU.

    Raises:
        InvalidArgument: there is no batch, one is no pair, the output has another number of rows
            than the targets, or it is not finite.

    Example:
        >>> outputs, targets = outputs_and_targets(
        ...     torch.nn.Linear(2, 3), [(torch.zeros(4, 2), torch.zeros(4))] * 2
        ... )
        >>> outputs.shape, outputs.dtype, targets.shape
        (torch.Size([8, 3]), torch.float64, torch.Size([8]))
    """
    device = device_of(model)
    outputs, targets = [], []
    with torch.no_grad():
        for number, batch in enumerate(batches):
            x, y = _pair(batch, number)
            outputs.append(_checked_output(model(to_device(x, device)), y, number))
            targets.append(y.detach().cpu())
    if not outputs:
        raise InvalidArgument(
            "batches: expected at least one batch, got none: a metric of nothing is undefined, "
            "give the group's validation or test batches"
        )
    return torch.cat(outputs), torch.cat(targets)


def _pair(batch: Any, number: int) -> tuple[Any, torch.Tensor]:
    """A batch as input and targets."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not isinstance(batch[1], torch.Tensor) or batch[1].ndim == 0:
        raise InvalidArgument(
            f"batch {number}: expected a pair (x, y) with a tensor y of one row a sample, got "
            f"{type(batch).__name__}: give batches of inputs and targets"
        )
    return batch[0], batch[1]


def _checked_output(output: Any, targets: torch.Tensor, number: int) -> torch.Tensor:
    """An output that fits its targets, as float64 on a CPU."""
    if not isinstance(output, torch.Tensor) or output.ndim == 0 or len(output) != len(targets):
        came = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise InvalidArgument(
            f"batch {number}: expected an output tensor of {len(targets)} rows, one a target, got "
            f"{came}: the network must return one row a sample"
        )
    values = output.detach().to("cpu", torch.float64)
    if not values.isfinite().all():
        raise InvalidArgument(
            f"batch {number}: expected finite outputs, got "
            f"{int((~values.isfinite()).sum())} that are NaN or infinite: the training diverged, "
            "lower the learning rate"
        )
    return values
