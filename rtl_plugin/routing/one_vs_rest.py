"""Tickets that are binary detectors: the one with the largest logit."""

from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.routing.contract import RoutingDecision, refuse_route
from rtl_plugin.routing.outputs import checked_scores
from rtl_plugin.routing.saved_fields import State


class OneVsRestRouter:
    """Runs every detector and takes the output of the one with the largest logit.

    Confidence is the sigmoid of that logit: the detector's own probability that the sample is of
    its group.

    Example:
        >>> decision = OneVsRestRouter().decide(torch.tensor([[[-1.0], [0.0]]]))
        >>> decision.indices, decision.confidence
        (tensor([1]), tensor([0.5000]))

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141: one binary ticket a class.
    """

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Raise: this router decides from outputs.

        Args:
            x: not looked at.
            context: not looked at.

        Raises:
            InvalidArgument: always.
        """
        raise refuse_route(self)

    def scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """The logits themselves.

        Args:
            outputs: floating tensor [B, K, 1].

        Returns:
            Floating tensor [B, K].

        Raises:
            InvalidArgument: the outputs have another shape, or hold NaN.
        """
        return checked_scores(outputs, "C = 1", self).squeeze(2)

    def decide(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """Choose the largest logit.

        Args:
            outputs: floating tensor [B, K, 1].
            context: not looked at.

        Returns:
            One index and one confidence in [0, 1] a sample.

        Raises:
            InvalidArgument: as :meth:`scores`.
        """
        return _largest(self.scores(outputs))

    def decide_or_nan(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """As :meth:`decide`, but one bad sample does not fail the others of its batch.

        Args:
            outputs: as for :meth:`scores`.
            context: not looked at.

        Returns:
            A decision in which samples that rank no ticket have confidence NaN.

        Raises:
            InvalidArgument: as :meth:`scores`, except for NaN.
        """
        return _largest(checked_scores(outputs, "C = 1", self, strict=False).squeeze(2))

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``: nothing."""
        return {}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "OneVsRestRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: not needed.
            skeleton: not needed.

        Returns:
            A new router.
        """
        return cls()


def _largest(logits: torch.Tensor) -> RoutingDecision:
    best, indices = logits.max(dim=1)  # NaN where one of the sample's logits is
    return RoutingDecision(indices=indices, confidence=best.sigmoid())
