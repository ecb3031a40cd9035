"""The live table as lines of styled text, for a terminal of any width."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from rtl_plugin.progress.live_rows import LiveRows, TicketRow
from rtl_plugin.progress.round_lines import figure

Line: TypeAlias = list[tuple[str, str]]  # pieces of text, each with a style of rich

OTHER_LINES = 6  # header (two where it is long), headings, two below, and the cursor's
NAMES_ROOM = (14, 32)  # columns that names get where they need them: at least, at most
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-=^"

_STATE_STYLES = {"training": "bold cyan", "waiting": "dim", "done": "green", "left": "yellow"}


class Cell(NamedTuple):
    """A cell's text and its style.

    Args:
        text: what stands in it.
        style: a style of rich.
    """

    text: str
    style: str = ""


class Detail(NamedTuple):
    """How much the table says.

    Args:
        columns: alarm and state have columns of their own, and changes their figures.
        bars: losses in a trend.
        gap: blanks between columns.
        headings: of sparsity, loss, similarity, metric, state and alarm, as wide as the columns
            are at least, so that they do not jump when they fill.
    """

    columns: bool
    bars: int
    gap: int
    headings: tuple[str, ...]


DETAILS = (
    Detail(True, 6, 2, ("sparsity", f"{'loss':13}", f"{'similarity':12}", "metric",
                        f"{'state':15}", f"{'alarm':13}")),
    Detail(False, 3, 1, ("sparsity", f"{'loss':10}", "similar.", "metric", f"{'state':19}")),
    Detail(False, 0, 1, ("pruned", f"{'loss':6}", f"{'alike':7}", "metric", f"{'state':19}")),
)  # fmt: skip


def layout(
    rows: LiveRows, size: tuple[int, int], plain: bool, cell_length: Callable[[str], int] = len
) -> list[Line]:
    """The table's lines: header, headings, tickets, and what there was no room for.

    Args:
        rows: what is shown.
        size: columns and lines of the terminal.
        plain: keep to ASCII characters.
        cell_length: columns that a text takes.

    Returns:
        At most as many lines as the terminal has, none wider than it from 60 columns on.

    Example:
        >>> for line in layout(LiveRows(["indoor"], 2), (60, 24), plain=True):
        ...     print("".join(text for text, style in line).rstrip())
        round 0/2, 0:00 elapsed
        ticket sparsity loss       similar. state
        indoor -        -          -        waiting
    """
    width, height = size
    shown, rest = rows.visible(max(height - OTHER_LINES, 1))
    names = [printable(row.name, plain) for row in shown]
    longest = max(map(cell_length, names))
    for detail in DETAILS:
        columns = _columns(shown, detail, plain)
        room = width - sum(_width(column) + detail.gap for column in columns)
        if room >= min(longest, NAMES_ROOM[0]):
            break
    room = max(min(room, NAMES_ROOM[1]), 6)
    names = ["ticket", *(fitted(name, room, plain, cell_length) for name in names)]
    longest = max(map(cell_length, names))
    lines: list[Line] = [[(text, "bold")] for text in _wrapped(rows.header(), width)]
    # What is still too wide is cut off the last column, the state.
    last = width - longest - sum(_width(column) + detail.gap for column in columns[:-1])
    widths = [*map(_width, columns[:-1]), max(min(_width(columns[-1]), last - detail.gap), 4)]
    for number, name in enumerate(names):
        line: Line = [(name + " " * (longest - cell_length(name)), "" if number else "underline")]
        for column, room in zip(columns, widths, strict=True):
            text, style = column[number]
            text = fitted(text.rstrip(), room, plain).ljust(room)
            line += [(" " * detail.gap, ""), (text, style)]
        lines.append(line)
    below = [rest] if rest else []
    held = sum(row.at_floor for row in rows.rows.values())
    below += [f"the floor holds weights in {held} of {len(rows.rows)} tickets"] if held else []
    return [*lines, *([(text, "dim")] for text in below)]


def trend(values: Sequence[float], length: int, plain: bool) -> str:
    """The last values as a row of bars, from their lowest to their highest.

    Args:
        values: any numbers.
        length: how many of them, at most.
        plain: keep to ASCII characters.

    Returns:
        One character a value; nothing for fewer than two finite values.

    Example:
        >>> trend([3.0, 2.0, 1.0], 5, plain=True)
        '^-_'
    """
    last = [value for value in values[-length:] if math.isfinite(value)] if length else []
    if len(last) < 2:
        return ""
    blocks = PLAIN_BLOCKS if plain else BLOCKS
    low, spread = min(last), max(last) - min(last)
    if spread == 0:
        return blocks[0] * len(last)
    top = len(blocks) - 1
    return "".join(blocks[int((value - low) / spread * top + 0.5)] for value in last)


def printable(name: str, plain: bool) -> str:
    r"""A name as text of one line, which does nothing to a terminal.

    Args:
        name: any text.
        plain: keep to ASCII characters.

    Returns:
        The name, with a sign for every character that cannot be shown.

    Example:
        >>> printable("a\nb", plain=True)
        'a?b'
    """
    unknown = "?" if plain else "\N{REPLACEMENT CHARACTER}"
    return "".join(c if c.isprintable() and (c.isascii() or not plain) else unknown for c in name)


def fitted(text: str, room: int, plain: bool, cell_length: Callable[[str], int] = len) -> str:
    """A text without its middle, where it is too long.

    Args:
        text: one line.
        room: columns that it may take, at least 4.
        plain: keep to ASCII characters.
        cell_length: columns that a text takes.

    Returns:
        The text, or its ends: names of one family often differ in the last letters alone.

    Example:
        >>> fitted("environment_indoor", 10, plain=True)
        'envi...oor'
    """
    if cell_length(text) <= room:
        return text
    dots = "..." if plain else "…"
    free = room - len(dots)
    head, tail = text, ""
    while cell_length(head) > free - free // 2:
        head = head[:-1]
    for character in reversed(text):
        if cell_length(character + tail) > free // 2:
            break
        tail = character + tail
    return f"{head}{dots}{tail}"


def _columns(rows: Sequence[TicketRow], detail: Detail, plain: bool) -> list[list[Cell]]:
    """All columns but the names, each with its heading."""
    sparsity, loss, similarity, metric, state, *alarm = detail.headings
    columns = {
        sparsity: [_number(row.sparsity, ".2%") for row in rows],
        loss: [_loss(row, detail.bars, plain) for row in rows],
        similarity: [_similarity(row, figures=detail.columns) for row in rows],
    }
    if any(row.metric is not None for row in rows):
        columns[metric] = [_number(row.metric, ".4g") for row in rows]
    if alarm:
        columns[alarm[0]] = [Cell(row.alarm or "", "bold red") for row in rows]
        columns[state] = [Cell(row.doing, _STATE_STYLES.get(row.state, "")) for row in rows]
    else:
        columns[state] = [_alarm_and_state(row) for row in rows]
    return [[Cell(name, "underline"), *cells] for name, cells in columns.items()]


def _width(column: Sequence[Cell]) -> int:
    return max(len(cell.text) for cell in column)


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 2 > width:
            lines.append(part)
        else:
            lines[-1] += f", {part}"
    return lines


def _number(value: float | None, form: str) -> Cell:
    return Cell("-", "dim") if value is None else Cell(format(value, form))


def _loss(row: TicketRow, bars: int, plain: bool) -> Cell:
    if not row.losses:
        return Cell("-", "dim")
    return Cell(f"{figure(row.losses[-1])} {trend(row.losses, bars, plain)}".rstrip())


def _similarity(row: TicketRow, figures: bool) -> Cell:
    if row.similarity is None:
        return Cell("-", "dim")
    if row.change is None:
        return Cell(f"{row.similarity:.3f}")
    sign = "+" if row.change > 0 else "-" if row.change < 0 else "="
    return Cell(f"{row.similarity:.3f} {f'{row.change:+.3f}' if figures else sign}")


def _alarm_and_state(row: TicketRow) -> Cell:
    """Both in one column; who has an alarm and left has the alarm to thank for it."""
    if row.alarm is None:
        return Cell(row.doing, _STATE_STYLES.get(row.state, ""))
    state = {"left": "left", "waiting": "", "done": ""}.get(row.state, row.doing.split()[-1])
    return Cell(", ".join(filter(None, [row.alarm, state])), "bold red")
