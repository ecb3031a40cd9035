"""Taking rows out of a batch of any nesting, and putting rows of outputs back together."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import map_tensors, tensors_in

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # args and kwargs of a forward


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


def run_by_ticket(
    run: Callable[[int, tuple[Any, ...], dict[str, Any]], Any],
    indices: torch.Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a mixed batch one ticket after the other.

    Args:
        run: gets a ticket's position and its rows of args and kwargs.
        indices: integer tensor [B] of positions.
        args: of the network's forward.
        kwargs: of the network's forward.

    Returns:
        Outputs in the order of the batch; an empty batch runs through the first ticket.

    Raises:
        InvalidArgument: an output is not batch first.

    Example:
        >>> X = torch.ones(2)
        >>> run_by_ticket(lambda k, args, _: args[0] * k, torch.tensor([2, 0]), (X,), {})
        tensor([2., 0.])
    """
    size = indices.numel()
    if size == 0:
        return run(0, args, kwargs)
    parts, rows = [], []
    for index in indices.unique().tolist():
        chosen = (indices == index).nonzero().reshape(-1)
        parts.append(run(index, *take_rows((args, kwargs), chosen, size)))
        rows.append(chosen)
    return join_rows(parts, rows, size)


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
    check_has_tensors(parts[0])
    order = torch.cat(list(rows))
    back = torch.empty_like(order)
    back[order] = torch.arange(size, device=order.device)
    counts = [chosen.numel() for chosen in rows]

    def join(pieces: list[torch.Tensor]) -> torch.Tensor:
        _check_batch_first(pieces, counts)
        joined = torch.cat(pieces)
        return joined.index_select(0, back.to(joined.device))

    return _combined(parts, join)


def copied(nested: Any) -> Any:
    """Inputs for one of several runs: a forward may write into what it is given.

    Args:
        nested: nested tensors.

    Returns:
        The same nesting with copies; gradients flow back through them.

    Example:
        >>> x = torch.zeros(1)
        >>> _ = copied([x])[0].add_(1); x
        tensor([0.])
    """
    return map_tensors(torch.clone, nested)


def check_has_tensors(output: Any) -> None:
    """Refuse an output whose rows nobody can put together.

    Args:
        output: of a network.

    Raises:
        InvalidArgument: no tensor is found in it.

    Example:
        >>> check_has_tensors({"scores": torch.ones(2)})
    """
    if next(tensors_in(output), None) is None:
        raise InvalidArgument(
            f"a mixed batch needs an output made of tensors, got a {type(output).__name__}: return "
            "tensors (in dicts, lists, tuples or dataclasses), or run one ticket a call"
        )


def run_weighted(
    run: Callable[[int, tuple[Any, ...], dict[str, Any]], Any],
    weights: torch.Tensor,
    inputs: Inputs,
) -> Any:
    """Average tickets' outputs, each computed only for the samples that give it a weight.

    Args:
        run: gets a ticket's position and its rows of args and kwargs.
        weights: floating tensor [B, K].
        inputs: args and kwargs of the network's forward.

    Returns:
        Weighted sums of the outputs, rows in the order of the batch.

    Raises:
        InvalidArgument: an output is not batch first or not floating point.

    Example:
        >>> weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> run_weighted(lambda k, args, _: args[0] + 10 * k, weights, ((torch.ones(2),), {}))
        tensor([6., 1.])
    """
    size = weights.shape[0]
    used = weights != 0
    columns = used.any(dim=0).nonzero().flatten().tolist() or [0]
    parts: list[Any] = []
    chosen: list[torch.Tensor] = []
    for column in columns:
        rows = used[:, column].nonzero().flatten()
        given = copied(inputs) if rows.numel() == size else take_rows(inputs, rows, size)
        parts.append(run(column, *given))
        chosen.append(rows)

    def total(pieces: list[torch.Tensor]) -> torch.Tensor:
        _check_batch_first(pieces, [rows.numel() for rows in chosen])
        _check_averageable(pieces[0])
        summed = pieces[0].new_zeros(size, *pieces[0].shape[1:])
        for piece, rows, column in zip(pieces, chosen, columns, strict=True):
            share = weights[rows, column].to(piece).reshape(-1, *(1,) * (piece.dim() - 1))
            summed = summed.index_add(0, rows.to(piece.device), piece * share)
        return summed

    return _combined(parts, total)


def average_rows(outputs: Sequence[Any], weights: torch.Tensor) -> Any:
    """Outputs of several tickets on one batch, averaged with weights of every sample.

    Args:
        outputs: one output a ticket, all of the same nesting, floating point and batch first.
        weights: floating tensor [B, K].

    Returns:
        The nesting of the first output with tensors of B rows.

    Raises:
        InvalidArgument: an output tensor is not batch first or not floating point.

    Example:
        >>> outputs = [torch.tensor([[2.0], [2.0]]), torch.tensor([[4.0], [4.0]])]
        >>> average_rows(outputs, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
        tensor([[3.],
                [4.]])
    """

    def average(pieces: list[torch.Tensor]) -> torch.Tensor:
        _check_batch_first(pieces, [weights.shape[0]] * len(pieces))
        _check_averageable(pieces[0])
        stacked = torch.stack(pieces)  # [K, B, ...]
        shares = weights.T.reshape(*weights.T.shape, *(1,) * (stacked.dim() - 2)).to(stacked)
        # A ticket that has no say may have overflowed.
        return torch.where(shares != 0, stacked * shares, 0).sum(dim=0)

    return _combined(outputs, average)


def _check_averageable(output: torch.Tensor) -> None:
    if not (output.is_floating_point() or output.is_complex()):
        raise InvalidArgument(
            f"routing weights average outputs, which {output.dtype} cannot hold: return scores "
            "instead of decisions, or let the router choose indices"
        )


def _combined(parts: Sequence[Any], combine: Callable[[list[torch.Tensor]], torch.Tensor]) -> Any:
    """The nesting of the first part, each tensor combined from the same place of all parts."""
    streams = [list(tensors_in(part)) for part in parts]
    if len({len(stream) for stream in streams}) > 1:
        raise InvalidArgument(
            "the network gave outputs of different structure to different tickets, with "
            f"{[len(stream) for stream in streams]} tensors: run one ticket a call"
        )
    together = iter([list(pieces) for pieces in zip(*streams, strict=True)])
    return map_tensors(lambda _: combine(next(together)), parts[0])


def _check_batch_first(pieces: Sequence[torch.Tensor], counts: Sequence[int]) -> None:
    for piece, count in zip(pieces, counts, strict=True):
        if piece.dim() == 0 or piece.shape[0] != count:
            raise InvalidArgument(
                f"a mixed batch needs outputs with one row a sample, got shape "
                f"{tuple(piece.shape)} for {count} samples: run one ticket a call"
            )
