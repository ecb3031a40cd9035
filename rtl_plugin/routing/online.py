"""A router that learns online which ticket meets a latency and a quality target."""

from collections.abc import Iterable

import torch

from rtl_plugin.routing.feedback import FeedbackRouter
from rtl_plugin.routing.number_arguments import number

# Weights of (both met, only quality, only latency, neither): in the goal, and in the prior.
_WORTH = (1.0, 0.25, 0.25, 0.0)
_PRIOR = (1.0, 1 / 3, 1 / 3, 1 / 3)


class OnlineRouter(FeedbackRouter):
    """Chooses the ticket with the least expected free energy, and learns from every outcome.

    An outcome is one of four: both targets met, only quality, only latency, neither. What is
    believed of ticket k is a Dirichlet distribution over their probabilities, with parameters
    ``a = prior + discounted counts``; let ``m = a / sum(a)`` be its mean. The wish is a
    distribution p* over outcomes, proportional to ``exp(precision * worth)`` with worth
    1, 1/4, 1/4, 0. Then

        G(k) = - sum_o m_o ln p*_o  -  ( H(m) - E[H(theta)] ),   H the entropy in nats,
        E[H(theta)] = - sum_o m_o (psi(a_o + 1) - psi(sum(a) + 1)),

    and the ticket with the least G is chosen. The first part is the expected cost, the second
    how much the outcome is expected to teach about the ticket (the mutual information of outcome
    and theta), which drives exploration. Counts are discounted, so a ticket that was not
    tried for long is believed to be what the prior says and is worth a look again; the prior
    (1, 1/3, 1/3, 1/3) is mildly hopeful: half of its weight is on both targets met.

    The router stays with a ticket that is good enough: where another one is better by a few
    hundredths only, it may not be found. Other than in the source, there is no state to be
    inferred beside the tickets' own.

    Args:
        tickets: a ticket set, or all ticket names in its order: the arms.
        latency_target: seconds; an outcome that takes no longer meets it.
        quality_target: an outcome that is no worse meets it.
        discount: in (0, 1]; the memory is ``1 / (1 - discount)`` observations long.
        precision: positive; larger wishes for the targets more strongly and explores less.
        seed: for reproducible choices given the same outcomes, or None.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> from rtl_plugin.routing.feedback import Outcome
        >>> router = OnlineRouter(["small", "large"], 0.1, 0.9, seed=0)
        >>> for _ in range(20):
        ...     decision = router.route(torch.zeros(1, 1))
        ...     fast = decision.indices.item() == 0
        ...     router.observe(decision, Outcome(latency_s=0.05 if fast else 0.5, quality=0.95))
        >>> router.route(torch.zeros(1, 1)).indices
        tensor([0])

    Source:
        Wang, Sedlak, Dustdar, Active Inference-Based Adaptive Routing for Heterogeneous Edge AI
        Services, arXiv 2604.17373 (expected free energy as the rule of a router). For bandits and
        with forgetting: Markovic et al., An empirical evaluation of active inference in
        multi-armed bandits, arXiv 2101.08699.
    """

    def __init__(
        self,
        tickets: Iterable[str],
        latency_target: float,
        quality_target: float,
        discount: float = 0.99,
        precision: float = 2.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(tickets, latency_target, quality_target, discount, seed)
        self.precision = number("precision", precision, 1e-6)

    def preferences(self, counts: torch.Tensor) -> torch.Tensor:
        """Minus the expected free energy of every ticket, in nats.

        Args:
            counts: float64 tensor [K, 4].

        Returns:
            float64 tensor [K].
        """
        return -expected_free_energy(counts, self.precision)

    def _options(self) -> dict[str, float]:
        return {"discount": self.discount, "precision": self.precision}


def expected_free_energy(counts: torch.Tensor, precision: float) -> torch.Tensor:
    """Expected cost less expected information, see :class:`OnlineRouter`.

    Args:
        counts: float64 tensor [K, 4], discounted numbers of observations a kind of outcome.
        precision: positive.

    Returns:
        float64 tensor [K], in nats.

    Example:
        >>> counts = torch.tensor([[9.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]]).double()
        >>> energy = expected_free_energy(counts, precision=4.0)
        >>> bool(energy[0] < energy[1])
        True
    """
    alpha = counts + torch.tensor(_PRIOR, dtype=torch.float64)
    total = alpha.sum(dim=1, keepdim=True)
    mean = alpha / total
    wish = (precision * torch.tensor(_WORTH, dtype=torch.float64)).log_softmax(dim=0)
    cost = -(mean * wish).sum(dim=1)
    entropy = -(mean * mean.log()).sum(dim=1)
    expected = -(mean * ((alpha + 1).digamma() - (total + 1).digamma())).sum(dim=1)
    return cost - (entropy - expected)
