"""Parameters of which every ticket has a copy of its own."""

import fnmatch
from collections.abc import Sequence

from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tickets import TicketSet


def private_names(model: nn.Module, tickets: TicketSet, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the private parameters: matched by a pattern, or in a ticket's state already.

    Args:
        model: the network.
        tickets: the tickets.
        patterns: ``fnmatch`` patterns of parameter names.

    Returns:
        Names in the model's order.

    Raises:
        InvalidArgument: a pattern matches nothing, or matches a masked or frozen parameter.

    Example:
        >>> import torch
        >>> from rtl_plugin.tickets import Ticket
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        >>> tickets = TicketSet([Ticket("a", {"0.weight": torch.eye(2).bool()})])
        >>> private_names(model, tickets, ["1.*"])
        ('1.weight', '1.bias')
    """
    if isinstance(patterns, str):
        raise InvalidArgument(f"private_parameters takes a list of patterns, got {patterns!r}")
    parameters = dict(model.named_parameters())
    chosen = {name for ticket in tickets.values() for name in ticket.state if name in parameters}
    for pattern in patterns:
        matched = {name for name in parameters if fnmatch.fnmatchcase(name, pattern)}
        if not matched:
            raise InvalidArgument(
                f"private_parameters={pattern!r} matches no parameter; the model has "
                f"{', '.join(list(parameters)[:6])}"
            )
        chosen |= matched
    for name in sorted(chosen):
        if name in tickets.shapes:
            raise InvalidArgument(
                f"{name!r} is masked and cannot be private too: tickets share masked weights; "
                "narrow private_parameters= or prunable="
            )
        if not parameters[name].requires_grad:
            raise InvalidArgument(f"private parameter {name!r} is frozen (requires_grad=False)")
    return tuple(name for name in parameters if name in chosen)
