"""What is printed while a table stands: whole lines, to the right stream, nothing lost."""

import io
import logging
import os
import sys

import pytest

from rtl_plugin.progress.lines_above import LinesAbove, lines_above
from tests.core.terminal import Terminal


class Shown(list[str]):
    def __call__(self, lines: str) -> bool:
        self.append(lines)
        return True


def around(lines: str) -> str:
    return f"<{lines}>"


@pytest.mark.parametrize(
    ("written", "shown", "rest"),
    [
        (["a\n"], ["a"], ""),
        (["a", "b\nc"], ["ab"], "c"),
        (["a\n\nb\n"], ["a\n\nb"], ""),
        (["a\r\n"], ["a"], ""),
        (["10%\r", "20%\r", "100%\n"], ["100%"], ""),
        (["\r10%", "\r20%", "\r   \r"], [], ""),
        (["\r10%", "\r   \r", "next\n"], ["next"], ""),
        (["\n", "\r10%", "\x1b[A", "\n", "\r20%", "\x1b[A"], [""], ""),
        (["\x1b[32mgreen\x1b[0m\n"], ["\x1b[32mgreen\x1b[0m"], ""),
        (["unfinished\r"], [], "unfinished"),
    ],
)
def test_whole_lines_are_shown_and_the_rest_is_kept(
    written: list[str], shown: list[str], rest: str
) -> None:
    stream, lines = io.StringIO(), Shown()
    above = LinesAbove(stream, lines, around)
    for text in written:
        assert above.write(text) == len(text)
    assert lines == shown
    assert stream.getvalue() == ""
    above.release()
    above.release()
    assert stream.getvalue() == rest


def test_writelines() -> None:
    lines = Shown()
    LinesAbove(io.StringIO(), lines, around).writelines(["a\n", "b\n"])
    assert lines == ["a", "b"]


def test_what_cannot_be_shown_goes_to_the_stream() -> None:
    stream = io.StringIO()
    LinesAbove(stream, lambda lines: False, around).write("a\nb\nc")
    assert stream.getvalue() == "a\nb\n"


def test_bytes_are_refused_as_the_stream_refuses_them() -> None:
    with pytest.raises(TypeError):
        LinesAbove(io.StringIO(), Shown(), around).write(b"a\n")  # type: ignore[arg-type]


def test_a_forked_process_writes_what_it_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, lines = io.StringIO(), Shown()
    above = LinesAbove(stream, lines, around)
    above.write("begun before")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    above.write("from a worker\nand ")
    above.write("more\n")
    assert stream.getvalue() == "<from a worker><and more>"
    assert lines == []


def test_it_is_otherwise_the_stream() -> None:
    stream = Terminal()
    above = LinesAbove(stream, Shown(), around)
    assert above.isatty()
    assert above.encoding == stream.encoding
    above.flush()
    with pytest.raises(AttributeError):
        _ = above.no_such_thing


def test_everything_that_prints_is_led_above(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err, lines = Terminal(), Terminal(), Shown()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    logger = logging.getLogger("rtl_plugin_tests.progress")
    handler = logging.StreamHandler(err)
    logger.addHandler(handler)
    try:
        with lines_above(lines, around):
            print("printed")
            print("to standard error", file=sys.stderr)
            logger.warning("logged")
            print("no end", end="")
        assert lines == ["printed", "to standard error", "logged"]
        assert (out.getvalue(), err.getvalue()) == ("no end", "")
        assert (sys.stdout, sys.stderr, handler.stream) == (out, err, err)
        logger.warning("logged again")
        assert err.getvalue() == "logged again\n"
    finally:
        logger.removeHandler(handler)


def test_everything_is_as_before_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(ZeroDivisionError), lines_above(Shown(), around):  # noqa: PT012
        sys.stderr.write("begun")
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == (out, err)
    assert err.getvalue() == "begun"


def test_standard_output_that_is_no_terminal_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, lines = io.StringIO(), Shown()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with lines_above(lines, around):
        assert sys.stdout is out
        print("a result")
    assert out.getvalue() == "a result\n"
    assert lines == []


def test_a_stream_that_somebody_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Terminal())
    with lines_above(Shown(), around):
        monkeypatch.setattr(sys, "stderr", mine)
    assert sys.stderr is mine
