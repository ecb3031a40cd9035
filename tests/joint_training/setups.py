"""Optimizers of every kind, and ways to look at a retraining from outside."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from rtl_plugin import DataGroups, RetrainReport, TicketSet, retrain
from tests.discovery.setups import copied, cross_entropy

Factory = Callable[[Any], Any]

OPTIMIZERS: dict[str, Factory] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05),
    "SGD momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "SGD nesterov": lambda p: torch.optim.SGD(
        p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1, maximize=False
    ),
    "Adam": lambda p: torch.optim.Adam(p, 0.01),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3, fused=True),
    "AdamW tensor lr": lambda p: torch.optim.AdamW(p, torch.tensor(0.01), weight_decay=0.3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.05, initial_accumulator_value=0.1, lr_decay=0.1),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": lambda p: torch.optim.RAdam(p, 0.01, betas=(0.5, 0.7)),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.01, weight_decay=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1.0, weight_decay=0.1),
    "ASGD": lambda p: torch.optim.ASGD(p, 0.05, t0=1, lambd=0.01, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.01),
}
MAIN = ("SGD momentum", "Adam", "AdamW")


def trained(
    model: nn.Module,
    tickets: TicketSet,
    groups: DataGroups,
    loss: Any = cross_entropy,
    **others: Any,
) -> RetrainReport:
    """Retrain for two epochs with AdamW, unless told otherwise."""
    settings = {"epochs": 2, "optimizer": OPTIMIZERS["AdamW"], "progress": False, **others}
    return retrain(model, tickets, groups, loss, **settings)


class Observed:
    """A factory and a loss that compare everything shared before and after every step.

    The loss is called before each step, so what differs between two calls is one ticket's step.
    """

    def __init__(self, model: nn.Module, tickets: TicketSet, factory: Factory) -> None:
        self._model, self._tickets, self._factory = model, tickets, factory
        self._parameters = dict(model.named_parameters())
        self._last: tuple[str, dict[str, torch.Tensor]] | None = None
        self.steps: list[str] = []
        self.moved_inside, self.filled_outside, self.gradients_seen = 0, 0, 0
        self.current = ""

    def factory(self, parameters: Any) -> Any:
        built = self._factory(parameters)
        self.optimizer = built[0] if isinstance(built, tuple) else built
        self.optimizer.register_step_pre_hook(self._check_gradients)
        return built

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        self.check()
        self.current = batch[2] if isinstance(batch[2], str) else batch[2][0]
        self._last = self.current, self._everything()
        self.steps.append(self.current)
        return cross_entropy(model, batch)

    def check(self) -> None:
        """Compare with the state before the last step."""
        if self._last is None:
            return
        group, before = self._last
        now = self._everything()
        for key, value in now.items():
            mask = self._tickets[group].masks[key.split("|")[0]]
            earlier = before.get(key, torch.zeros_like(value))
            outside = same_bits_at(value, earlier, ~mask)
            assert outside, f"step of {group!r} changed {key} outside its mask"
            self.moved_inside += int((value != earlier)[mask].sum())
            if "|" in key:
                self.filled_outside += int((value != 0)[~mask].sum())
        self._last = None

    def _everything(self) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for name in self._tickets.shapes:
            parameter = self._parameters[name]
            found[name] = parameter
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    found[f"{name}|{key}"] = value
        return copied(found)

    def _check_gradients(self, *_: Any) -> None:
        for name, mask in self._tickets[self.current].masks.items():
            gradient = self._parameters[name].grad
            assert gradient is not None
            assert not bool(gradient[~mask].any()), f"gradient of {name} outside {self.current!r}"
            self.gradients_seen += int((gradient != 0).sum())


def same_bits_at(first: torch.Tensor, second: torch.Tensor, where: torch.Tensor) -> bool:
    kind = torch.int64 if first.element_size() == 8 else torch.int32
    return torch.equal(first[where].view(kind), second[where].view(kind))


def with_scheduler(factory: Factory, make: Callable[[Any], LRScheduler]) -> Factory:
    """A factory of a pair."""

    def pair(parameters: Any) -> Any:
        optimizer = factory(parameters)
        return optimizer, make(optimizer)

    return pair


def clipped(factory: Factory, norm: float, seen: list[float] | None = None) -> Factory:
    """A factory whose optimizer clips the gradient norm before every step."""

    def build(parameters: Any) -> Any:
        optimizer = factory(parameters)

        def clip(*_: Any) -> None:
            before = torch.nn.utils.clip_grad_norm_(parameters, norm)
            if seen is not None:
                seen.append(float(before))

        optimizer.register_step_pre_hook(clip)
        return optimizer

    return build


def masked_weights(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a ticket keeps: parameter name -> kept values."""
    return {n: p.detach()[masks[n]].clone() for n, p in model.named_parameters() if n in masks}
