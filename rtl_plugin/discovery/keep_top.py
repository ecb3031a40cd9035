"""Global ranking with exact counts, ties by index, and a floor per tensor."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from rtl_plugin.errors import InvalidArgument

Tensors = Mapping[str, torch.Tensor]
Select = Callable[[torch.Tensor, int], torch.Tensor]


def floor_counts(
    shapes: Mapping[str, torch.Size | tuple[int, ...]], floor: float
) -> dict[str, int]:
    """The fewest weights that each tensor keeps.

    Args:
        shapes: parameter name -> shape.
        floor: fraction of the tensor, in [0, 1); 0 switches the floor off.

    Returns:
        Parameter name -> count: ``ceil(floor * numel)`` and at least one weight, or 0 when off.

    Raises:
        InvalidArgument: the fraction is out of range.

    Example:
        >>> floor_counts({"w": (10, 20)}, 0.01)
        {'w': 2}
    """
    if not 0 <= floor < 1:
        raise InvalidArgument(f"floor must be a fraction in [0, 1), got {floor!r}")
    if floor == 0:
        return dict.fromkeys(shapes, 0)
    # A product a hair above a whole number is that whole number.
    return {
        name: max(1, math.ceil(round(floor * math.prod(shape), 9)))
        for name, shape in shapes.items()
    }


def select_top(values: torch.Tensor, count: int) -> torch.Tensor:
    """Mark the highest values, exactly so many; among equal values the lower index wins.

    Args:
        values: real tensor [N] without NaN.
        count: how many, in [0, N].

    Returns:
        bool tensor [N] with ``count`` True entries.

    Example:
        >>> select_top(torch.tensor([1.0, 3.0, 3.0, 3.0]), 2)
        tensor([False,  True,  True, False])
    """
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= values.numel():
        return torch.ones_like(values, dtype=torch.bool)
    threshold = torch.kthvalue(values, values.numel() - count + 1).values
    chosen = values > threshold
    ties = (values == threshold).nonzero().reshape(-1)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def select_top_reference(values: torch.Tensor, count: int) -> torch.Tensor:
    """What :func:`select_top` computes, by a full stable sort.

    Args:
        values: real tensor [N] without NaN.
        count: how many, in [0, N].

    Returns:
        bool tensor [N] with ``count`` True entries.

    Example:
        >>> select_top_reference(torch.tensor([1.0, 3.0, 3.0, 3.0]), 2)
        tensor([False,  True,  True, False])
    """
    order = torch.sort(values, descending=True, stable=True).indices
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen


@dataclass(frozen=True)
class Kept:
    """New masks, and the tensors that the floor protected from falling lower."""

    masks: dict[str, torch.Tensor]
    at_floor: tuple[str, ...]


def keep_top(
    scores: Tensors,
    alive: Tensors,
    count: int,
    floors: Mapping[str, int],
    select: Select = select_top,
) -> Kept:
    """Keep the highest-scored survivors of all tensors together.

    Args:
        scores: parameter name -> real scores without NaN.
        alive: parameter name -> bool mask of the present survivors.
        count: how many weights to keep in all.
        floors: parameter name -> fewest weights to keep there; paid for by the lowest-ranked
            others, so the total never changes.
        select: :func:`select_top` or :func:`select_top_reference`.

    Returns:
        Masks with exactly ``count`` True entries, all of them alive before; ties are broken by
        index, parameters in their order.

    Raises:
        InvalidArgument: fewer survivors than ``count``, or the floors ask for more than it.

    Example:
        >>> scores = {"a": torch.tensor([5.0, 6.0]), "b": torch.tensor([1.0, 2.0])}
        >>> alive = {name: torch.ones(2, dtype=torch.bool) for name in scores}
        >>> kept = keep_top(scores, alive, 2, {"a": 1, "b": 1})
        >>> kept.masks["b"], kept.at_floor
        (tensor([False,  True]), ('b',))

    Source:
        Stefański, Presta, Byra, arXiv 2601.22141, Algorithm 1; the floor is ours.
    """
    ranked = {name: _rankable(scores[name])[alive[name]] for name in alive}
    flat = torch.cat(list(ranked.values()))
    protected = {
        name: select(values, min(floors.get(name, 0), values.numel()))
        for name, values in ranked.items()
    }
    secured = torch.cat(list(protected.values()))
    remaining = count - int(secured.sum())
    if remaining < 0 or count > flat.numel():
        raise InvalidArgument(
            f"cannot keep {count} of {flat.numel()} survivors with floors of {int(secured.sum())} "
            "weights in all: lower the target sparsity or floor="
        )
    chosen = secured.clone()
    chosen[~secured] = select(flat[~secured], remaining)
    masks = _scattered(chosen, alive)
    return Kept(masks, _bound(flat, chosen, count, ranked, select))


def _rankable(scores: torch.Tensor) -> torch.Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


def _scattered(chosen: torch.Tensor, alive: Tensors) -> dict[str, torch.Tensor]:
    masks = {}
    start = 0
    for name, survivors in alive.items():
        mask = survivors.clone()
        end = start + int(survivors.sum())
        mask[survivors] = chosen[start:end]
        masks[name] = mask
        start = end
    return masks


def _bound(
    flat: torch.Tensor, chosen: torch.Tensor, count: int, ranked: Tensors, select: Select
) -> tuple[str, ...]:
    """Tensors that keep more than the plain global ranking would leave them."""
    unprotected = select(flat, count)
    if torch.equal(unprotected, chosen):
        return ()
    sizes = [values.numel() for values in ranked.values()]
    pairs = zip(ranked, chosen.split(sizes), unprotected.split(sizes), strict=True)
    return tuple(name for name, ours, plain in pairs if int(ours.sum()) > int(plain.sum()))
