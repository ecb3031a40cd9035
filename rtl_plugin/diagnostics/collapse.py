"""Watching tickets while they are pruned: an alarm before they collapse, without labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rtl_plugin.diagnostics.collapse_rule import (
    RISE,
    CollapseRule,
    Departure,
    RoundChange,
    sampling_variance,
)
from rtl_plugin.diagnostics.mask_counts import MaskCounts, Masks, count_masks
from rtl_plugin.diagnostics.similarity import Matrix
from rtl_plugin.errors import InvalidArgument


@dataclass(frozen=True)
class Alarm:
    """One ticket's similarity curve changed abruptly.

    Args:
        ticket: its name.
        round: the round after which the change showed.
        sparsity: the ticket's after that round, in (0, 1).
        similarity: mean Jaccard similarity with its peers then.
        direction: ``"rise"`` (tickets become one) or ``"fall"`` (what they shared falls apart).
        change: elasticity of overlap with density over the last window.
        expected: the smallest elasticity before.
        limit: what ``change`` passed.
        last_good_round: the round to go back to.
        explanation: one sentence for people.

    Example:
        >>> import torch
        >>> monitor = CollapseMonitor(CollapseRule(noise=0, rise=0.05, warm_up=1))
        >>> for round, (kept, shared) in enumerate([(32, 20), (16, 10), (8, 7)], start=1):
        ...     a = torch.arange(64) < kept
        ...     alarms = monitor.observe(round, {"a": {"w": a}, "b": {"w": a.roll(kept - shared)}})
        >>> [(alarm.ticket, alarm.round, alarm.direction) for alarm in alarms]
        [('a', 3, 'rise'), ('b', 3, 'rise')]
    """

    ticket: str
    round: int
    sparsity: float
    similarity: float
    direction: str
    change: float
    expected: float
    limit: float
    last_good_round: int
    explanation: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-able data."""
        return asdict(self)


class CollapseMonitor:
    """Rings when a ticket's similarity with the others changes abruptly, either way.

    Pruned too far, tickets lose what set them apart, and accuracy follows. No label is needed to
    see it: the masks of a round are enough. Every ticket rings once.

    Args:
        rule: what counts as abrupt; see :class:`rtl_plugin.CollapseRule`.

    Raises:
        InvalidArgument: the rule is none.

    Example:
        >>> import torch
        >>> monitor = CollapseMonitor()
        >>> a, b = torch.arange(8) < 4, torch.arange(8) % 2 == 0
        >>> monitor.observe(1, {"a": {"w": a}, "b": {"w": b}})
        []
        >>> monitor.alarms
        {}

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, subnetwork collapse. How
        well the default rule does is in docs/diagnostics.md.
    """

    def __init__(self, rule: CollapseRule | None = None) -> None:
        if rule is not None and not isinstance(rule, CollapseRule):
            raise InvalidArgument(f"rule must be a CollapseRule, got {rule!r}")
        self.rule = rule or CollapseRule()
        self.alarms: dict[str, Alarm] = {}
        self.curves: dict[str, list[RoundChange]] = {}
        self._before: _Counts | None = None
        self._round = 0
        self._layers: dict[str, int] | None = None

    def observe(self, round: int, tickets: Mapping[str, Masks]) -> list[Alarm]:
        """Look at the masks after a round.

        Args:
            round: counted from 1, larger than at the call before.
            tickets: name -> masks (parameter name -> bool tensor) of the tickets that were pruned
                in this round; one that is left out is not watched any longer.

        Returns:
            Alarms that ring for the first time, in the tickets' order.

        Raises:
            InvalidArgument: the round does not follow, the masks are of another network, or a
                ticket keeps more than before, or nothing. That masks only lose weights is taken
                on trust: counts are compared, not positions.
        """
        return self.observe_counts(round, list(tickets), count_masks(list(tickets.values())))

    def observe_counts(self, round: int, names: Sequence[str], counts: MaskCounts) -> list[Alarm]:
        """As :meth:`observe`, from counts of shared weights.

        Args:
            round: counted from 1.
            names: the tickets' names, in the order of the counts.
            counts: of :func:`rtl_plugin.diagnostics.mask_counts.count_masks`.

        Returns:
            Alarms that ring for the first time.

        Raises:
            InvalidArgument: a ticket has grown, or keeps nothing.
        """
        if isinstance(round, bool) or not isinstance(round, int) or round <= self._round:
            raise InvalidArgument(
                f"rounds are observed in order: expected a whole number above {self._round}, got "
                f"{round!r}"
            )
        layers = {layer.name: layer.size for layer in counts}
        if self._layers is not None and layers != self._layers:
            raise InvalidArgument(
                f"round {round}: masks of other parameters or sizes than in the rounds before: "
                "watch every network with a CollapseMonitor of its own"
            )
        prunable = sum(layers.values())
        now = _Counts(tuple(names), _shared(counts))
        empty = [name for name, kept in zip(names, np.diag(now.shared), strict=True) if kept == 0]
        if empty:
            raise InvalidArgument(f"round {round}: {empty[0]!r} keeps no weight at all")
        before = self._before or _Counts(now.names, np.full_like(now.shared, prunable))
        points = {name: _point(round, name, before, now, prunable) for name in names}
        since, self._round = self._round, round
        self._before, self._layers = now, layers
        rung = []
        for name, point in points.items():
            if point is None:
                continue
            curve = self.curves.setdefault(name, [])
            curve.append(replace(point, since=since))
            departure = self.rule.departure(curve)
            if departure is not None and name not in self.alarms:
                self.alarms[name] = _alarm(name, point, departure)
                rung.append(self.alarms[name])
        return rung

    def window_start(self, ticket: str) -> int:
        """The earliest round that a later alarm of a ticket can go back to.

        Args:
            ticket: its name.

        Returns:
            A round; 0 is the dense network.
        """
        span = self.rule.elasticity(self.curves.get(ticket, []))
        return 0 if span is None else span[2]


