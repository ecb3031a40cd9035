"""What becomes of samples that no ticket knows."""

from dataclasses import dataclass, replace

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing.contract import RoutingDecision


@dataclass(frozen=True)
class FallbackSplit:
    """A decision taken apart into samples that tickets know and samples that none does.

    Args:
        known: the decision of the known samples alone; its ``fallback`` is None.
        known_rows: int64 tensor [n], their rows in the batch, ascending.
        fallback_rows: int64 tensor [B - n], the other rows, ascending.

    Example:
        >>> decision = RoutingDecision(torch.tensor([1, 0]), fallback=torch.tensor([False, True]))
        >>> split_fallback(decision, "dense").fallback_rows
        tensor([1])
    """

    known: RoutingDecision
    known_rows: torch.Tensor
    fallback_rows: torch.Tensor


def check_fallback(decision: RoutingDecision, target: str | None) -> None:
    """Refuse a decision that may send samples to a fallback where there is none.

    Args:
        decision: a router's.
        target: the mixture's ``fallback=``: a ticket's name, ``"dense"``, or None.

    Raises:
        InvalidArgument: the decision has a fallback, whatever its values, and there is no target.

    Example:
        >>> check_fallback(RoutingDecision(torch.tensor([0])), None)
    """
    if decision.fallback is not None and target is None:
        raise InvalidArgument(
            "the router marks samples that no ticket knows, and the mixture does not know where "
            "they go: give it fallback= with a ticket's name, or 'dense' for the unmasked network"
        )


def split_fallback(decision: RoutingDecision, target: str | None) -> FallbackSplit:
    """Take a decision apart into known samples and those of the fallback.

    Args:
        decision: a router's.
        target: the mixture's ``fallback=``: a ticket's name, ``"dense"``, or None.

    Returns:
        The parts. Without ``decision.fallback`` every sample is known.

    Raises:
        InvalidArgument: the decision has a fallback and there is no target.

    Example:
        >>> fallback = torch.tensor([False, True, False])
        >>> decision = RoutingDecision(torch.tensor([2, 0, 1]), fallback=fallback)
        >>> split_fallback(decision, "dense").known.indices
        tensor([2, 1])
    """
    check_fallback(decision, target)
    chosen = decision.indices if decision.indices is not None else decision.weights
    assert chosen is not None  # noqa: S101 - a decision holds one of the two
    unknown = decision.fallback
    if unknown is None:
        unknown = torch.zeros(decision.batch_size, dtype=torch.bool, device=chosen.device)
    known_rows, fallback_rows = (~unknown).nonzero().flatten(), unknown.nonzero().flatten()

    def taken(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values.index_select(0, known_rows.to(values.device))

    known = RoutingDecision(
        taken(decision.indices), taken(decision.weights), taken(decision.confidence)
    )
    return FallbackSplit(known, known_rows, fallback_rows)


def fallback_to_ticket(decision: RoutingDecision, position: int) -> RoutingDecision:
    """Serve the samples that no ticket knows by one ticket, without looking at values.

    For a fallback that is itself a ticket this needs no split, and nothing waits for the device.

    Args:
        decision: a router's.
        position: of the fallback ticket in the set.

    Returns:
        The decision with those samples at the ticket, and ``fallback`` None.

    Raises:
        InvalidArgument: the decision has weights and the position is none of their columns.

    Example:
        >>> decision = RoutingDecision(torch.tensor([2, 0]), fallback=torch.tensor([False, True]))
        >>> fallback_to_ticket(decision, 1).indices
        tensor([2, 1])
    """
    if decision.fallback is None:
        return decision
    if decision.indices is not None:
        unknown = decision.fallback.to(decision.indices.device)
        indices = decision.indices.masked_fill(unknown, position)
        return replace(decision, indices=indices, fallback=None)
    weights = decision.weights
    assert weights is not None  # noqa: S101 - a decision holds one of the two
    if not 0 <= position < weights.shape[1]:
        raise InvalidArgument(
            f"fallback ticket {position} is not in 0..{weights.shape[1] - 1}, the columns of the "
            "routing weights"
        )
    alone = torch.zeros_like(weights)
    alone[:, position] = 1
    unknown = decision.fallback.to(weights.device).unsqueeze(1)
    return replace(decision, weights=torch.where(unknown, alone, weights), fallback=None)
