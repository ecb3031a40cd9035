"""A random draw of tickets for every request, averaged."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.nested import tensors_in
from rtl_plugin.routing.contract import RoutingDecision, batch_size
from rtl_plugin.routing.generators import OwnGenerator
from rtl_plugin.routing.group_keys import checked_names
from rtl_plugin.routing.saved_fields import State, field, names_field

_PER = ("request", "sample")


class StochasticEnsembleRouter:
    """Draws n different tickets at random and averages their outputs with equal weights.

    An attacker who reads the gradients of one draw meets another one at the next request. That is
    no defence against one who averages over draws, see docs/serving.md.

    Args:
        tickets: a ticket set, or all ticket names in its order.
        n: how many tickets a draw, in 1..K.
        seed: for reproducible draws, or None for others in every process.
        per: ``"request"`` draws once a batch, ``"sample"`` once a sample.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind.

    Example:
        >>> router = StochasticEnsembleRouter(["a", "b", "c"], n=2, seed=0)
        >>> router.route(torch.zeros(4, 1)).weights.sum(dim=1)
        tensor([1., 1., 1., 1.], dtype=torch.float64)

    Source:
        Peng et al., Dynamic Stochastic Ensemble with Adversarial Robust Lottery Ticket
        Subnetworks, ML Safety Workshop 2022, openreview.net/forum?id=S7t4NzzRvse. There the sum
        of the drawn networks' outputs, which ranks classes as their mean does.
    """

    def __init__(
        self, tickets: Iterable[str], n: int, seed: int | None = None, per: str = "request"
    ) -> None:
        self.tickets = checked_names(tickets)
        self.n = whole_number("n", n, least=1)
        if self.n > len(self.tickets):
            raise InvalidArgument(
                f"n = {n} different tickets a draw, there are {len(self.tickets)}"
            )
        if per not in _PER:
            raise InvalidArgument(f"per must be one of {', '.join(_PER)}, got {per!r}")
        self.per = per
        self._generator = OwnGenerator(seed)

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Draw.

        Args:
            x: the network's first input; only its batch size and device count.
            context: not looked at.

        Returns:
            float64 weights [B, K], 1/n at the tickets drawn.

        Raises:
            InvalidArgument: there is no batch dimension.
        """
        size = batch_size(x)
        draws = size if self.per == "sample" else 1
        # The n largest of K independent uniform numbers are every n-subset equally often.
        drawn = self._generator.uniform(draws, len(self.tickets)).topk(self.n, dim=1).indices
        # In float32 one third is off by 1e-8, which an output in float64 would show.
        weights = torch.zeros(draws, len(self.tickets), dtype=torch.float64)
        weights.scatter_(1, drawn, 1 / self.n)
        device = next(tensors_in(x)).device
        return RoutingDecision(weights=weights.expand(size, -1).contiguous().to(device))

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``; the stream goes on where it stood."""
        return {
            "tickets": self.tickets,
            "n": self.n,
            "per": self.per,
            "generator": self._generator.state(),
        }

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "StochasticEnsembleRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: not needed.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        names, n, per = (
            names_field(state, "tickets"),
            field(state, "n", int),
            field(state, "per", str),
        )
        try:
            router = cls(names, n, per=per)
        except InvalidArgument as error:
            raise DamagedFile(f"the saved router is wrong: {error}") from error
        router._generator.restore(field(state, "generator", torch.Tensor))
        return router
