"""The ticket that is surest of its own output, where nothing else tells the group."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.routing.contract import RoutingDecision, refuse_route
from rtl_plugin.routing.outputs import checked_scores
from rtl_plugin.routing.saved_fields import State, field

_SCORES = ("entropy", "energy")
Score = Callable[[torch.Tensor], torch.Tensor]


class ConfidenceRouter:
    """Runs every ticket and takes the output of the surest.

    With class logits z of a ticket and p = softmax(z), the score is the negative entropy
    ``sum_c p_c ln p_c`` or the negative energy ``ln sum_c exp z_c``. Confidence is
    ``1 - entropy / ln C`` in [0, 1] of the chosen ticket, or its score itself under the others.

    Args:
        score: ``"entropy"``, ``"energy"``, or a function outputs [B, K, ...] -> scores [B, K],
            higher is surer.

    Raises:
        InvalidArgument: the score is something else.

    Example:
        >>> outputs = torch.tensor([[[0.0, 0.1], [5.0, 0.0]]])
        >>> ConfidenceRouter().decide(outputs).indices
        tensor([1])

    Source:
        Wortsman et al., Supermasks in Superposition, arXiv 2006.14769 (lowest entropy tells the
        mask); Liu et al., Energy-based Out-of-distribution Detection, arXiv 2010.03759.
    """

    def __init__(self, score: str | Score = "entropy") -> None:
        if not callable(score) and score not in _SCORES:
            raise InvalidArgument(
                f"score must be one of {', '.join(_SCORES)}, or a function outputs -> scores "
                f"[B, K], got {score!r}"
            )
        self.score = score

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
        """How sure every ticket is.

        Args:
            outputs: floating tensor [B, K, C]; a callable score may take other shapes.

        Returns:
            Floating tensor [B, K], higher is surer.

        Raises:
            InvalidArgument: the outputs or the callable's scores have another shape, or hold NaN.
        """
        return self._scores(outputs, strict=True)

    def _scores(self, outputs: torch.Tensor, strict: bool) -> torch.Tensor:
        if callable(self.score):
            return self._own_scores(outputs, self.score, strict)
        logits = checked_scores(outputs, "C >= 2", self, strict)
        if self.score == "energy":
            scores = logits.logsumexp(dim=2)
        else:
            log_p = logits.log_softmax(dim=2)
            # Zero times minus infinity would be NaN where a class is impossible.
            scores = (log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(dim=2)
        if strict and torch.isnan(scores).any():
            raise InvalidArgument(
                f"the {self.score} of some outputs is not defined (infinite logits): return "
                "finite class logits"
            )
        return scores

    def decide(self, outputs: torch.Tensor, context: Any = None) -> RoutingDecision:
        """Choose the surest ticket.

        Args:
            outputs: as for :meth:`scores`.
            context: not looked at.

        Returns:
            One index and one confidence a sample.

        Raises:
            InvalidArgument: as :meth:`scores`.
        """
        return self._surest(self.scores(outputs), outputs)

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
        return self._surest(self._scores(outputs, strict=False), outputs)

    def _surest(self, scores: torch.Tensor, outputs: torch.Tensor) -> RoutingDecision:
        best, confidence = scores.max(dim=1).indices, scores.amax(dim=1)
        if self.score == "entropy":
            # Rounding alone takes uniform outputs below zero. NaN stays NaN.
            confidence = (1 + confidence / math.log(outputs.shape[2])).clamp(0, 1)
        return RoutingDecision(indices=best, confidence=confidence)

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``.

        Raises:
            InvalidArgument: the score is a function, which only pickle could keep.
        """
        if callable(self.score):
            raise InvalidArgument(
                "a score that is a function cannot be saved without pickle: "
                "save(path, router=False) and give the router again at load"
            )
        return {"score": self.score}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "ConfidenceRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: not needed.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        score = field(state, "score", str)
        if score not in _SCORES:
            raise DamagedFile(f"the saved router has the unknown score {score[:40]!r}")
        return cls(score)

    def _own_scores(self, outputs: torch.Tensor, score: Score, strict: bool) -> torch.Tensor:
        made = score(outputs)
        expected = tuple(outputs.shape[:2])
        fits = isinstance(made, torch.Tensor) and tuple(made.shape) == expected
        fits = fits and made.is_floating_point()
        if not fits or (strict and torch.isnan(made).any()):
            came = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, torch.Tensor) else made
            raise InvalidArgument(
                f"score must give a floating tensor {expected} without NaN, got {came}"
            )
        return made
