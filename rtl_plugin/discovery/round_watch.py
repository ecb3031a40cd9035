"""Comparing the tickets after each round, and letting go those whose alarm rang."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rtl_plugin.diagnostics.collapse import CollapseMonitor
from rtl_plugin.diagnostics.mask_counts import MaskCounts, count_masks
from rtl_plugin.diagnostics.similarity import mean_similarity, similarity_matrix
from rtl_plugin.packed_masks import PackedMasks

Masks = Mapping[str, torch.Tensor]
Row = dict[str, Any]


@dataclass(frozen=True)
class FinishedRound:
    """One round of a discovery, all its groups trained and pruned.

    Args:
        round: counted from 1.
        rows: rows of history, one a group that ran the round, in the groups' order.
        counts: weights that the groups' tickets keep and share after the round, in that order.
        reused: groups whose round was taken over from another run, see
            :class:`rtl_plugin.WarmStart`.
        seconds_saved: what training those took there, as far as it was logged; in round 1 with the
            late rewind point.

    Example:
        >>> counts = count_masks([{"w": torch.tensor([True, False])}])
        >>> FinishedRound(1, ({"group": "a", "metric": 0.5},), counts).names
        ('a',)
    """

    round: int
    rows: tuple[Row, ...]
    counts: MaskCounts
    reused: tuple[str, ...] = ()
    seconds_saved: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The groups that ran it."""
        return tuple(row["group"] for row in self.rows)


class RoundWatch:
    """Which tickets are still in the rounds, how alike they are, and where each may go back to.

    Args:
        monitor: rings; fresh.
        masks: group -> masks before the first round.
        stops: whether a ticket whose alarm rings leaves the rounds.
    """

    def __init__(self, monitor: CollapseMonitor, masks: Mapping[str, Masks], stops: bool) -> None:
        self.active = list(masks)
        self._monitor, self._stops = monitor, stops
        dense = PackedMasks(next(iter(masks.values())))
        self._earlier: dict[int, dict[str, PackedMasks]] = {0: dict.fromkeys(masks, dense)}
        self._final: dict[str, Masks] = {}
        self._quiet: list[str] = []

    def close_round(
        self, round: int, rows: Sequence[Row], masks: Mapping[str, Masks]
    ) -> FinishedRound:
        """Compare the tickets of a round and let go whose alarm rang.

        Args:
            round: counted from 1.
            rows: the round's rows of history, in the order of ``active``.
            masks: group -> masks after the round.

        Returns:
            The rows with ``similarity``, ``excess``, ``alarm`` and ``left``, and the counts.
        """
        names = self.active
        counts = count_masks([masks[name] for name in names])
        alarms = {}
        if len(names) > 1:
            rung = self._monitor.observe_counts(round, names, counts)
            alarms = {alarm.ticket: alarm for alarm in rung}
        raw = mean_similarity(similarity_matrix(counts))
        excess = mean_similarity(similarity_matrix(counts, excess=True))
        leaving = self._leave(round, masks, {n: a.last_good_round for n, a in alarms.items()})
        compared = [
            row
            | {
                "similarity": _number(raw[k]),
                "excess": _number(excess[k]),
                "alarm": alarms[name].to_json() if name in alarms else None,
                "left": name in leaving,
            }
            for k, (name, row) in enumerate(zip(names, rows, strict=True))
        ]
        return FinishedRound(round, tuple(compared), counts)

    @property
    def unmeasured(self) -> list[str]:
        """Groups whose final masks nobody has trained under yet."""
        return [*self._quiet, *self.active]

    def final_masks(self, masks: Mapping[str, Masks]) -> dict[str, Masks]:
        """The masks of every ticket: those it left with, otherwise the last.

        Args:
            masks: group -> masks after the last round it ran.

        Returns:
            Group -> masks.
        """
        return {name: self._final.get(name, masks[name]) for name in masks}

    def _leave(
        self, round: int, masks: Mapping[str, Masks], good_rounds: Mapping[str, int]
    ) -> set[str]:
        if not self._stops:
            return set()
        for name, good in good_rounds.items():
            device = next(iter(masks[name].values())).device
            kept = self._earlier[good][name]
            self._final[name] = {parameter: kept[parameter].to(device) for parameter in kept}
        staying = [name for name in self.active if name not in good_rounds]
        # Alone, a ticket has no similarity that could warn: it keeps what it has.
        leaving = set(self.active) if good_rounds and len(staying) < 2 else set(good_rounds)
        self._quiet += [name for name in self.active if name in leaving and name in staying]
        self.active = [name for name in self.active if name not in leaving]
        self._remember(round, masks)
        return leaving

    def _remember(self, round: int, masks: Mapping[str, Masks]) -> None:
        """Keep, at one bit a weight, what a later alarm may go back to."""
        self._earlier[round] = {name: PackedMasks(masks[name]) for name in self.active}
        starts = [self._monitor.window_start(name) for name in self.active]
        for earlier in [r for r in self._earlier if r < min(starts, default=round)]:
            del self._earlier[earlier]


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
