"""What a mixture asks of a router, at construction and of every decision."""

from typing import Any

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import KnownGroupRouter, Router, RoutingDecision
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
    if isinstance(router, KnownGroupRouter) and router.tickets != tickets.names:
        raise InvalidArgument(
            f"the router was made for the tickets {list(router.tickets)}, the mixture serves "
            f"{list(tickets)}: its positions would name the wrong ones; make it with "
            "KnownGroupRouter(tickets)"
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
    decision = router.route(x, context)
    if not isinstance(decision, RoutingDecision):
        raise InvalidArgument(
            f"{type(router).__name__}.route must return a RoutingDecision, got "
            f"{type(decision).__name__}"
        )
    size = batch_size(x)
    if decision.batch_size != size:
        raise InvalidArgument(
            f"{type(router).__name__} decided on {decision.batch_size} of {size} samples"
        )
    if decision.weights is not None and decision.weights.shape[1] != len(tickets):
        raise InvalidArgument(
            f"routing weights have {decision.weights.shape[1]} columns for {len(tickets)} tickets"
        )
    return decision
