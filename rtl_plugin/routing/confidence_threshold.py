"""Any router's confidence turned into a fallback for samples that no ticket knows."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.routing.contract import (
    RoutingDecision,
    needs_outputs,
    refuse_decide,
    refuse_route,
)
from rtl_plugin.routing.number_arguments import number
from rtl_plugin.routing.saved_fields import State, field


class ConfidenceThreshold:
    """Marks the samples that another router is less sure of than a threshold.

    A sample at the threshold is known; one whose confidence is NaN is not. So is one with NaN or
    infinity in its features, logits or outputs, under the centroid, classifier, confidence and
    one-vs-rest routers: it goes to the fallback, and does not fail the others of its batch.

    Args:
        router: decides; its decisions must have a confidence. Where it has ``route_or_nan`` (or
            ``decide_or_nan``, where it decides from outputs), this is asked in place of ``route``:
            it gives samples that it cannot rank the confidence NaN rather than raising.
        threshold: on that router's own scale, or None until :meth:`fit`.

    Raises:
        InvalidArgument: the threshold is no finite number, or the router is none.

    Example:
        >>> class Sure:
        ...     def route(self, x, context=None):
        ...         indices = torch.zeros(len(x), dtype=torch.long)
        ...         return RoutingDecision(indices=indices, confidence=x[:, 0])
        >>> router = ConfidenceThreshold(Sure(), 0.5)
        >>> router.route(torch.tensor([[0.4], [0.6]])).fallback
        tensor([ True, False])

    Source:
        Hendrycks, Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples
        in Neural Networks, arXiv 1610.02136.
    """

    def __init__(self, router: Any, threshold: float | None = None) -> None:
        if not callable(getattr(router, "route", None)):
            raise InvalidArgument(
                f"ConfidenceThreshold takes a router, {type(router).__name__} has no route()"
            )
        self.router = router
        self.threshold = None if threshold is None else number("threshold", threshold, -1e300)

    @property
    def needs_outputs(self) -> bool:
        """Whether the inner router decides from outputs."""
        return needs_outputs(self.router)

    @property
    def tickets(self) -> tuple[str, ...] | None:
        """The tickets that the inner router was made for, where it says so."""
        return getattr(self.router, "tickets", None)

    def fit(
        self, x_known: Any, quantile: float = 0.01, context: Any = None
    ) -> "ConfidenceThreshold":
        """Choose the threshold so that at most a given share of known samples is below it.

        Args:
            x_known: samples of the groups that the router knows, which it was not fitted on: an
                input batch, or the outputs [B, K, C] where the inner router decides from outputs.
            quantile: the share of them that may go to the fallback, in [0, 1].
            context: for the inner router.

        Returns:
            The router itself.

        Raises:
            InvalidArgument: the batch is empty, or confidences are missing or not finite.
        """
        share = number("quantile", quantile, 0, 1)
        decision = (self.router.decide if self.needs_outputs else self.router.route)(
            x_known, context
        )
        confidence = self._confidence(decision).detach().double().flatten().sort().values
        if not len(confidence) or not torch.isfinite(confidence).all():
            raise InvalidArgument(
                f"a threshold needs finite confidences of known samples, got {len(confidence)} of "
                f"which {int((~torch.isfinite(confidence)).sum())} are not finite"
            )
        # An observed value and no interpolation: so the share below it is never larger than asked.
        self.threshold = float(confidence[min(int(share * len(confidence)), len(confidence) - 1)])
        return self

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Let the inner router decide, and mark what it is not sure of.

        Args:
            x: the network's first input.
            context: for the inner router.

        Returns:
            Its decision with ``fallback``; samples that it marked itself stay marked.

        Raises:
            InvalidArgument: there is no threshold or no confidence, or the inner router decides
                from outputs.
        """
        if self.needs_outputs:
            raise refuse_route(self)
        self._required()
        return self._marked(self._asked("route")(x, context))

    def decide(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """As :meth:`route`, for an inner router that decides from outputs.

        Args:
            outputs: tensor [B, K, C], the outputs of all tickets.
            context: for the inner router.

        Returns:
            Its decision with ``fallback``.

        Raises:
            InvalidArgument: there is no threshold or no confidence, or the inner router decides
                from the input.
        """
        if not self.needs_outputs:
            raise refuse_decide(self)
        self._required()
        return self._marked(self._asked("decide")(outputs, context))

    def saved_state(self) -> State:
        """Everything a file needs besides the inner router, see ``router_codec``."""
        return {"threshold": self.threshold}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], inner: Any) -> "ConfidenceThreshold":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            inner: the inner router, decoded before.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        threshold = field(state, "threshold", float, type(None))
        if threshold is not None and not abs(threshold) <= 1e300:
            raise DamagedFile(f"the saved router has the threshold {threshold}")
        return cls(inner, threshold)

    def _asked(self, method: str) -> Callable[[Any, Any], RoutingDecision]:
        plain: Callable[[Any, Any], RoutingDecision] = getattr(self.router, method)
        return getattr(self.router, f"{method}_or_nan", plain)

    def _required(self) -> float:
        if self.threshold is None:
            raise InvalidArgument(
                "ConfidenceThreshold has no threshold: give threshold=, or call fit(x_known) first"
            )
        return self.threshold

    def _confidence(self, decision: RoutingDecision) -> torch.Tensor:
        if decision.confidence is None:
            raise InvalidArgument(
                f"{type(self.router).__name__} gives no confidence, so no threshold can be set on "
                "it: use a router that does"
            )
        return decision.confidence

    def _marked(self, decision: RoutingDecision) -> RoutingDecision:
        # Not `confidence < threshold`: NaN is below nothing, and known to nobody.
        unknown = ~(self._confidence(decision) >= self._required())
        if decision.fallback is not None:
            unknown = unknown | decision.fallback
        return replace(decision, fallback=unknown)
