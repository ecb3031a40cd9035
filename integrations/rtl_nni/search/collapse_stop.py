"""When a trial is stopped: the core's collapse rule over what its rounds tell."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rtl_plugin.integration_api import (
    Alarm,
    CollapseMonitor,
    CollapseRule,
    InvalidArgument,
    LayerCounts,
    MaskCounts,
)

_NEEDED = ("round", "of", "sparsity", "names", "prunable", "shared")


@dataclass(frozen=True)
class StopVerdict:
    """Why a trial is stopped.

    Args:
        round: after which round it was clear.
        rounds: how many the trial had asked for.
        sparsity: of its tickets then, the mean.
        rang: names of the tickets whose alarms rang.
        reason: one sentence.

    Example:
        >>> StopVerdict(6, 9, 0.98, ("indoor",), "1 of 2 tickets collapsed").to_json()["round"]
        6
    """

    round: int
    rounds: int
    sparsity: float
    rang: tuple[str, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-able data."""
        return asdict(self) | {"rang": list(self.rang)}


@dataclass(frozen=True)
class CollapseStop:
    """Stops a trial when the masks of its tickets change abruptly; no label is looked at.

    Args:
        share: of the trial's tickets whose alarms must have rung, in (0, 1].
        rule: what counts as abrupt; by default the core's.

    Raises:
        InvalidArgument: ``share`` or ``rule`` is something else.

    Example:
        >>> row = {"round": 1, "of": 2, "sparsity": 0.5, "names": ["a", "b"], "prunable": 8}
        >>> CollapseStop(share=0.5).verdict([row | {"shared": [[4, 2], [2, 4]]}]) is None
        True

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, subnetwork collapse.
    """

    share: float = 0.5
    rule: CollapseRule = field(default_factory=CollapseRule)

    def __post_init__(self) -> None:
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 < self.share <= 1:
            raise InvalidArgument(
                "share must be a number in (0, 1], the share of the tickets whose alarms stop a "
                f"trial, got {self.share!r}"
            )
        if not isinstance(self.rule, CollapseRule):
            raise InvalidArgument(f"rule must be a CollapseRule, got {self.rule!r}")

    def verdict(self, rounds: Sequence[Mapping[str, Any]]) -> StopVerdict | None:
        """Whether a trial with these finished rounds is stopped.

        A ticket that left the rounds by ``stop_before_collapse`` went back to good masks and does
        not count. The answer is the same whether it is asked after every round or later.

        Args:
            rounds: what the trial told of every finished round, from the first; needed are round,
                of, sparsity, names, prunable and shared ([K, K] counts of weights that every two
                tickets both keep).

        Returns:
            The reason, from the first round after which there was one, or None.

        Raises:
            InvalidArgument: a round lacks one of these, or the rounds contradict each other.
        """
        monitor = CollapseMonitor(self.rule)
        for row in rounds:
            _observe(monitor, row)
            rang = [alarm for alarm in monitor.alarms.values() if _stays(alarm.ticket, row)]
            # The quotient, not the product: 0.55 * 20 is more than 11.
            if len(rang) / len(rounds[0]["names"]) >= self.share:
                return self._stopped(row, rang, len(rounds[0]["names"]))
        return None

    def alarms(self, rounds: Sequence[Mapping[str, Any]]) -> list[Alarm]:
        """The alarms that rang in these rounds, in order.

        Args:
            rounds: as for :meth:`verdict`.

        Returns:
            One alarm a ticket at most.

        Raises:
            InvalidArgument: as in :meth:`verdict`.
        """
        monitor = CollapseMonitor(self.rule)
        for row in rounds:
            _observe(monitor, row)
        return list(monitor.alarms.values())

    def can_ring(self, rounds: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the rule has something to look at: two tickets, and rounds after a warm-up.

        Args:
            rounds: the finished rounds of a trial.

        Returns:
            False while no alarm could have rung, whatever the masks.
        """
        if not rounds or len(rounds[0]["names"]) < 2:
            return False
        return self.rule.first_round([1 - row["sparsity"] for row in rounds]) is not None

    def _stopped(self, row: Mapping[str, Any], rang: list[Alarm], tickets: int) -> StopVerdict:
        reason = (
            f"the masks of {len(rang)} of {tickets} tickets changed abruptly by round "
            f"{row['round']} of {row['of']} at {row['sparsity']:.2%} sparsity (stops at a share "
            f"of {self.share:g}): {'; '.join(_brief(alarm) for alarm in rang[:3])}"
            f"{' ...' if len(rang) > 3 else ''}; last good round {rang[0].last_good_round}"
        )
        names = tuple(alarm.ticket for alarm in rang)
        return StopVerdict(row["round"], row["of"], row["sparsity"], names, reason)


def _observe(monitor: CollapseMonitor, row: Mapping[str, Any]) -> None:
    if missing := [name for name in _NEEDED if name not in row]:
        raise InvalidArgument(
            f"a round of a trial lacks {', '.join(missing)}: rounds are told by rtl_nni.run_trial"
        )
    monitor.observe_counts(row["round"], row["names"], _counts(row))


def _stays(ticket: str, row: Mapping[str, Any]) -> bool:
    return ticket in row["names"] and ticket not in row.get("left", ())


def _counts(row: Mapping[str, Any]) -> MaskCounts:
    tickets = len(row["names"])
    try:
        shared = np.asarray(row["shared"], dtype=np.int64)
    except ValueError as error:
        raise InvalidArgument(f"round {row['round']}: shared is no table of counts") from error
    if shared.shape != (tickets, tickets):
        raise InvalidArgument(
            f"round {row['round']}: shared must have a row and a column for each of {tickets} "
            f"tickets, got shape {shared.shape}"
        )
    layer = LayerCounts("all layers", int(row["prunable"]), shared)
    return MaskCounts(tickets, (layer,))


def _brief(alarm: Alarm) -> str:
    return (
        f"{alarm.ticket} in round {alarm.round} ({alarm.direction}, similarity "
        f"{alarm.similarity:.3f}, elasticity {alarm.change:+.2f} past {alarm.limit:+.2f})"
    )
