"""The methods of a comparison: adaptive tickets, three baselines, three ablations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from rtl_plugin.baselines.seed_run import SeedRun
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture import MixtureOfMasks
from rtl_plugin.tickets import TicketSet


@dataclass(frozen=True)
class TrainedMethod:
    """What a method leaves behind.

    Args:
        method: its name.
        predictors: group name -> plain eval-mode module for that group's samples.
        parameters: prunable weights that at least one ticket keeps, summed over models.
        bytes: weights once a model, masks at one bit a weight, every ticket's own state.
        single: one model decides about all classes.
        tickets: the retrained tickets, one set a model.
    """

    method: str
    predictors: Mapping[str, nn.Module]
    parameters: int
    bytes: int
    single: bool
    tickets: tuple[TicketSet, ...]


def adaptive_tickets(run: SeedRun) -> TrainedMethod:
    """RTL: one ticket a group, retrained jointly, statistics private."""
    return _shared("adaptive tickets", run, run.adaptive_tickets)


def shared_statistics(run: SeedRun) -> TrainedMethod:
    """Ablation: the same tickets, but one set of normalisation statistics for all."""
    return _shared("shared statistics", run, run.adaptive_tickets, own_statistics=False)


def shared_mask(run: SeedRun) -> TrainedMethod:
    """Ablation: one mask for all groups, statistics private."""
    return _shared("shared mask", run, run.shared_mask_tickets())


def random_tickets(run: SeedRun) -> TrainedMethod:
    """Ablation: random tickets of the same sparsity, statistics private.

    They need no discovery, so they retrain for as many batches more.
    """
    return _shared("random tickets", run, run.random_tickets(), discovered=False)


def imp_single(run: SeedRun) -> TrainedMethod:
    """Baseline: iterative magnitude pruning of one model on all data."""
    return _single("IMP single", run, run.pooled_ticket, masked=True)


def dense(run: SeedRun) -> TrainedMethod:
    """Baseline: one dense model on all data, trained for the discovery's batches too."""
    return _single("dense", run, run.full_ticket(), masked=False)


def imp_multiple(run: SeedRun) -> TrainedMethod:
    """Baseline: K models, one a group, pruned and trained apart."""
    predictors, sets, parameters, size = {}, [], 0, 0
    for group in run.groups:
        model, tickets = run.retrain_alone(run.adaptive_tickets, group)
        predictors[group] = MixtureOfMasks(model, tickets).export(group)
        parameters += tickets.active_parameters()
        size += _stored_bytes(model, tickets, masked=True)
        sets.append(tickets)
    return TrainedMethod("IMP multiple", predictors, parameters, size, False, tuple(sets))


METHODS: Mapping[str, Callable[[SeedRun], TrainedMethod]] = {
    "adaptive tickets": adaptive_tickets,
    "IMP single": imp_single,
    "IMP multiple": imp_multiple,
    "dense": dense,
    "shared mask": shared_mask,
    "random tickets": random_tickets,
    "shared statistics": shared_statistics,
}

# These train one model on all groups' data together.
POOLED_METHODS = ("IMP single", "dense")


def method_named(name: str) -> Callable[[SeedRun], TrainedMethod]:
    """The method of a name.

    Args:
        name: a key of ``METHODS``.

    Returns:
        A function from a seed's run to the trained method.

    Raises:
        InvalidArgument: there is no such method.

    Example:
        >>> method_named("dense") is dense
        True
    """
    if name not in METHODS:
        raise InvalidArgument(f"unknown method {name!r}: one of {', '.join(METHODS)}")
    return METHODS[name]


def _shared(
    name: str,
    run: SeedRun,
    tickets: TicketSet,
    *,
    own_statistics: bool = True,
    discovered: bool = True,
) -> TrainedMethod:
    folder = name.replace(" ", "-")
    model, trained = run.retrain_tickets(
        tickets, folder, own_statistics=own_statistics, discovered=discovered
    )
    mixture = MixtureOfMasks(model, trained)
    predictors = {group: mixture.export(group) for group in run.groups}
    size = _stored_bytes(model, trained, masked=True)
    return TrainedMethod(name, predictors, trained.active_parameters(), size, False, (trained,))


def _single(name: str, run: SeedRun, ticket: TicketSet, masked: bool) -> TrainedMethod:
    model, trained = run.retrain_single(ticket, name.replace(" ", "-"), discovered=masked)
    plain = MixtureOfMasks(model, trained).export("all")
    size = _stored_bytes(model, trained, masked)
    predictors = dict.fromkeys(run.groups, plain)
    return TrainedMethod(name, predictors, trained.active_parameters(), size, True, (trained,))


def _stored_bytes(model: nn.Module, tickets: TicketSet, masked: bool) -> int:
    weights = sum(parameter.nbytes for parameter in model.parameters())
    masks = sum((mask.numel() + 7) // 8 for t in tickets.values() for mask in t.masks.values())
    state = sum(value.nbytes for ticket in tickets.values() for value in ticket.state.values())
    return weights + state + (masks if masked else 0)
