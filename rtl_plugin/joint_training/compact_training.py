"""Joint retraining of channel tickets: every step runs the ticket's small network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.compact_network import compact_with, write_back
from rtl_plugin.errors import InvalidLoss, MaskBypassed, TrainingDiverged
from rtl_plugin.joint_training.gathered_update import GatheredUpdate
from rtl_plugin.joint_training.masked_update import TicketUpdates
from rtl_plugin.joint_training.shared_training import SharedTraining
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.tickets import TicketSet
from rtl_plugin.training_step import Loss, Where, checked_loss


class CompactTraining(SharedTraining):
    """Trains channel tickets on a model's own parameters through their small networks.

    The loss receives the small network itself. Its parameters are gathered from the shared ones
    before every step, and the optimizer's update is written back to where they came from: a step
    costs what the small network costs, and it is right where a norm looks across channels.

    Args:
        model: the network; its parameters are trained in place.
        tickets: channel tickets.
        private: names of the parameters of which every ticket has its own.
        optimizer: the user's factory, called once.
        device: where the model lives.
        own_statistics: False lets all tickets update one set of buffers.

    Raises:
        InvalidArgument: what the factory returns cannot be used.
        UnsupportedOptimizer: the optimizer's update is not element-wise.

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 2.
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
        self._plans: dict[str, ChannelPlan] = {
            t.name: t.channels.to(device) for t in tickets.values() if t.channels is not None
        }
        super().__init__(model, tickets, private, optimizer, device, own_statistics)
        self._networks = {t: compact_with(model, plan, {}) for t, plan in self._plans.items()}
        self._places = {t: dict(net.named_parameters()) for t, net in self._networks.items()}
        for ticket in self._networks:
            self._load_buffers(ticket)
        self._small: dict[str, nn.Parameter] = {}

    def _is_trained(self, name: str) -> bool:
        # Cutting channels cuts frozen parameters too; they stay as they are.
        return self._shared[name].requires_grad

    def _make_update(self, masked: Mapping[str, torch.Tensor]) -> TicketUpdates:
        maps = {ticket: plan.maps for ticket, plan in self._plans.items()}
        self._gathered_update = GatheredUpdate(self.optimizer, masked, maps)
        return self._gathered_update

    def backward(self, ticket: str, batch: Any, loss: Loss, where: Where) -> torch.Tensor:
        """Forward and backward pass of one small network; gradients replace the former ones."""
        sources = {**self._shared, **self._private[ticket]}
        maps = self._plans[ticket].maps
        places = self._places[ticket]
        for name, place in places.items():
            whole = sources[name].detach()
            place.data = maps[name].gather(whole) if name in maps else whole
            place.grad = None
        if not self._own_statistics:
            self._load_buffers(ticket)
        self.optimizer.zero_grad(set_to_none=True)
        network = self._networks[ticket]
        network.train()  # an earlier loss may have said eval()
        value = checked_loss(loss, network, to_device(batch, self._device), where)
        value.backward()
        if not self._own_statistics:
            self._collect_buffers(ticket)
        self._take_gradients(sources, places, where)
        return value.detach()

    def _take_gradients(
        self, sources: Mapping[str, torch.Tensor], places: Mapping[str, nn.Parameter], where: Where
    ) -> None:
        """Hand the small network's gradients to the leaves, or set them aside for the update."""
        self._small = {}
        for name, place in places.items():
            leaf = sources[name]
            if leaf.grad is not None:
                raise MaskBypassed(
                    f"{where}: the loss used the model's own {name!r} instead of the ticket's: "
                    "call the model that it is given, not another reference to it"
                )
            if place.grad is None:
                continue
            if name in self._update.parameters:
                self._small[name] = place
            else:
                leaf.grad = place.grad

    def apply(self, ticket: str, where: Where, look: bool) -> None:
        """Step optimizer and scheduler with the gradients that are there, isolated.

        Args:
            ticket: whose gradients they are.
            where: for messages.
            look: first check that there are gradients.

        Raises:
            InvalidLoss: no masked parameter received a gradient.
            TrainingDiverged: a gradient is NaN or infinite.
        """
        if look:
            self._check_gradients(where)
        self._gathered_update.step(ticket, self._small)
        if self.scheduler is not None:
            self.scheduler.step()

    def _check_gradients(self, where: Where) -> None:
        if self._update.parameters and not self._small:
            raise InvalidLoss(
                f"{where}: no parameter that was cut received a gradient: the loss must depend on "
                f"{', '.join(list(self._update.parameters)[:3])}"
            )
        for name, place in self._small.items():
            if place.grad is not None and not bool(torch.isfinite(place.grad).all()):
                raise TrainingDiverged(
                    f"{where}: the loss is finite, but its gradient for {name!r} is not (a root or "
                    "logarithm at zero does that): make the loss differentiable where it is used"
                )

    def check_finite(self, where: object) -> None:
        """As in :class:`SharedTraining`."""
        self._collect_all()
        super().check_finite(where)

    def publish(self, tickets: TicketSet) -> None:
        """As in :class:`SharedTraining`."""
        self._collect_all()
        super().publish(tickets)

    def state(self) -> dict[str, Any]:
        """As in :class:`SharedTraining`."""
        self._collect_all()
        return super().state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """As in :class:`SharedTraining`."""
        super().load_state(state)
        for ticket in self._networks:
            self._load_buffers(ticket)

    def _load_buffers(self, ticket: str) -> None:
        maps = self._plans[ticket].maps
        with torch.no_grad():
            for name, buffer in self._networks[ticket].named_buffers():
                whole = self._buffers[ticket][name]
                buffer.copy_(maps[name].gather(whole) if name in maps else whole)

    def _collect_buffers(self, ticket: str) -> None:
        for name, buffer in self._networks[ticket].named_buffers():
            write_back(self._plans[ticket], name, buffer, self._buffers[ticket][name])

    def _collect_all(self) -> None:
        if self._own_statistics:  # otherwise every step has collected its own
            for ticket in self._networks:
                self._collect_buffers(ticket)
