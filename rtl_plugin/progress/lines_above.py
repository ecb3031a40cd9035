"""What a program prints while a live table stands: whole lines, above the table."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO, cast

_CURSOR_UP = re.compile(r"\x1b\[\d*[AF]")


class LinesAbove:
    r"""A text stream that hands over whole lines and is otherwise the stream that it stands for.

    A part of a line waits for its end. What a carriage return would overwrite is dropped, and so
    are lines that move the cursor up: both belong to bars, which have no place above a table.

    Args:
        stream: the stream.
        show: takes one or more lines without the last line end; False if it could not.
        around: the same lines -> what a process forked meanwhile has to write.

    Example:
        >>> shown = []
        >>> stream = LinesAbove(sys.stdout, lambda lines: shown.append(lines) is None, str)
        >>> stream.write("10%\r20%\rdone\nha"), stream.write("lf\n"), shown
        (15, 3, ['done', 'half'])
    """

    def __init__(
        self, stream: TextIO, show: Callable[[str], bool], around: Callable[[str], str]
    ) -> None:
        self._stream, self._show, self._around = stream, show, around
        self._pending, self._process = "", os.getpid()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream, by the name under which rich looks for it."""
        return self._stream

    def write(self, text: str) -> int:
        """Show the lines that ``text`` completes, and keep the rest."""
        if os.getpid() != self._process:  # the begun line is the other process's
            self._process, self._pending, self._show = os.getpid(), "", self._write_around
        *ended, self._pending = (self._pending + text).split("\n")
        self._pending = _visible(self._pending)
        lines = [_visible(line).removesuffix("\r") for line in ended if not _CURSOR_UP.search(line)]
        if lines and not self._show("\n".join(lines)):
            self._stream.write("\n".join([*lines, ""]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def release(self) -> None:
        """Write the begun line, if there is one, to the stream itself."""
        pending, self._pending = self._pending, ""
        if pending.strip() and not _CURSOR_UP.search(pending):
            self._stream.write(pending.removesuffix("\r"))
        self._stream.flush()

    def _write_around(self, lines: str) -> bool:
        self._stream.write(self._around(lines))
        return True


def _visible(line: str) -> str:
    """Without what is overwritten after a carriage return; one at the end overwrites nothing."""
    return line[line.rfind("\r", 0, max(len(line) - 1, 0)) + 1 :]


@contextmanager
def lines_above(show: Callable[[str], bool], around: Callable[[str], str]) -> Iterator[None]:
    """Lead standard error, and standard output where it is a terminal, and logging to ``show``.

    Args:
        show: takes one or more lines; False if it could not.
        around: lines -> what a process forked meanwhile, a DataLoader's worker say, has to write.

    Returns:
        A context; everything is as before when it ends.
    """
    with ExitStack() as stack:
        if sys.stdout is not None and sys.stdout.isatty():
            stack.enter_context(_replaced("stdout", show, around))
        stack.enter_context(_replaced("stderr", show, around))
        yield


@contextmanager
def _replaced(
    name: str, show: Callable[[str], bool], around: Callable[[str], str]
) -> Iterator[None]:
    before: TextIO = getattr(sys, name)
    above = LinesAbove(before, show, around)
    stream = cast(TextIO, above)
    handlers = _handlers_of(before)
    setattr(sys, name, stream)
    for handler in handlers:
        handler.setStream(stream)
    try:
        yield
    finally:
        if getattr(sys, name) is stream:  # not if somebody else has replaced it since
            setattr(sys, name, before)
        for handler in handlers:
            if handler.stream is stream:
                handler.setStream(before)
        with suppress(OSError):  # a terminal that has gone away is no reason to fail at the end
            above.release()


def _handlers_of(stream: TextIO) -> list[logging.StreamHandler[TextIO]]:
    """The log handlers that write to a stream: they hold it, wherever ``sys.stderr`` leads."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {h for logger in loggers for h in getattr(logger, "handlers", [])}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and vars(handler).get("stream") is stream
    ]
