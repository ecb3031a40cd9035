"""Signals that would end the caller at once become an exception, so that it can clean up."""

import signal
import threading
from collections.abc import Iterator
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
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # None: a handler that was not installed from Python, and could not be put back.
    found = {n: signal.getsignal(n) for n in numbers}
    before: dict[int, Any] = {
        n: handler for n, handler in found.items() if handler not in (signal.SIG_IGN, None)
    }
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


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
