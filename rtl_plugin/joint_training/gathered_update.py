"""One optimizer step of one channel ticket, on its small tensors alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from rtl_plugin.index_map import IndexMap
from rtl_plugin.joint_training.masked_update import TicketUpdates
from rtl_plugin.joint_training.optimizer_rules import is_elementwise

Maps = Mapping[str, IndexMap]


class GatheredUpdate(TicketUpdates):
    """Steps an optimizer for one channel ticket at a time on weights that tickets share.

    What :class:`MaskedUpdate` does for masks: weights and moments outside the ticket stay
    bit-identical. But the optimizer only sees the ticket's entries, so that a step costs what a
    step of the small network costs. During the step the shared leaves themselves hold the small
    tensors, and so an optimizer's hooks (gradient clipping) work on the tensors they know.

    Args:
        optimizer: fresh; any whose update is element-wise.
        parameters: masked parameter name -> the leaf that the optimizer holds.
        maps: ticket name -> its index maps by parameter name; a parameter without one is whole.

    Raises:
        UnsupportedOptimizer: the optimizer's update is not element-wise.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.5)
        >>> maps = {"a": {"w": IndexMap((2,), (torch.tensor([0]),))}}
        >>> update = GatheredUpdate(optimizer, {"w": weight}, maps)
        >>> small = maps["a"]["w"].gather(weight.detach())
        >>> small.grad = torch.ones(1)
        >>> update.step("a", {"w": small}); weight.detach()
        tensor([0.8500, 1.0000])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 2 and Eq. 7.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, torch.Tensor],
        maps: Mapping[str, Maps],
    ) -> None:
        super().__init__(optimizer, parameters, maps)
        self._maps = maps

    def step(self, ticket: str, small: Mapping[str, torch.Tensor]) -> None:
        """Step the optimizer for one ticket.

        Args:
            ticket: whose gradients they are.
            small: parameter name -> the ticket's present small tensor, with its gradient; it is
                updated too. A parameter that is not named, is left out of the step.

        Raises:
            UnsupportedOptimizer: it makes element-wise state later than in a first step.
        """
        maps = self._maps[ticket]
        with torch.no_grad(), self._holding_small(ticket, small) as moments:
            self._optimizer.step()
            for name in small:
                self._keep(ticket, name, maps.get(name), moments[name])

    @contextmanager
    def _holding_small(
        self, ticket: str, tensors: Mapping[str, torch.Tensor]
    ) -> Iterator[dict[str, dict[str, torch.Tensor]]]:
        """Shared leaves and their state hold the ticket's small tensors; yields full moments."""
        whole = {name: self.parameters[name].data for name in tensors}
        moments: dict[str, dict[str, torch.Tensor]] = {}
        try:
            for name, tensor in tensors.items():
                leaf, index_map = self.parameters[name], self._maps[ticket].get(name)
                state = self._optimizer.state[leaf]
                moments[name] = {k: v for k, v in state.items() if is_elementwise(v, leaf)}
                if index_map is not None:
                    leaf.data = tensor.detach()
                    state.update({k: index_map.gather(v) for k, v in moments[name].items()})
                leaf.grad = tensor.grad
                state.update(self._single[ticket][name])
            yield moments
        finally:
            for name, values in whole.items():
                leaf, index_map = self.parameters[name], self._maps[ticket].get(name)
                small, leaf.grad = leaf.data, None
                if index_map is not None and small is not values:
                    index_map.scatter(small, values)
                    leaf.data = values
                self._optimizer.state[leaf].update(moments.get(name, {}))

    def _keep(
        self,
        ticket: str,
        name: str,
        index_map: IndexMap | None,
        moments: Mapping[str, torch.Tensor],
    ) -> None:
        """Write small moments to their places, and set single values aside for the ticket."""
        leaf = self.parameters[name]
        state: dict[str, Any] = self._optimizer.state[leaf]
        for key in list(state):
            value = state[key]
            if key in moments:
                if index_map is not None:
                    index_map.scatter(value, moments[key])
                elif value is not moments[key]:
                    moments[key].copy_(value)
            elif is_elementwise(value, leaf):
                raise self._too_late(key, name)
            else:
                self._single[ticket][name][key] = value
                del state[key]
