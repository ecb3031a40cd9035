"""A router that learns from feedback by drawing from what it believes."""

from collections.abc import Iterable

import torch

from rtl_plugin.routing.feedback import BOTH, FeedbackRouter


class ThompsonSamplingRouter(FeedbackRouter):
    """The ticket whose success probability, drawn from its posterior, is the largest.

    A success meets both targets. With s discounted successes and f failures of a ticket the
    posterior is Beta(1 + s, 1 + f).

    Args:
        tickets: a ticket set, or all ticket names in its order: the arms.
        latency_target: seconds; an outcome that takes no longer meets it.
        quality_target: an outcome that is no worse meets it.
        discount: in (0, 1]; 1 never forgets.
        seed: for reproducible choices given the same outcomes, or None.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> router = ThompsonSamplingRouter(["small", "large"], 0.1, 0.9, seed=0)
        >>> router.route(torch.zeros(3, 1)).batch_size
        3

    Source:
        Thompson, On the likelihood that one unknown probability exceeds another, Biometrika 25
        (1933); with discount: Raj, Kalyani, Taming Non-stationary Bandits: A Bayesian Approach,
        arXiv 1707.09727.
    """

    def __init__(
        self,
        tickets: Iterable[str],
        latency_target: float,
        quality_target: float,
        discount: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(tickets, latency_target, quality_target, discount, seed)

    def preferences(self, counts: torch.Tensor) -> torch.Tensor:
        """One draw from every posterior.

        Args:
            counts: float64 tensor [K, 4].

        Returns:
            float64 tensor [K] in [0, 1].
        """
        successes = counts[:, BOTH]
        return self._generator.beta(1 + successes, 1 + counts.sum(dim=1) - successes)
