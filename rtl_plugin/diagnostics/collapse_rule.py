"""When a ticket's similarity curve changes abruptly: the rule, on plain numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtl_plugin.errors import InvalidArgument

RISE, FALL = "rise", "fall"


@dataclass(frozen=True)
class RoundChange:
    """One round of one ticket, as the rule sees it.

    Args:
        round: counted from 1.
        density: fraction of the prunable weights that the ticket keeps, in (0, 1].
        step: natural logarithm of its density after the round over that before; negative.
        agreement: natural logarithm of its mean overlap after the round over that before, with
            the same peers. A peer's overlap is the fraction of the ticket's weights that the peer
            keeps too.
        variance: sampling variance of ``agreement``, at least 0.
        similarity: mean Jaccard similarity after the round, for the message.
        since: the round that was looked at before, 0 for the dense network; None is the one before.
    """

    round: int
    density: float
    step: float
    agreement: float
    variance: float
    similarity: float
    since: int | None = None

    @property
    def start(self) -> int:
        """The round that the change is counted from."""
        return self.round - 1 if self.since is None else self.since


@dataclass(frozen=True)
class Departure:
    """What the rule found in a curve.

    Args:
        direction: ``"rise"`` or ``"fall"``.
        elasticity: of the overlap with the density, over the last window.
        reference: the smallest elasticity before it.
        limit: what the elasticity passed.
        last_good_round: the round at which the window starts.
    """

    direction: str
    elasticity: float
    reference: float
    limit: float
    last_good_round: int


@dataclass(frozen=True)
class CollapseRule:
    r"""An abrupt change of the similarity curve, either way.

    Let :math:`d_r` be a ticket's density after round r and :math:`o_r` the mean, over its peers, of
    the fraction of its weights that the peer keeps too. The rule looks at the elasticity
    :math:`b_r = \ln(o_r / o_q) / \ln(d_r / d_q)`, where q is the last round before r with
    :math:`\ln(d_q / d_r) \ge` ``window``. It is 1 where tickets drop their shared weights
    independently of each other, 0 where they drop the same share of them, and negative where
    overlap grows although everybody prunes. With :math:`m_r` the smallest earlier elasticity
    and :math:`s` the sampling error (of :math:`b_r - m_r`, or of :math:`b_r`), the ticket's curve

    * *falls* where :math:`b_r > m_r + \text{fall}` and
      :math:`b_r - m_r > \text{noise}\,s`: agreement that had grown steadily is being lost;
    * *rises* where :math:`b_r < -\text{rise}` and :math:`-b_r > \text{noise}\,s`: what only
      this ticket keeps goes first, so that tickets become one.

    Args:
        fall: how far the elasticity may climb above its smallest value, in (0, 1).
        rise: how negative it may become, in (0, 1).
        noise: sampling errors that a change must exceed, at least 0.
        window: smallest change of the log density that an elasticity is taken over, above 0.
        warm_up: elasticities that must lie before one that can ring, at least 1.

    Raises:
        InvalidArgument: a number is out of range.

    Example:
        >>> rule = CollapseRule()
        >>> shape = [(0.6, 0.7), (0.4, 0.6), (0.25, 0.55), (0.15, 0.7)]
        >>> rule.departure(curve_of(*zip(*shape))).direction
        'rise'

    Source:
        The observation is of Stefański, Presta, Byra, arXiv 2601.22141 (subnetwork collapse);
        the rule is ours.
    """

    fall: float = 0.35
    rise: float = 0.25
    noise: float = 3.0
    window: float = 0.2
    warm_up: int = 2

    def __post_init__(self) -> None:
        _in_range("fall", self.fall, 0, 1)
        _in_range("rise", self.rise, 0, 1)
        _in_range("noise", self.noise, -math.inf, math.inf)
        _in_range("window", self.window, 0, math.inf)
        if self.noise < 0:
            raise InvalidArgument(f"noise must be at least 0, got {self.noise}")
        if isinstance(self.warm_up, bool) or not isinstance(self.warm_up, int) or self.warm_up < 1:
            raise InvalidArgument(
                f"warm_up must be a whole number of at least 1, got {self.warm_up!r}"
            )

    def departure(self, curve: Sequence[RoundChange]) -> Departure | None:
        """Look whether the last round of a curve departs from what came before.

        Args:
            curve: a ticket's rounds, in order.

        Returns:
            What was found, or None.
        """
        spans = [self.elasticity(curve[: end + 1]) for end in range(len(curve))]
        known = [span for span in spans[:-1] if span is not None]
        if not spans or spans[-1] is None or len(known) < self.warm_up:
            return None
        value, error, start = spans[-1]
        reference, reference_error, _ = min(known)
        limit = reference + self.fall
        doubt = self.noise * math.hypot(error, reference_error)
        if value > limit and value - reference > doubt:
            return Departure(FALL, value, reference, limit, start)
        if value < -self.rise and -value > self.noise * error:
            return Departure(RISE, value, reference, -self.rise, start)
        return None

    def elasticity(self, curve: Sequence[RoundChange]) -> tuple[float, float, int] | None:
        """Elasticity of the overlap over the window that ends with a curve's last round.

        Args:
            curve: a ticket's rounds, in order.

        Returns:
            Elasticity, its sampling error, and the round at which the window starts; None where
            the curve is shorter than the window.
        """
        step = agreement = variance = 0.0
        for point in reversed(curve):
            step += point.step
            agreement += point.agreement
            variance += point.variance
            if -step >= self.window:
                return agreement / step, math.sqrt(variance) / -step, point.start
        return None

    def first_round(self, densities: Sequence[float]) -> int | None:
        """The first round at which the rule could ring at all.

        Args:
            densities: planned density after rounds 1, 2, ..., falling, in (0, 1).

        Returns:
            Its number; None where all rounds pass in the warm-up.

        Example:
            >>> CollapseRule().first_round([0.75, 0.56, 0.42, 0.32])
            3
        """
        known = 0
        for last in range(1, len(densities) + 1):
            known += -math.log(densities[last - 1]) >= self.window
            if known > self.warm_up:
                return last
        return None

    def description(self) -> dict[str, Any]:
        """The parameters, as JSON-able data."""
        return {
            "fall": self.fall,
            "rise": self.rise,
            "noise": self.noise,
            "window": self.window,
            "warm_up": self.warm_up,
        }


def curve_of(
    densities: Sequence[float],
    overlaps: Sequence[float],
    prunable: float = math.inf,
    peers: float = 1.0,
) -> list[RoundChange]:
    """A curve from densities and overlaps alone, after an unpruned start.

    Args:
        densities: a ticket's density after rounds 1, 2, ..., falling, in (0, 1).
        overlaps: mean fraction of its weights that a peer keeps too, in (0, 1].
        prunable: number of prunable weights, for the sampling error.
        peers: number of independent peers, for the sampling error.

    Returns:
        One point a round.

    Raises:
        InvalidArgument: densities do not fall, or a value is out of range.

    Example:
        >>> point, = curve_of([0.5], [0.5])
        >>> round(point.agreement / point.step, 3)
        1.0
    """
    points = []
    density = overlap = 1.0
    for number, (d, o) in enumerate(zip(densities, overlaps, strict=True), start=1):
        if not 0 < d < density or not 0 < o <= 1:
            raise InvalidArgument(
                f"round {number}: densities must fall within (0, 1) and overlaps lie in (0, 1], "
                f"got density {d} after {density} and overlap {o}"
            )
        points.append(
            RoundChange(
                number,
                d,
                math.log(d / density),
                math.log(o / overlap),
                sampling_variance(o, d / density, prunable * d, peers, peers),
                o / (2 - o),
            )
        )
        density, overlap = d, o
    return points


def sampling_variance(
    overlap: float, survival: float, weights: float, peers: float, independent_peers: float
) -> float:
    """Variance of the mean log overlap when weights survive a round by chance.

    Of n survivors drawn from n / q, a hypergeometric count of shared ones has, relative to its
    mean, the variance v = (1 - o) (1 - q) / (o n). The ticket's own pruning moves its overlaps with
    peers that keep the same weights together, so that it averages out over independent peers
    only; the pruning of each peer averages out over all.

    Args:
        overlap: o, the mean over peers, in (0, 1].
        survival: q, the fraction of the ticket's weights that survive the round, in (0, 1].
        weights: n, the survivors.
        peers: how many there are, at least 1.
        independent_peers: how many independent ones they count for, in [1, peers].

    Returns:
        v / independent_peers + v / peers.

    Example:
        >>> sampling_variance(0.5, 0.75, 100, peers=4, independent_peers=2)
        0.001875
    """
    single = (1 - overlap) * (1 - survival) / (overlap * weights)
    return single / independent_peers + single / peers


def _in_range(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise InvalidArgument(f"{name} must be a number, got {value!r}")
    if not low < value < high:
        raise InvalidArgument(f"{name} must lie between {low} and {high}, got {value}")
