"""Joint retraining of tickets through the users' evaluators, taking turns."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rtl_nni.achieved import check_trained
from rtl_nni.bare_model import BareModel
from rtl_nni.config_check import refuse_wrapped
from rtl_nni.data_order import DataOrder
from rtl_nni.evaluator_binding import bind_to_names, evaluators_by_group
from rtl_nni.host_run import train
from rtl_nni.host_types import Pruner
from rtl_nni.pruner_source import Training
from rtl_nni.target_traps import uses_of
from rtl_plugin.integration_api import (
    InvalidArgument,
    RewindPoint,
    StructureMismatch,
    Ticket,
    TicketSet,
    UnknownTicket,
    Where,
    check_finite,
    values_fingerprint,
    whole_number,
    write_nni_masks,
)

Tensors = dict[str, torch.Tensor]


def retrain(
    model: nn.Module,
    tickets: TicketSet,
    evaluators: Mapping[str, Any],
    *,
    turns: int,
    steps: int | None = None,
    epochs: int | None = None,
    allow_other_weights: bool = False,
    seed: int | None = None,
) -> None:
    """Train all tickets on shared weights through NNI evaluators, one group after the other.

    In every turn each group's evaluator trains under the group's masks; whatever it did to weights
    outside them is put back, so that a ticket moves its own weights (and what no mask covers) only.
    NNI builds optimizers and schedulers afresh whenever it binds a model, so their state does not
    outlive a turn; ``rtl_plugin.retrain`` keeps it, where the loss is at hand.

    Args:
        model: the shared network, unwrapped; its parameters are changed, its buffers are not.
        tickets: masks stay; each ticket's own state (batch-norm statistics) is renewed.
        evaluators: group -> NNI evaluator, one for every ticket.
        turns: how often every group has its turn.
        steps: optimizer steps of a turn.
        epochs: instead of ``steps``.
        allow_other_weights: train on from weights that the tickets were not found on.
        seed: None draws on from the present random state; a whole number gives every turn a
            stream of its own.

    Raises:
        InvalidArgument: an argument is out of range, or an optimizer does not hold the model's
            parameters.
        UnknownTicket: evaluators and tickets have different names.
        StructureMismatch: the tickets do not fit the model, or were found on other weights.
        CompactOnly: the masked network is not the small one.
        PruningFailed: a weight did not move.
        TrainingDiverged: a weight is NaN or infinite.

    After an exception model and tickets are as before.

    Example:
        >>> import nni
        >>> from rtl_nni import torch_evaluators
        >>> model = nn.Linear(2, 1)
        >>> masks = {"a": {"": {"weight": torch.tensor([[1.0, 0.0]])}}}
        >>> evaluators = torch_evaluators(
        ...     model,
        ...     {"a": [torch.ones(4, 2)]},
        ...     training_step=lambda batch, model: model(batch).square().mean(),
        ...     optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
        ... )
        >>> outside = model.weight[0, 1].item()
        >>> retrain(model, TicketSet.from_nni(masks, model), evaluators, turns=2, epochs=1)
        >>> model.weight[0, 1].item() == outside
        True

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, joint retraining.
    """
    training = Training.checked(steps, epochs)
    if (training.steps or 0) == 0 and training.epochs is None:
        raise InvalidArgument("retrain needs steps= of at least 1, or epochs=")
    whole_number("turns", turns, 1)
    bound = evaluators_by_group(evaluators, None)
    _check(model, tickets, bound)
    found_here = _found_on(model, tickets, allow_other_weights)
    bind_to_names(bound, model)
    order = DataOrder(bound, None if seed is None else whole_number("seed", seed, 0))
    with BareModel(model) as bare:
        shared = _Shared(bare, tickets, from_rewind_state=found_here)
        for turn in range(1, turns + 1):
            for group, evaluator in bound.items():
                own = contextlib.nullcontext() if seed is None else order.rewound(turn, group)
                with own:
                    shared.take_turn(group, evaluator, training, turn)
    shared.install(model, tickets)


def _check(model: nn.Module, tickets: TicketSet, evaluators: Mapping[str, Any]) -> None:
    refuse_wrapped(model)
    if set(evaluators) != set(tickets):
        raise UnknownTicket(
            f"evaluators are for {', '.join(map(repr, evaluators))}, the tickets are "
            f"{', '.join(map(repr, tickets))}: give one evaluator a ticket"
        )
    tickets.check_fits(model)
    for name in tickets.shapes:
        uses = uses_of(model, name)
        if len(uses) > 1:
            raise InvalidArgument(
                f"{name!r} is tied ({', '.join(uses)}), and NNI unties it when it wraps the layer, "
                "so the other use would train without the mask: use rtl_plugin.retrain"
            )
    tickets.check_maskable("retraining through NNI evaluators")


def _found_on(model: nn.Module, tickets: TicketSet, other_weights: bool) -> bool:
    """Whether the model holds the weights that the tickets were found on."""
    expected = tickets.theta_0
    if expected is None or values_fingerprint(dict(model.named_parameters())) == expected:
        return True
    if not other_weights:
        raise StructureMismatch(
            "the model's weights are not those that the tickets were found on: load these, or pass "
            "allow_other_weights=True to train on from the present ones"
        )
    return False


class _Shared:
    """The shared weights and every ticket's own state while turns are taken."""

    def __init__(self, bare: BareModel, tickets: TicketSet, from_rewind_state: bool) -> None:
        self._bare, self._tickets = bare, tickets
        self._weights: Tensors = dict(bare.start.parameters)
        if from_rewind_state and tickets.rewind_state is not None:
            own = {n: v for n, v in tickets.rewind_state.items() if n in self._weights}
            self._weights.update({n: v.to(self._weights[n]) for n, v in own.items()})
        self._states = {name: dict(ticket.state) for name, ticket in tickets.items()}

    def take_turn(self, group: str, evaluator: Any, training: Training, turn: int) -> None:
        """One group's training under its masks, on the shared weights."""
        ticket, state, model = self._tickets[group], self._states[group], self._bare.model
        where = Where("retrain", group, "turn", turn)
        point = self._point(state)
        self._bare.rewind(point, where)
        pruner = _under_masks(model, ticket)
        names = pruner._get_param_names_map()
        train(model, evaluator, training, names)
        check_trained(point.parameters, model, names, pruner.get_masks(), where)
        trained = dict(model.named_parameters())
        for name, before in point.parameters.items():
            value = trained[names[name]].detach().to(before.device, copy=True)
            if name in ticket.masks:
                value = torch.where(ticket.masks[name].to(value.device), value, before)
            (state if name in state else self._weights)[name] = value
        buffers, start = dict(model.named_buffers()), point.buffers
        own = {n: buffers[n].detach().to(start[n].device, copy=True) for n in point.persistent}
        check_finite(own, where)
        state.update(own)

    def _point(self, state: Tensors) -> RewindPoint:
        start = self._bare.start
        parameters = {n: state.get(n, v).to(v) for n, v in self._weights.items()}
        buffers = {n: state.get(n, v).to(v) for n, v in start.buffers.items()}
        return replace(start, parameters=parameters, buffers=buffers)

    def install(self, model: nn.Module, tickets: TicketSet) -> None:
        """Make the trained weights the model's, the states the tickets'."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self._weights[name])
        for name, state in self._states.items():
            tickets[name].state.update(state)


def _under_masks(model: nn.Module, ticket: Ticket) -> Any:
    """The model wrapped by NNI with a ticket's masks."""
    masks = write_nni_masks(ticket.masks)
    config = [{"op_names": [module], "target_names": list(t)} for module, t in masks.items()]
    try:
        pruner = Pruner(model, config)
    except (AssertionError, KeyError) as error:
        raise InvalidArgument(
            f"NNI cannot mask what ticket {ticket.name!r} masks ({error}): use rtl_plugin.retrain"
        ) from error
    pruner.update_masks(masks)
    return pruner
