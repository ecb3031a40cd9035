"""One optimizer step of one ticket: nothing outside its mask moves, not even a moment."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rtl_plugin.errors import UnsupportedOptimizer
from rtl_plugin.joint_training.optimizer_rules import (
    check_elementwise,
    initial_state,
    is_elementwise,
    placed,
)

Masks = Mapping[str, torch.Tensor]


class TicketUpdates:
    """An optimizer's state over weights that tickets share: moments once, single values a ticket.

    Args:
        optimizer: fresh; any whose update is element-wise.
        parameters: masked parameter name -> the leaf that the optimizer holds.
        tickets: names of the tickets.

    Raises:
        UnsupportedOptimizer: the optimizer's update is not element-wise.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, torch.Tensor],
        tickets: Iterable[str],
    ) -> None:
        check_elementwise(optimizer)
        self._optimizer = optimizer
        self.parameters = dict(parameters)
        self._single: dict[str, dict[str, dict[str, Any]]] = {ticket: {} for ticket in tickets}
        self._fill_initial_state()

    def _fill_initial_state(self) -> None:
        names, leaves = list(self.parameters), list(self.parameters.values())
        for name, leaf, state in zip(
            names, leaves, initial_state(self._optimizer, leaves), strict=True
        ):
            single = {key: value for key, value in state.items() if not is_elementwise(value, leaf)}
            for of_ticket in self._single.values():
                of_ticket[name] = {key: _copy(value) for key, value in single.items()}
            self._optimizer.state[leaf] = {k: v for k, v in state.items() if k not in single}

    def state(self) -> dict[str, Any]:
        """Everything a resumed training needs, for :meth:`load_state`."""
        named = {name: dict(self._optimizer.state[leaf]) for name, leaf in self.parameters.items()}
        return {"shared": named, "per_ticket": self._single}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state`.

        Args:
            state: as saved; tensors are moved to the parameters' devices.
        """
        for name, leaf in self.parameters.items():
            entries = state["shared"][name].items()
            self._optimizer.state[leaf] = {key: placed(value, leaf) for key, value in entries}
        for ticket, fresh in self._single.items():
            for name, entries in state["per_ticket"][ticket].items():
                # A step count lies on the CPU or the GPU, as the optimizer wants it.
                fresh[name] = {k: placed(v, fresh[name].get(k)) for k, v in entries.items()}

    def _too_late(self, key: str, name: str) -> UnsupportedOptimizer:
        return UnsupportedOptimizer(
            f"{type(self._optimizer).__name__} made its state {key!r} of {name!r} later than in a "
            "first step, so a ticket's update cannot be isolated. Use SGD, Adam, AdamW or the like"
        )


class MaskedUpdate(TicketUpdates):
    """Steps an optimizer for one ticket at a time on weights that tickets share.

    After ``step(k)`` every weight outside ticket k's masks and every element-wise state entry
    (moment) there is bit-identical to before. State with one value a parameter, such as Adam's
    step count, is kept per ticket for masked parameters, so tickets with disjoint masks train as
    each would alone.

    Args:
        optimizer: fresh; any whose update is element-wise.
        parameters: masked parameter name -> the leaf that the optimizer holds.
        masks: ticket name -> its masks over those names, on the parameters' device.

    Raises:
        UnsupportedOptimizer: the optimizer's update is not element-wise.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5)
        >>> masks = {"a": {"w": torch.tensor([True, False])}}
        >>> update = MaskedUpdate(optimizer, {"w": weight}, masks)
        >>> weight.grad = torch.ones(2)
        >>> update.step("a"); weight.detach()
        tensor([0.8500, 1.0000])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 2 and Eq. 7.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, torch.Tensor],
        masks: Mapping[str, Masks],
    ) -> None:
        super().__init__(optimizer, parameters, masks)
        self._masks = masks

    def step(self, ticket: str) -> None:
        """Step the optimizer with the gradients that are there, for one ticket.

        Args:
            ticket: whose gradients they are.

        Raises:
            UnsupportedOptimizer: it makes element-wise state later than in a first step.
        """
        active = {n: p for n, p in self.parameters.items() if p.grad is not None}
        before = {name: self._snapshot(ticket, name, leaf) for name, leaf in active.items()}
        self._optimizer.step()
        with torch.no_grad():
            for name, leaf in active.items():
                self._restore(ticket, name, leaf, *before[name])

    def _snapshot(
        self, ticket: str, name: str, leaf: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        state = self._optimizer.state[leaf]
        moments = {k: v.clone() for k, v in state.items() if is_elementwise(v, leaf)}
        state.update(self._single[ticket][name])
        return leaf.detach().clone(), moments

    def _restore(
        self,
        ticket: str,
        name: str,
        leaf: torch.Tensor,
        weight: torch.Tensor,
        moments: Mapping[str, torch.Tensor],
    ) -> None:
        mask, state = self._masks[ticket][name], self._optimizer.state[leaf]
        torch.where(mask, leaf, weight, out=leaf)
        single = self._single[ticket][name]
        for key in list(state):
            value = state[key]
            if is_elementwise(value, leaf):
                if key not in moments:
                    raise self._too_late(key, name)
                torch.where(mask, value, moments[key], out=value)
            else:
                single[key] = value
                del state[key]


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
