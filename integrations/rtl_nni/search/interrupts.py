"""Signals that would end the caller at once become an exception, so that it can clean up."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGTERM", "SIGHUP")


class _Ended(BaseException):
    """A signal asked the process to end; no `except Exception` on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let a block clean up when SIGTERM or SIGHUP comes, then let the signal do its work.

    Ctrl-C needs no help: it is KeyboardInterrupt already. Signals reach the main thread alone;
    in another thread this does nothing, and the main one has to see to it. What the caller
    ignores stays ignored.

    Example:
        >>> with ending_on_signals():
        ...     signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        False
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handlers(_NAMES)
    came: list[int] = []

    def once(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # a second one must not interrupt the cleaning up
            raise _Ended(number)

    try:
        for number in before:
            signal.signal(number, once)
        yield
    except _Ended as ended:
        _put_back(before)
        signal.raise_signal(ended.number)
        # The caller's own handler returned: it still is an end, not a result.
        raise SystemExit(128 + ended.number) from None
    finally:
        _put_back(before)


@contextmanager
def holding_signals_back() -> Iterator[None]:
    """Let a block clean up to its end: Ctrl-C, SIGTERM and SIGHUP do their work after it.

    Example:
        >>> with holding_signals_back():
        ...     signal.getsignal(signal.SIGINT) is signal.default_int_handler
        False
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _handlers(("SIGINT", *_NAMES))
    came: list[int] = []
    try:
        for number in before:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        _put_back(before)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


def _handlers(names: Iterable[str]) -> dict[int, Any]:
    """Signal -> handler, of what this system has and the caller does not ignore."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # None: a handler that was not installed from Python, and could not be put back.
    found = {number: signal.getsignal(number) for number in numbers}
    return {n: handler for n, handler in found.items() if handler not in (signal.SIG_IGN, None)}


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
