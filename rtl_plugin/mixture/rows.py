"""Taking rows out of a batch of any nesting, and putting rows of outputs back together."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import map_tensors, tensors_in


def batch_size(x: Any) -> int:
    """The first dimension of the first tensor of a network's first input.

    Args:
        x: nested tensors.

    Returns:
        B.

    Raises:
        InvalidArgument: there is no tensor, or it has no dimension.

    Example:
        >>> batch_size({"image": torch.zeros(3, 8)})
        3
    """
    first = next(tensors_in(x), None)
    if first is None or first.dim() == 0:
        raise InvalidArgument("a mixed batch needs an input tensor whose first dimension is B")
    return first.shape[0]


def take_rows(nested: Any, rows: torch.Tensor, size: int) -> Any:
    """The given rows of every tensor whose first dimension is the batch.

    Args:
        nested: nested tensors; tensors with another first dimension pass whole.
        rows: integer tensor [n].
        size: B.

    Returns:
        The same nesting.

    Example:
        >>> take_rows([torch.arange(3)], torch.tensor([2, 0]), 3)
        [tensor([2, 0])]
    """

    def take(tensor: torch.Tensor) -> torch.Tensor:
        is_batch = tensor.dim() > 0 and tensor.shape[0] == size
        return tensor.index_select(0, rows.to(tensor.device)) if is_batch else tensor

    return map_tensors(take, nested)


def join_rows(parts: Sequence[Any], rows: Sequence[torch.Tensor], size: int) -> Any:
    """Undo a split of a batch into rows: concatenate outputs and restore the order.

    Args:
        parts: one output a split, all of the same nesting, batch first.
        rows: which rows each was computed from; together a permutation of 0..size-1.
        size: B.

    Returns:
        The nesting of the first part with tensors of B rows.

    Raises:
        InvalidArgument: an output tensor is not batch first, so it cannot be put together.

    Example:
        >>> outputs = [torch.tensor([5]), torch.tensor([6])]
        >>> join_rows(outputs, [torch.tensor([1]), torch.tensor([0])], 2)
        tensor([6, 5])
    """
    order = torch.cat(list(rows))
    back = torch.empty_like(order)
    back[order] = torch.arange(size, device=order.device)
    streams: list[Iterator[torch.Tensor]] = [tensors_in(part) for part in parts]

    def join(_: torch.Tensor) -> torch.Tensor:
        pieces = [next(stream) for stream in streams]
        for piece, chosen in zip(pieces, rows, strict=True):
            if piece.dim() == 0 or piece.shape[0] != chosen.numel():
                raise InvalidArgument(
                    f"a mixed batch needs outputs with one row a sample, got shape "
                    f"{tuple(piece.shape)} for {chosen.numel()} samples: run one ticket a call"
                )
        joined = torch.cat(pieces)
        return joined.index_select(0, back.to(joined.device))

    return map_tensors(join, parts[0])
