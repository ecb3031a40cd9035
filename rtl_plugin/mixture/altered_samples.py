"""Alter one sample of a batch, and see which rows of a tensor noticed."""

from typing import Any

import torch

from rtl_plugin.nested import map_tensors


def chosen_samples(inputs: Any, rows: torch.Tensor, size: int, altered: int | None = None) -> Any:
    """Some samples of a batch, one of them altered.

    Alterations stay among the values that occur: a vocabulary may end anywhere, and a network that
    iterates until it converges would never end on NaN.

    Args:
        inputs: nested tensors.
        rows: long tensor [n], which samples.
        size: B; tensors of another first dimension pass whole.
        altered: which of the n is altered, or None.

    Returns:
        The same nesting; tensors of the batch are copies.

    Example:
        >>> chosen_samples(torch.tensor([[1, 2], [5, 5]]), torch.tensor([1, 0]), 2, altered=1)
        tensor([[5, 5],
                [2, 1]])
    """

    def choose(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != size:
            return tensor
        chosen = tensor.detach().index_select(0, rows.to(tensor.device))
        if altered is not None:
            chosen[altered] = _altered(chosen, altered)
        return chosen

    return map_tensors(choose, inputs)


def _altered(samples: torch.Tensor, which: int) -> torch.Tensor:
    row = samples[which]
    if row.dtype == torch.bool:
        return ~row
    rolled = row.flatten().roll(1).reshape(row.shape)
    if row.is_floating_point() or row.is_complex():
        largest = row.abs().max() if row.numel() else row.abs().sum()
        return 0.5 * rolled + 0.3 * row + 0.1 * torch.where(largest > 0, largest, 1)
    others = [rolled, *samples]
    different = next((other for other in others if not torch.equal(other, row)), None)
    return torch.where(row > 0, row - 1, row) if different is None else different


def changed_rows(base: torch.Tensor, changed: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Which rows differ between two passes.

    Args:
        base: of the pass with nothing altered.
        changed: of the pass with one sample altered, of the same shape.
        axis: the dimension that rows are along; None asks for the tensor as a whole.

    Returns:
        bool tensor [rows], or without dimensions.

    Example:
        >>> changed_rows(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [0.0, 1.0]]), 0)
        tensor([False,  True])
    """
    if base.is_cuda and (base.is_floating_point() or base.is_complex()):
        # There the same numbers may be added in another order.
        loose = 1e-6 if base.dtype in (torch.float64, torch.complex128) else 1e-3
        same = torch.isclose(base, changed, rtol=loose, atol=loose * 1e-2, equal_nan=True)
    else:
        same = (base == changed) | ((base != base) & (changed != changed))
    if axis is None:
        return ~same.all()
    return ~same.movedim(axis, 0).flatten(1).all(dim=1) if same.dim() > 1 else ~same
