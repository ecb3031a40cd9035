"""Soft mixing of the few best tickets."""

from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.routing.contract import (
    RoutingDecision,
    needs_outputs,
    refuse_decide,
    refuse_route,
)
from rtl_plugin.routing.number_arguments import number
from rtl_plugin.routing.saved_fields import State, field


class TopNRouter:
    """Averages the n tickets that another router scores best.

    Weights are ``softmax(scores / temperature)``, set to zero outside the n largest and divided by
    their sum; confidence is the largest weight before that. Of equal scores the first tickets stay.

    Args:
        router: has ``scores(x) -> [B, K]``, higher is better, or ``scores(outputs)`` where it
            decides from outputs: ``NearestCentroidRouter``, ``ClassifierRouter``,
            ``ConfidenceRouter``, ``OneVsRestRouter``, or your own.
        n: how many tickets, in 1..K.
        temperature: positive, in units of the scores; small is nearly hard.

    Raises:
        InvalidArgument: the router scores nothing, or a number is out of range.

    Example:
        >>> class Prior:
        ...     def route(self, x, context=None):
        ...         return RoutingDecision(indices=torch.zeros(len(x), dtype=torch.long))
        ...     def scores(self, x):
        ...         return torch.tensor([[0.5, 0.25, 0.25]]).log().expand(len(x), 3)
        >>> TopNRouter(Prior(), n=2).route(torch.zeros(1, 1)).weights
        tensor([[0.6667, 0.3333, 0.0000]])

    Source:
        Shazeer et al., Outrageously Large Neural Networks, arXiv 1701.06538 (top-k gating, here
        without noise).
    """

    def __init__(self, router: Any, n: int, temperature: float = 1.0) -> None:
        if not callable(getattr(router, "scores", None)):
            raise InvalidArgument(
                f"TopNRouter needs a router with scores(x) -> [B, K], {type(router).__name__} has "
                "none: NearestCentroidRouter, ClassifierRouter, ConfidenceRouter and "
                "OneVsRestRouter have"
            )
        self.router = router
        self.n = whole_number("n", n, least=1)
        self.temperature = number("temperature", temperature, 1e-30)
        if self.tickets is not None:
            self._check_count(len(self.tickets))

    @property
    def needs_outputs(self) -> bool:
        """Whether the inner router scores outputs."""
        return needs_outputs(self.router)

    @property
    def tickets(self) -> tuple[str, ...] | None:
        """The tickets that the inner router was made for, where it says so."""
        return getattr(self.router, "tickets", None)

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Weigh the tickets by the inner router's scores of the input.

        Args:
            x: the network's first input.
            context: not looked at.

        Returns:
            Weights [B, K] and one confidence a sample.

        Raises:
            InvalidArgument: scores do not fit, or the inner router scores outputs.
        """
        if self.needs_outputs:
            raise refuse_route(self)
        return self._weighed(self.router.scores(x))

    def decide(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """As :meth:`route`, for an inner router that scores outputs.

        Args:
            outputs: tensor [B, K, C], the outputs of all tickets.
            context: not looked at.

        Returns:
            Weights [B, K] and one confidence a sample.

        Raises:
            InvalidArgument: scores do not fit, or the inner router scores the input.
        """
        if not self.needs_outputs:
            raise refuse_decide(self)
        return self._weighed(self.router.scores(outputs))

    def saved_state(self) -> State:
        """Everything a file needs besides the inner router, see ``router_codec``."""
        return {"n": self.n, "temperature": self.temperature}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], inner: Any) -> "TopNRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            inner: the inner router, decoded before.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        n, temperature = field(state, "n", int), field(state, "temperature", float)
        try:
            return cls(inner, n, temperature)
        except InvalidArgument as error:
            raise DamagedFile(f"the saved router is wrong: {error}") from error

    def _check_count(self, tickets: int) -> None:
        if self.n > tickets:
            raise InvalidArgument(f"n = {self.n} tickets to be mixed, there are {tickets}")

    def _weighed(self, scores: torch.Tensor) -> RoutingDecision:
        is_table = isinstance(scores, torch.Tensor) and scores.dim() == 2
        if not is_table or not scores.is_floating_point():
            came = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores)
            raise InvalidArgument(
                f"{type(self.router).__name__}.scores must give a floating tensor [B, K], got "
                f"{came}"
            )
        self._check_count(scores.shape[1])
        wide = scores if scores.dtype == torch.float64 else scores.float()
        # The largest becomes 0, so that no quotient overflows however small the temperature is.
        shifted = wide - wide.amax(dim=1, keepdim=True)
        weights = (shifted / self.temperature).softmax(dim=1)
        if torch.isnan(weights).any():
            raise InvalidArgument(
                f"{type(self.router).__name__}.scores gave NaN, infinity, or no finite score for a "
                "sample: nothing can be weighed by them"
            )
        order = weights.sort(dim=1, descending=True, stable=True).indices[:, : self.n]
        kept = torch.zeros_like(weights).scatter(1, order, weights.gather(1, order))
        confidence = weights.amax(dim=1)
        return RoutingDecision(weights=kept / kept.sum(dim=1, keepdim=True), confidence=confidence)
