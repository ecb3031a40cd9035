"""Change one sample of a batch, and see which rows of a tensor noticed."""

from typing import Any

import torch

from rtl_plugin.nested import map_tensors


def poisoned(inputs: Any, sample: int, size: int) -> Any:
    """Inputs in which one sample is NaN, or has other integers.

    Args:
        inputs: nested tensors; those whose first dimension is the batch are changed.
        sample: which.
        size: B.

    Returns:
        The same nesting; changed tensors are copies.

    Example:
        >>> poisoned(torch.ones(2, 1), 0, 2).flatten().tolist()
        [nan, 1.0]
        >>> poisoned(torch.tensor([[1, 2], [5, 5]]), 0, 2).tolist()
        [[2, 1], [5, 5]]
    """

    def poison(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != size:
            return tensor
        changed = tensor.detach().clone()
        if changed.is_floating_point() or changed.is_complex():
            changed[sample] = float("nan")
        else:
            changed[sample] = _other(changed, sample)
        return changed

    return map_tensors(poison, inputs)


def _other(tensor: torch.Tensor, sample: int) -> torch.Tensor:
    """Other values than a sample has, out of those that occur: a vocabulary may end anywhere."""
    row = tensor[sample]
    if tensor.dtype == torch.bool:
        return ~row
    rolled = row.flatten().roll(1).reshape(row.shape)
    others = [rolled, *(tensor[i] for i in range(tensor.shape[0]))]
    different = next((other for other in others if not torch.equal(other, row)), None)
    if different is not None:
        return different
    return torch.where(row > 0, row - 1, row)


def changed_rows(base: torch.Tensor, changed: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Which rows differ between two passes.

    Args:
        base: of the pass without poison.
        changed: of the pass with it, of the same shape.
        axis: the dimension that rows are along; None asks for the tensor as a whole.

    Returns:
        bool tensor [rows], or without dimensions.

    Example:
        >>> changed_rows(torch.zeros(2, 2), torch.tensor([[0.0, 0.0], [0.0, 1.0]]), 0)
        tensor([False,  True])
    """
    if base.is_floating_point() or base.is_complex():
        # On a GPU the same numbers may be added in another order.
        loose = 1e-6 if base.dtype in (torch.float64, torch.complex128) else 1e-3
        same = torch.isclose(base, changed, rtol=loose, atol=loose * 1e-2, equal_nan=True)
    else:
        same = base == changed
    if axis is None:
        return ~same.all()
    return ~same.movedim(axis, 0).flatten(1).all(dim=1) if same.dim() > 1 else ~same
