"""Carry out what a router decides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.dense_network import DenseNetwork
from rtl_plugin.mixture.router_checks import checked_decision, checked_output_decision
from rtl_plugin.mixture.rows import Inputs, average_rows, copied, join_rows, run_weighted, take_rows
from rtl_plugin.mixture.strategies import Strategy
from rtl_plugin.mixture.ticket_choice import ticket_indices, ticket_named
from rtl_plugin.routing.contract import RoutingDecision, needs_outputs
from rtl_plugin.routing.fallback import check_fallback, fallback_to_ticket, split_fallback
from rtl_plugin.routing.outputs import select_outputs, stack_outputs
from rtl_plugin.tickets import TicketSet

DENSE = "dense"  # the fallback that is no ticket


def checked_fallback(fallback: Any, tickets: TicketSet) -> str | None:
    """Where samples go that no ticket knows.

    Args:
        fallback: a ticket's name, ``"dense"`` or None.
        tickets: what the mixture serves.

    Returns:
        The same.

    Raises:
        InvalidArgument: it is neither, or ``"dense"`` could mean a ticket too.
        UnknownTicket: there is no such ticket.

    Example:
        >>> checked_fallback(None, None)
    """
    if fallback is None:
        return None
    if not isinstance(fallback, str):
        raise InvalidArgument(
            f"fallback= takes a ticket's name, 'dense' or None, got {type(fallback).__name__}"
        )
    if fallback == DENSE and fallback in tickets:
        raise InvalidArgument(
            "fallback='dense' means the unmasked network, and a ticket is named so too: rename it"
        )
    return fallback if fallback == DENSE else tickets[fallback].name


@dataclass(frozen=True)
class RoutedCall:
    """Runs batches whose tickets a router chooses.

    Args:
        strategy: runs tickets.
        tickets: what is served.
        router: chooses.
        fallback: where samples go that no ticket knows, of :func:`checked_fallback`.
        dense: the unmasked network, needed where the fallback is ``"dense"``.
    """

    strategy: Strategy
    tickets: TicketSet
    router: Any
    fallback: str | None
    dense: DenseNetwork

    def run(self, inputs: Inputs, context: Any) -> Any:
        """Ask the router and run what it decides.

        Args:
            inputs: args and kwargs of the network's forward.
            context: for the router.

        Returns:
            The network's output, rows in the order of the batch.

        Raises:
            InvalidArgument: there is no router, or its decision does not fit batch or tickets.
        """
        if self.router is not None and needs_outputs(self.router):
            outputs = [self.strategy.run(name, *copied(inputs)) for name in self.tickets]
            stacked = stack_outputs(outputs)
            decision = checked_output_decision(self.router, self.tickets, stacked, context)

            def answer(chosen: RoutingDecision, rows: torch.Tensor | None) -> Any:
                taken = outputs if rows is None else [take_rows(o, rows, len(o)) for o in outputs]
                return _answer(taken, chosen)

            return self._carried_out(decision, inputs, answer)
        args, kwargs = inputs
        x = args[0] if args else kwargs
        decision = checked_decision(self.router, self.tickets, x, context)

        def compute(chosen: RoutingDecision, rows: torch.Tensor | None) -> Any:
            size = decision.batch_size
            return self._computed(chosen, inputs if rows is None else take_rows(inputs, rows, size))

        return self._carried_out(decision, inputs, compute)

    def _carried_out(
        self,
        decision: RoutingDecision,
        inputs: Inputs,
        answer: Callable[[RoutingDecision, torch.Tensor | None], Any],
    ) -> Any:
        """Answer known samples (rows of the batch, None for all) and send the others elsewhere."""
        check_fallback(decision, self.fallback)
        if decision.fallback is None or self.fallback is None:
            return answer(decision, None)
        if self.fallback != DENSE:
            position = self.tickets.names.index(self.fallback)
            return answer(fallback_to_ticket(decision, position), None)
        split = split_fallback(decision, self.fallback)
        if not split.fallback_rows.numel():
            return answer(split.known, None)
        size = decision.batch_size
        unknown = self.dense.run(*take_rows(inputs, split.fallback_rows, size))
        if not split.known_rows.numel():
            return unknown
        known = answer(split.known, split.known_rows)
        return join_rows([known, unknown], [split.known_rows, split.fallback_rows], size)

    def _computed(self, decision: RoutingDecision, inputs: Inputs) -> Any:
        args, kwargs = inputs
        if decision.indices is not None:
            indices = ticket_indices(self.tickets, decision.indices, decision.batch_size)
            return self.strategy.run_mixed(indices, args, kwargs)
        assert decision.weights is not None  # noqa: S101 - a decision holds one of the two

        def run(position: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self.strategy.run(ticket_named(self.tickets, position), args, kwargs)

        return run_weighted(run, decision.weights, inputs)


def _answer(outputs: list[Any], decision: RoutingDecision) -> Any:
    if decision.indices is not None:
        return select_outputs(outputs, decision.indices)
    assert decision.weights is not None  # noqa: S101 - a decision holds one of the two
    return average_rows(outputs, decision.weights)
