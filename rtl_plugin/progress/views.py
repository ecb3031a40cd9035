"""Progress on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.progress.live_table import open_live_table
from rtl_plugin.progress.live_text import printable
from rtl_plugin.progress.round_lines import alarm_lines, group_line, round_line

T = TypeVar("T")


class RoundsView(Protocol):
    """What the rounds of a discovery report to; see :meth:`Progress.rounds`."""

    def track(self, items: Iterable[T], group: str, round: int) -> Iterable[T]:
        """The items, the training steps of one group in one round."""

    def group_done(self, row: Mapping[str, Any], seconds: float) -> None:
        """A group's round is trained and pruned: its history row, still without similarity."""

    def round_done(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All groups' rounds are: their rows, now with similarity, excess, alarm and left."""

    def say(self, line: str) -> None:
        """One line above what is shown."""


class Progress:
    """Bars and report lines on standard error, a live table of the rounds, or nothing.

    Args:
        enabled: False silences it; True shows it where standard error is a terminal, and in a
            notebook; ``"lines"`` prints plain lines wherever standard error leads, with bars
            where it is a terminal.

    Raises:
        InvalidArgument: ``enabled`` is something else.

    Example:
        >>> progress = Progress(False)
        >>> list(progress.track([1, 2], "training"))
        [1, 2]
    """

    def __init__(self, enabled: bool | str) -> None:
        if not (isinstance(enabled, bool) or (isinstance(enabled, str) and enabled == "lines")):
            raise InvalidArgument(f"progress must be True, False or 'lines', got {enabled!r}")
        terminal = sys.stderr.isatty()
        # A notebook shows standard error, although it is no terminal.
        notebook = "ipykernel" in sys.modules
        self._bars = bool(enabled) and (terminal or notebook)
        self._lines = self._bars or enabled == "lines"
        self._live = enabled is True and terminal and not notebook

    def track(self, items: Iterable[T], label: str) -> Iterable[T]:
        """The items, behind a bar that goes away when they end."""
        label = printable(label, plain=False)
        return tqdm(items, desc=label, leave=False, disable=not self._bars, dynamic_ncols=True)

    def say(self, line: str) -> None:
        """One line above the bar, with a sign for every character that a terminal would obey."""
        if self._lines:
            tqdm.write(printable(line, plain=False), file=sys.stderr)

    def rounds(
        self, names: Sequence[str], rounds: int, asked: Sequence[float] = ()
    ) -> AbstractContextManager[RoundsView]:
        """Show the rounds of a discovery: a live table on a terminal, or bars and lines.

        The table needs rich and a terminal of 60 columns and 10 lines that can move its cursor.

        Args:
            names: the groups' names, in their order.
            rounds: how many rounds there are, with the closing round where there is one.
            asked: sparsity asked in every round of the schedule, in [0, 1]; a round beyond them
                is the closing round. Empty where it is not known.

        Returns:
            A context that gives the view; the table is left standing when it ends.

        Example:
            >>> with Progress(False).rounds(["indoor"], 2) as view:
            ...     list(view.track([1, 2], "indoor", 1))
            [1, 2]
        """
        table = open_live_table(names, rounds, asked) if self._live else None
        return nullcontext(_RoundsInLines(self, rounds, asked)) if table is None else table


class _RoundsInLines:
    """One line a (round, group), one a round and one an alarm."""

    def __init__(self, progress: Progress, rounds: int, asked: Sequence[float]) -> None:
        self._progress, self._rounds = progress, len(asked) or rounds

    def track(self, items: Iterable[T], group: str, round: int) -> Iterable[T]:
        shown = "closing round" if round > self._rounds else str(round)
        return self._progress.track(items, f"{group}, {shown}")

    def group_done(self, row: Mapping[str, Any], seconds: float) -> None:
        self.say(group_line(row, self._rounds, seconds))

    def round_done(self, rows: Sequence[Mapping[str, Any]]) -> None:
        line = round_line(rows, self._rounds)
        for each in [*([] if line is None else [line]), *alarm_lines(rows, self._rounds)]:
            self.say(each)

    def say(self, line: str) -> None:
        self._progress.say(line)
