"""Signals wait until a block has cleaned up, then do their work."""

import os
import signal
import threading
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni.search.interrupts import ending_on_signals, holding_signals_back


def _interrupted_twice(order: list[str]) -> None:
    with ending_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            order.append("not reached")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one interrupts nothing
            order.append("cleaned")


def test_a_signal_waits_for_the_cleaning_up() -> None:
    order: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: order.append("the caller's"))
    try:
        with pytest.raises(SystemExit) as ended:
            _interrupted_twice(order)
        assert ended.value.code == 128 + signal.SIGTERM
        assert order == ["cleaned", "the caller's"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_in_the_cleaning_up_waits_for_its_end(name: str) -> None:
    """The first one of all comes while the processes are being ended."""
    number = getattr(signal, name)
    order: list[str] = []
    before = signal.signal(number, lambda *_: order.append("the caller's"))
    try:
        with holding_signals_back():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            order.append("cleaned")
        assert order == ["cleaned", "the caller's"]
        signal.raise_signal(number)
        assert order == ["cleaned", "the caller's", "the caller's"]
    finally:
        signal.signal(number, before)


def test_what_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with holding_signals_back():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hold_nothing_back() -> None:
    seen: list[Any] = []

    def held() -> None:
        with holding_signals_back():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=held)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
