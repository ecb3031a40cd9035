"""What a mixture asks of a router, at construction and of every decision."""

from collections.abc import Iterable
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import OutputRouter, Router, RoutingDecision
from rtl_plugin.routing.contract import batch_size
from rtl_plugin.tickets import TicketSet


def check_router(router: Any, tickets: TicketSet) -> None:
    """Refuse what is no router, or one that was made for other tickets.

    Args:
        router: a router or None.
        tickets: what the mixture serves.

    Raises:
        InvalidArgument: it has no ``route``, or its positions would name the wrong tickets.

    Example:
        >>> check_router(None, None)
    """
    if router is None:
        return
    if not isinstance(router, Router):
        raise InvalidArgument(
            f"router must have route(x, context), {type(router).__name__} has none"
        )
    _check_tickets(router, tickets)


def _check_tickets(router: Any, tickets: TicketSet) -> None:
    made_for = getattr(router, "tickets", None)
    if made_for is None:
        return
    listed = isinstance(made_for, Iterable) and not isinstance(made_for, str)
    if not listed or tuple(made_for) != tickets.names:
        shown = list(made_for) if listed else made_for
        raise InvalidArgument(
            f"the router was made for the tickets {shown}, the mixture serves {list(tickets)}: "
            f"its positions would name the wrong ones; make the {type(router).__name__} for the "
            "tickets of the mixture, in their order"
        )


def checked_decision(
    router: Router | None, tickets: TicketSet, x: Any, context: Any
) -> RoutingDecision:
    """Ask a router about a batch.

    Args:
        router: the mixture's router.
        tickets: what the mixture serves.
        x: the network's first input.
        context: for the router.

    Returns:
        Its decision, one a sample.

    Raises:
        InvalidArgument: there is no router, or its decision does not fit the batch or the tickets.

    Example:
        >>> checked_decision(None, None, None, None)
        Traceback (most recent call last):
        rtl_plugin.errors.InvalidArgument: say which tickets: ...
    """
    if router is None:
        raise InvalidArgument(
            "say which tickets: mixture(x, tickets=...), or give the mixture a router"
        )
    return _checked(router, router.route(x, context), tickets, batch_size(x))


def checked_output_decision(
    router: OutputRouter, tickets: TicketSet, outputs: torch.Tensor, context: Any
) -> RoutingDecision:
    """Ask a router about a batch of outputs of all tickets.

    Args:
        router: one that ``needs_outputs``.
        tickets: what the mixture serves.
        outputs: tensor [B, K, ...] of ``stack_outputs``.
        context: for the router.

    Returns:
        Its decision, one a sample.

    Raises:
        InvalidArgument: its decision does not fit the batch or the tickets.

    Example:
        >>> from rtl_plugin.routing import OneVsRestRouter
        >>> from rtl_plugin.tickets import Ticket
        >>> tickets = TicketSet([Ticket(n, {"w": torch.tensor([True])}) for n in "ab"])
        >>> outputs = torch.tensor([[[0.0], [1.0]]])
        >>> checked_output_decision(OneVsRestRouter(), tickets, outputs, None).indices
        tensor([1])
    """
    decision = router.decide(outputs, context)
    return _checked(router, decision, tickets, outputs.shape[0], "decide")


def _checked(
    router: Any, decision: Any, tickets: TicketSet, size: int, method: str = "route"
) -> RoutingDecision:
    name = type(router).__name__
    if not isinstance(decision, RoutingDecision):
        raise InvalidArgument(
            f"{name}.{method} must return a RoutingDecision, got {type(decision).__name__}"
        )
    if decision.batch_size != size:
        raise InvalidArgument(f"{name} decided on {decision.batch_size} of {size} samples")
    if decision.weights is not None and decision.weights.shape[1] != len(tickets):
        raise InvalidArgument(
            f"routing weights have {decision.weights.shape[1]} columns for {len(tickets)} tickets"
        )
    return decision
