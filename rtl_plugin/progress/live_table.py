"""A table of tickets on a terminal, drawn anew while a discovery runs."""

import mmap
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

from tqdm import tqdm

from rtl_plugin.errors import MissingExtra
from rtl_plugin.extras import require
from rtl_plugin.progress.lines_above import lines_above
from rtl_plugin.progress.live_rows import LiveRows
from rtl_plugin.progress.live_text import layout, printable
from rtl_plugin.progress.round_lines import alarm_lines

T = TypeVar("T")

SMALLEST = (60, 10)  # columns and lines of a terminal that the table fits into
INTERVAL = 0.125  # seconds between two drawings, at least
SHARE = 0.02  # of the time that drawing may take
EXPLAINED = 3  # alarms of one round that are printed in full


class LiveTable:
    """Tickets and rounds on a terminal; a context that ends with the table left standing.

    It draws from the training loop itself, without a thread: a process forked at any time finds
    no lock held, and drawing takes no more than a fixed share of the time.

    Args:
        console: rich's console on the terminal.
        rows: what it shows.
        rounds: how many rounds the schedule has.
    """

    def __init__(self, console: Any, rows: LiveRows, rounds: int) -> None:
        live = require("rich.live", "live", "the live table")
        self._console, self._rows, self._rounds = console, rows, rounds
        self._frame = _Frame(rows)
        self._live = live.Live(
            self._frame, console=console, auto_refresh=False, redirect_stdout=False,
            redirect_stderr=False,
        )  # fmt: skip
        self._stack = ExitStack()
        self._due, self._lost = 0.0, False

    def __enter__(self) -> "LiveTable":
        with ExitStack() as stack:
            # The caller's bars make room and come back below the table.
            stack.enter_context(tqdm.external_write_mode(file=sys.stderr, nolock=True))
            stack.enter_context(lines_above(self._above, self._frame.around))
            stack.callback(self._stop)
            self._guarded(self._live.start)
            self._draw()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.end(well=kind is None)
        self._stack.close()

    def track(self, items: Iterable[T], group: str, round: int) -> Iterable[T]:
        """The items, the training steps of one group in one round."""
        total = len(items) if isinstance(items, Sized) else None
        return self._steps(items, group, round, total)

    def group_done(self, row: Mapping[str, Any], seconds: float) -> None:
        """A group's round is trained and pruned."""
        self._rows.finish(row)
        self._tick()

    def round_done(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """All groups' rounds are; the rows know similarity and alarms now."""
        self._rows.close_round(rows)
        alarms = alarm_lines(rows, self._rounds)
        for line in alarms[:EXPLAINED]:
            self.say(line)
        if len(alarms) > EXPLAINED:
            number = rows[0]["round"]
            self.say(
                f"round {number}/{self._rounds}: {len(alarms) - EXPLAINED} more alarms or leaves"
            )
        self._draw()

    def say(self, line: str) -> None:
        """One line above the table, wrapped at words."""
        line = printable(line, plain=False)
        self._guarded(self._console.print, line, markup=False, highlight=False, emoji=False)

    def _steps(self, items: Iterable[T], group: str, round: int, total: int | None) -> Iterator[T]:
        row = self._rows.start(group, round, total)
        for step, item in enumerate(items, start=1):
            row.step = step
            if time.monotonic() >= self._due:
                self._draw()
            yield item

    def _above(self, lines: str) -> bool:
        return self._guarded(self._console.out, lines, highlight=False)

    def _tick(self) -> None:
        if time.monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        began = time.monotonic()
        self._frame.stale = True
        self._guarded(self._live.refresh)
        ended = time.monotonic()
        self._due = ended + max(INTERVAL, (ended - began) / SHARE)

    def _stop(self) -> None:
        self._frame.stale = True
        self._guarded(self._live.stop)
        self._frame.close()

    def _guarded(self, action: Callable[..., None], *values: Any, **settings: Any) -> bool:
        """Whether it could be done: a terminal that has gone away must not end the training."""
        if not self._lost:
            try:
                action(*values, **settings)
            except OSError:
                self._lost = True
        return not self._lost


class _Frame:
    """The table as rich draws it; worked out once a drawing, not at every line above it."""

    def __init__(self, rows: LiveRows) -> None:
        segment = require("rich.segment", "live", "the live table")
        cells = require("rich.cells", "live", "the live table")
        self._rows, self._segment, self._cell_length = rows, segment.Segment, cells.cell_len
        self._segments: list[Any] = []
        self._lines: list[str] = []
        self._height = mmap.mmap(-1, 1)  # of what stands there; forked processes see it change
        self.stale = True

    def __rich_console__(self, console: Any, options: Any) -> Iterable[Any]:
        if self.stale:
            size = (options.max_width, options.size.height)
            lines = layout(self._rows, size, options.ascii_only, self._cell_length)
            # Segments are text and style as they are: in a user's names there is no markup.
            styles = {style: console.get_style(style) for line in lines for _, style in line}
            self._segments = [
                piece
                for line in lines
                for piece in [*(self._segment(t, styles[s]) for t, s in line), self._segment.line()]
            ]
            self._lines = ["".join(text for text, _ in line) for line in lines]
            self._height[0] = min(len(lines), 255)
            self.stale = False
        return self._segments

    def around(self, lines: str) -> str:
        """Lines and the table below them, with the controls that put both in the table's place.

        It takes no lock, so that a process forked at any time may write it; the table is the one
        that stood when the process was forked, until the next drawing.
        """
        height = self._height[0]
        if height == 0:
            return f"{lines}\n"
        table = [*self._lines, *[""] * height][:height]
        erase = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (height - 1)
        return "\n".join([erase + lines, *table])

    def close(self) -> None:
        """No table stands any more that would have to be drawn again."""
        self._height[0] = 0


def open_live_table(
    names: Sequence[str], rounds: int, asked: Sequence[float] = ()
) -> LiveTable | None:
    """The live table on standard error, where it can be shown.

    Args:
        names: the tickets' names, in their order.
        rounds: how many rounds there are, with the closing round where there is one.
        asked: sparsity asked in every round of the schedule, where it is known beforehand.

    Returns:
        A context, or None where rich is missing, the terminal cannot move its cursor or is
        smaller than 60 columns or 10 lines, or another live display holds it.
    """
    if hasattr(sys.stderr, "rich_proxied_file"):
        return None
    try:
        rich = require("rich.console", "live", "the live table")
    except MissingExtra:
        return None
    console = rich.Console(file=sys.stderr, force_jupyter=False)
    fits = console.width >= SMALLEST[0] and console.height >= SMALLEST[1]
    if not (fits and console.is_terminal and console.is_interactive):
        return None
    return LiveTable(console, LiveRows(names, rounds, asked), len(asked) or rounds)
