"""The simplest router that learns from feedback: mostly the best so far, sometimes any."""

from collections.abc import Iterable

import torch

from rtl_plugin.routing.feedback import BOTH, FeedbackRouter
from rtl_plugin.routing.number_arguments import number


class EpsilonGreedyRouter(FeedbackRouter):
    """With probability epsilon a random ticket, else the one with the largest share of successes.

    A success meets both targets. A ticket that was never tried counts as always successful, so
    each is tried once first.

    Args:
        tickets: a ticket set, or all ticket names in its order: the arms.
        latency_target: seconds; an outcome that takes no longer meets it.
        quality_target: an outcome that is no worse meets it.
        epsilon: in [0, 1].
        discount: in (0, 1]; 1 never forgets.
        seed: for reproducible choices given the same outcomes, or None.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> from rtl_plugin.routing.feedback import Outcome
        >>> router = EpsilonGreedyRouter(["small", "large"], 0.1, 0.9, epsilon=0.0, seed=0)
        >>> for _ in range(4):
        ...     decision = router.route(torch.zeros(1, 1))
        ...     fast = decision.indices.item() == 0
        ...     router.observe(decision, Outcome(latency_s=0.05 if fast else 0.5, quality=0.95))
        >>> router.route(torch.zeros(1, 1)).indices
        tensor([0])

    Source:
        Sutton, Barto, Reinforcement Learning: An Introduction, 2nd edition, chapter 2.
    """

    def __init__(
        self,
        tickets: Iterable[str],
        latency_target: float,
        quality_target: float,
        epsilon: float = 0.1,
        discount: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(tickets, latency_target, quality_target, discount, seed)
        self.epsilon = number("epsilon", epsilon, 0, 1)

    def preferences(self, counts: torch.Tensor) -> torch.Tensor:
        """Shares of successes, or now and then all alike.

        Args:
            counts: float64 tensor [K, 4].

        Returns:
            float64 tensor [K].
        """
        if float(self._generator.uniform(1)) < self.epsilon:
            return torch.zeros(len(counts), dtype=torch.float64)
        seen = counts.sum(dim=1)
        return torch.where(seen > 0, counts[:, BOTH] / seen.clamp(min=1e-300), 1.0)

    def _options(self) -> dict[str, float]:
        return {"epsilon": self.epsilon, "discount": self.discount}