@dataclass(frozen=True)
class _Counts:
    """Weights that tickets of one round share: names and [K, K]."""

    names: tuple[str, ...]
    shared: Matrix

    def of(self, name: str, peers: Sequence[str]) -> tuple[float, float]:
        """What a ticket keeps, and the mean fraction of it that the peers keep too."""
        row = self.shared[self.names.index(name)]
        kept = float(row[self.names.index(name)])
        # Half a weight instead of none: a logarithm of zero would hide the sharpest fall of all.
        shared = [max(row[self.names.index(peer)], 0.5) for peer in peers]
        return kept, float(np.mean(shared)) / kept

    def jaccard(self, name: str, peers: Sequence[str]) -> float:
        """Mean Jaccard similarity with the peers."""
        kept = dict(zip(self.names, np.diag(self.shared), strict=True))
        row = dict(zip(self.names, self.shared[self.names.index(name)], strict=True))
        return float(np.mean([row[p] / (kept[name] + kept[p] - row[p]) for p in peers]))

    def independent(self, peers: Sequence[str], prunable: int) -> float:
        """How many independent peers these count for: p / (1 + (p - 1) r), in [1, p].

        r is the mean correlation of two peers' masks, not below 0.
        """
        if len(peers) == 1:
            return 1.0
        places = [self.names.index(peer) for peer in peers]
        both = self.shared[np.ix_(places, places)] / prunable
        density = np.diag(both)
        spread = np.sqrt(density * (1 - density))
        scale = np.outer(spread, spread)
        chance = np.outer(density, density)
        # A mask that keeps everything varies with none.
        correlation = np.divide(both - chance, scale, out=np.zeros_like(both), where=scale > 0)
        pairs = correlation[~np.eye(len(peers), dtype=bool)]
        return len(peers) / (1 + (len(peers) - 1) * max(float(pairs.mean()), 0.0))


def _shared(counts: MaskCounts) -> Matrix:
    shared = np.zeros((counts.tickets, counts.tickets))
    for layer in counts:
        shared += layer.shared
    return shared


def _point(
    round: int, name: str, before: _Counts, now: _Counts, prunable: int
) -> RoundChange | None:
    """A round of a ticket's curve; None where no peer went through it too."""
    if name not in before.names:
        raise InvalidArgument(
            f"round {round}: {name!r} was not among the tickets of the round before: "
            f"{', '.join(before.names)}"
        )
    peers = [peer for peer in now.names if peer != name and peer in before.names]
    if not peers:
        return None
    kept_before, overlap_before = before.of(name, peers)
    kept, overlap = now.of(name, peers)
    if kept > kept_before:
        raise InvalidArgument(
            f"round {round}: {name!r} keeps {kept:.0f} weights after {kept_before:.0f}: masks that "
            "are pruned only shrink"
        )
    independent = now.independent(peers, prunable)
    return RoundChange(
        round=round,
        density=kept / prunable,
        step=math.log(kept / kept_before),
        agreement=math.log(overlap / overlap_before),
        variance=sampling_variance(overlap, kept / kept_before, kept, len(peers), independent),
        similarity=now.jaccard(name, peers),
    )


def _alarm(name: str, point: RoundChange, departure: Departure) -> Alarm:
    what = (
        "it grows more like the others although all are pruned"
        if departure.direction == RISE
        else "it no longer agrees with the others about what to keep"
    )
    return Alarm(
        ticket=name,
        round=point.round,
        sparsity=1 - point.density,
        similarity=point.similarity,
        direction=departure.direction,
        change=departure.elasticity,
        expected=departure.reference,
        limit=departure.limit,
        last_good_round=departure.last_good_round,
        explanation=(
            f"{name}, round {point.round} at {1 - point.density:.2%} sparsity: similarity "
            f"{point.similarity:.3f} changes abruptly ({departure.direction}): {what} (elasticity "
            f"{departure.elasticity:+.2f}, {departure.reference:+.2f} the smallest before, limit "
            f"{departure.limit:+.2f}); last good round {departure.last_good_round}"
        ),
    )
