"""What one step of the pruner did: asked and achieved, for every group."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from rtl_plugin.integration_api import UnknownTicket


@dataclass(frozen=True)
class GroupRow:
    """One group's part of a round.

    Args:
        group: its name.
        asked: fraction of channels that the schedule wants removed after this round.
        achieved: fraction of the prunable channels that is removed.
        widths: layer name -> (channels left, channels of the dense network).
        parameters: of the small network.
        dense_parameters: of the shared network.
        loss: mean training loss, None where the pruner did not train.
        batches: number of batches that gradients were averaged over for the ranking.
        left_whole: layers that the host left whole because cutting would have emptied one.
        note: what is unusual, or empty.
        seconds: part of the work ("train", "rank and cut", "check") -> seconds.

    Example:
        >>> row = GroupRow("a", 0.5, 0.5, {"conv": (4, 8)}, 40, 80, None, 0, (), "", {})
        >>> row.history(round=1)["widths"]
        {'conv': [4, 8]}
    """

    group: str
    asked: float
    achieved: float
    widths: Mapping[str, tuple[int, int]]
    parameters: int
    dense_parameters: int
    loss: float | None
    batches: int
    left_whole: tuple[str, ...]
    note: str
    seconds: Mapping[str, float]

    def history(self, round: int) -> dict[str, Any]:
        """The row as JSON-able data without times, for a ticket file."""
        row = {k: v for k, v in asdict(self).items() if k != "seconds"}
        widths = {k: list(v) for k, v in self.widths.items()}
        return {"round": round, **row, "widths": widths, "left_whole": list(self.left_whole)}


@dataclass(frozen=True)
class RoundReport:
    """One round over all groups; prints as a table.

    Args:
        round: counted from 1.
        rows: one a group.

    Example:
        >>> row = GroupRow("a", 0.5, 0.5, {"conv": (4, 8)}, 40, 80, None, 0, (), "", {})
        >>> print(RoundReport(1, (row,)))
        round 1: channels removed (asked and achieved), parameters left
        group      asked    achieved    parameters  of dense    loss    note
        -------  -------  ----------  ------------  ----------  ------  ------
        a          0.500       0.500            40  50.0%
    """

    round: int
    rows: tuple[GroupRow, ...]

    def __getitem__(self, group: str) -> GroupRow:
        for row in self.rows:
            if row.group == group:
                return row
        known = ", ".join(repr(row.group) for row in self.rows)
        raise UnknownTicket(f"unknown group {group!r}; this round had {known}")

    def __str__(self) -> str:
        headers = ["group", "asked", "achieved", "parameters", "of dense", "loss", "note"]
        rows = [
            [
                row.group,
                row.asked,
                row.achieved,
                row.parameters,
                f"{row.parameters / row.dense_parameters:.1%}",
                row.loss,
                row.note,
            ]
            for row in self.rows
        ]
        title = f"round {self.round}: channels removed (asked and achieved), parameters left"
        return title + "\n" + tabulate(rows, headers=headers, floatfmt=".3f", intfmt=",")


class Clock:
    """Seconds since the last stop, by name of what took them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def stop(self, what: str) -> None:
        """Note the seconds since the last stop.

        Args:
            what: took them.
        """
        now = time.perf_counter()
        self.seconds[what], self._began = now - self._began, now
