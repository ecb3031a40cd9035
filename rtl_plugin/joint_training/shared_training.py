"""The working state of a joint retraining: shared leaves, each ticket's own tensors, updates."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin.joint_training.masked_update import MaskedUpdate, TicketUpdates
from rtl_plugin.joint_training.optimizer_rules import is_elementwise, placed
from rtl_plugin.masked_forward import (
    MaskedModel,
    TensorSlots,
    mask_parameters,
    masked_backward,
)
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import OptimizerFactory, build_optimizer
from rtl_plugin.structure import persistent_buffers
from rtl_plugin.tickets import Ticket, TicketSet
from rtl_plugin.training_step import (
    Loss,
    Where,
    check_finite,
    check_gradients,
    checked_loss,
)


class SharedTraining:
    """Trains tickets on a model's own parameters, one step of one ticket at a time.

    Args:
        model: the network; its parameters are trained in place.
        tickets: masks and state.
        private: names of the parameters of which every ticket has its own.
        optimizer: the user's factory, called once.
        device: where the model lives.
        own_statistics: False lets all tickets update one set of buffers.

    Raises:
        InvalidArgument: what the factory returns cannot be used.
        UnsupportedOptimizer: the optimizer's update is not element-wise.
    """

    def __init__(
        self,
        model: nn.Module,
        tickets: TicketSet,
        private: Sequence[str],
        optimizer: OptimizerFactory,
        device: torch.device,
        own_statistics: bool = True,
    ) -> None:
        self.model = model
        self._device = device
        self._slots = TensorSlots(model)
        self._shared = {n: p for n, p in model.named_parameters() if n not in private}
        self._private = {
            t.name: _private_leaves(model, t, private, device) for t in tickets.values()
        }
        own_buffers = {t.name: _own_buffers(model, t, device) for t in tickets.values()}
        self._buffers = own_buffers if own_statistics else _one_for_all(own_buffers)
        self._own_statistics = own_statistics
        self._finite_buffers = {
            name for name, buffer in model.named_buffers() if bool(torch.isfinite(buffer).all())
        }
        self._masks = {
            t.name: {name: mask.to(device) for name, mask in t.masks.items()}
            for t in tickets.values()
        }
        masked = {n: self._shared[n] for n in tickets.shapes if self._is_trained(n)}
        leaves: list[torch.Tensor] = [p for p in self._shared.values() if p.requires_grad]
        leaves += [leaf for own in self._private.values() for leaf in own.values()]
        self.optimizer, self.scheduler = build_optimizer(optimizer, leaves, masked)
        self._update = self._make_update(masked)

    def _is_trained(self, name: str) -> bool:
        """Whether an optimizer must hold a masked parameter; a frozen one is refused by name."""
        return True

    def _make_update(self, masked: Mapping[str, torch.Tensor]) -> TicketUpdates:
        self._masked_update = MaskedUpdate(self.optimizer, masked, self._masks)
        return self._masked_update

    def backward(self, ticket: str, batch: Any, loss: Loss, where: Where) -> torch.Tensor:
        """Forward and backward pass of one ticket; gradients replace the former ones."""
        parameters = {**self._shared, **self._private[ticket]}
        masked = mask_parameters(parameters, self._masks[ticket])
        view = MaskedModel(self.model, self._slots, masked, self._buffers[ticket])
        value = checked_loss(loss, view, to_device(batch, self._device), where)
        self.optimizer.zero_grad(set_to_none=True)
        masked_backward(view, value)
        return value.detach()

    def apply(self, ticket: str, where: Where, look: bool) -> None:
        """Step optimizer and scheduler with the gradients that are there, isolated.

        Args:
            ticket: whose gradients they are.
            where: for messages.
            look: first check that the gradients respect the mask.

        Raises:
            MaskBypassed: a weight outside the mask received a gradient.
            InvalidLoss: no masked weight received one.
        """
        if look:
            leaves = {name: self._shared[name] for name in self._masks[ticket]}
            check_gradients(leaves, self._masks[ticket], where)
        self._masked_update.step(ticket)
        if self.scheduler is not None:
            self.scheduler.step()

    def check_finite(self, where: object) -> None:
        """Refuse weights and own tensors that are not finite.

        Args:
            where: for the message.

        Raises:
            TrainingDiverged: naming the first that is not.
        """
        check_finite({n: p for n, p in self._shared.items() if p.requires_grad}, where)
        for ticket, buffers in self._buffers.items():
            moved = {n: b for n, b in buffers.items() if n in self._finite_buffers}
            check_finite({**self._private[ticket], **moved}, f"{where}, ticket {ticket!r}")

    def publish(self, tickets: TicketSet) -> None:
        """Put copies of each ticket's own tensors into its state."""
        for name, ticket in tickets.items():
            own = {n: self._buffers[name][n] for n in persistent_buffers(self.model)}
            own |= {n: leaf.detach() for n, leaf in self._private[name].items()}
            ticket.state.update({n: value.clone() for n, value in own.items()})

    def state(self) -> dict[str, Any]:
        """Everything a resumed training needs, beside the model's parameters."""
        masked = {id(leaf) for leaf in self._update.parameters.values()}
        ordinary = {
            position: dict(self.optimizer.state.get(leaf, {}))
            for position, leaf in enumerate(self._optimizer_leaves())
            if id(leaf) not in masked
        }
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        return {
            "masked": self._update.state(),
            "ordinary": ordinary,
            "groups": groups,
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "private": {t: {n: x.detach() for n, x in o.items()} for t, o in self._private.items()},
            "buffers": self._buffers,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state`."""
        self._update.load_state(state["masked"])
        groups = self.optimizer.param_groups
        held = [(leaf, group) for group in groups for leaf in group["params"]]
        for position, entries in state["ordinary"].items():
            if entries:
                leaf, group = held[position]
                self.optimizer.state[leaf] = {
                    key: placed(value, leaf) if _lies_with(value, leaf, group) else value
                    for key, value in entries.items()
                }
        for group, saved in zip(groups, state["groups"], strict=True):
            group.update({key: placed(value, group.get(key)) for key, value in saved.items()})
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        with torch.no_grad():
            for ticket, own in self._private.items():
                for name, leaf in own.items():
                    leaf.copy_(state["private"][ticket][name])
        loaded = {
            ticket: {n: value.to(self._device) for n, value in buffers.items()}
            for ticket, buffers in state["buffers"].items()
        }
        self._buffers = loaded if self._own_statistics else _one_for_all(loaded)

    def _optimizer_leaves(self) -> list[torch.Tensor]:
        return [leaf for group in self.optimizer.param_groups for leaf in group["params"]]


def _one_for_all(
    buffers: dict[str, dict[str, torch.Tensor]],
) -> dict[str, dict[str, torch.Tensor]]:
    return dict.fromkeys(buffers, next(iter(buffers.values())))


def _lies_with(value: Any, leaf: torch.Tensor, group: Mapping[str, Any]) -> bool:
    """Whether state lies on its parameter's device; step counts do only where kernels read them."""
    on_device = bool(group.get("fused") or group.get("capturable"))
    return is_elementwise(value, leaf) or on_device


def _private_leaves(
    model: nn.Module, ticket: Ticket, private: Sequence[str], device: torch.device
) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters())
    return {
        name: ticket.state.get(name, parameters[name]).detach().to(device).clone().requires_grad_()
        for name in private
    }


def _own_buffers(model: nn.Module, ticket: Ticket, device: torch.device) -> dict[str, torch.Tensor]:
    return {
        name: ticket.state.get(name, buffer).detach().to(device).clone()
        for name, buffer in model.named_buffers()
    }
