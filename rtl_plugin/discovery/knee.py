"""Let every ticket find its own sparsity."""

import math
from typing import Any

from torch import nn

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.discovery.iterative_pruning import discover
from rtl_plugin.discovery.sparsity_schedules import GeometricSchedule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.prunable import select_prunable
from rtl_plugin.tickets import TicketSet
from rtl_plugin.training_step import Loss


def prune_to_the_knee(
    model: nn.Module,
    groups: DataGroups,
    loss: Loss,
    *,
    rate: float = 0.2,
    limit: float = 0.99,
    rule: CollapseRule | None = None,
    **settings: Any,
) -> TicketSet:
    """Prune every ticket until its similarity with the others warns, each to its own sparsity.

    This is :func:`rtl_plugin.discover` with as many equal rounds as lead to ``limit``, and
    ``stop_before_collapse``.

    Args:
        model: as for ``discover``.
        groups: as for ``discover``, at least two.
        loss: as for ``discover``.
        rate: fraction of the survivors that a round removes, in (0, 1); smaller finds the place
            more exactly and takes more rounds.
        limit: sparsity at which a ticket that never rang stops, in (0, 1).
        rule: what counts as an abrupt change; None is the default rule.
        settings: every other argument of ``discover``.

    Returns:
        One ticket a group, of different densities; ``history`` says where each one rang.

    Raises:
        InvalidArgument: a number is out of range, ``schedule`` or ``stop_before_collapse`` was
            given too, or the limit is reached within the rule's warm-up.
        RtlError: whatever ``discover`` raises.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> batch = (torch.ones(2, 4), torch.ones(2, 1))
        >>> tickets = prune_to_the_knee(
        ...     model,
        ...     DataGroups.from_loaders({"a": [batch], "b": [batch]}),
        ...     lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
        ...     limit=0.6,
        ...     optimizer=lambda params: torch.optim.SGD(params, 0.1),
        ...     steps=2,
        ... )
        >>> tickets.names
        ('a', 'b')

    Source:
        Stefański, Presta, Byra, arXiv 2601.22141: stop pruning before subnetworks collapse.
    """
    taken = {"schedule", "stop_before_collapse"} & settings.keys()
    if taken:
        raise InvalidArgument(
            f"prune_to_the_knee sets {', '.join(sorted(taken))} itself: give rate, limit and rule, "
            "or call discover"
        )
    for name, value in (("rate", rate), ("limit", limit)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < 1:
            raise InvalidArgument(f"{name} must be a number in (0, 1), got {value!r}")
    if rule is not None and not isinstance(rule, CollapseRule):
        raise InvalidArgument(f"rule must be a CollapseRule or None, got {rule!r}")
    # Rounded up, so that no round removes more than the rate.
    rounds = math.ceil(math.log1p(-limit) / math.log1p(-rate) - 1e-9)
    prunable = sum(p.numel() for p in select_prunable(model, settings.get("prunable")).values())
    if rounds > prunable or (1 - limit) * prunable < 1:
        raise InvalidArgument(
            f"rate {rate} and limit {limit} make {rounds} rounds and leave "
            f"{(1 - limit) * prunable:.2g} of {prunable} prunable weights: use a larger rate or a "
            "smaller limit"
        )
    return discover(
        model, groups, loss, schedule=GeometricSchedule(limit, rounds=rounds),
        stop_before_collapse=True if rule is None else rule, **settings,
    )  # fmt: skip
