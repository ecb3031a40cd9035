"""From the shapes of cut networks to tickets of the core."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import (
    ChannelPlan,
    PruningFailed,
    RewindPoint,
    Ticket,
    TicketSet,
    model_structure,
    values_fingerprint,
)
from rtl_torch_pruning.exactness import compact_only_layers
from rtl_torch_pruning.example_run import ExampleRun


def channel_tickets(
    model: nn.Module,
    point: RewindPoint,
    plans: Mapping[str, ChannelPlan | None],
    run: ExampleRun,
    schedule: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> TicketSet:
    """One ticket a group: masks over everything that any ticket cut, and the plan.

    Args:
        model: the shared network.
        point: theta_0, whose buffers become each ticket's own state.
        plans: group -> what was cut.
        run: the example input, for telling whether masked networks are the small ones.
        schedule: how the tickets were found, as JSON-able data.
        history: rows of the rounds.

    Returns:
        The ticket set.

    Raises:
        PruningFailed: nothing is cut yet for some group.
    """
    done = _all_cut(plans)
    cut = [n for n, _ in model.named_parameters() if any(n in plan.maps for plan in done.values())]
    tickets = []
    for group, plan in done.items():
        masks = {name: _mask(plan, name, point.parameters[name]) for name in cut}
        exact = ChannelPlan(
            plan.maps,
            plan.attributes,
            compact_only_layers(model, plan, run),
            plan.shared_attributes,
        )
        tickets.append(Ticket(group, masks, point.ticket_state(), exact))
    return TicketSet(
        tickets,
        structure=model_structure(model),
        theta_0=values_fingerprint(point.parameters),
        schedule=schedule,
        history=history,
    )


def _all_cut(plans: Mapping[str, ChannelPlan | None]) -> dict[str, ChannelPlan]:
    cut = {group: plan for group, plan in plans.items() if plan is not None}
    whole = [group for group in plans if group not in cut]
    if whole:
        raise PruningFailed(
            f"nothing is cut yet for {', '.join(map(repr, whole))}: call step() until the schedule "
            "asks for something"
        )
    return cut


def _mask(plan: ChannelPlan, name: str, shared: torch.Tensor) -> torch.Tensor:
    if name in plan.maps:
        return plan.maps[name].mask().to(shared.device)
    return torch.ones_like(shared, dtype=torch.bool)


def original_channels(model: nn.Module, ticket: Ticket) -> dict[str, list[int]]:
    """Which original output channels a ticket's small network has.

    Args:
        model: the shared network.
        ticket: a channel ticket over it.

    Returns:
        Layer name -> channel numbers, for every layer whose ``weight`` lost output channels.
    """
    kept: dict[str, list[int]] = {}
    for layer, module in model.named_modules():
        transposed = getattr(module, "transposed", False) or isinstance(module, nn.Embedding)
        positions = ticket.channels.channels(layer, int(transposed)) if ticket.channels else None
        if positions is not None:
            kept[layer] = positions.tolist()
    return kept
