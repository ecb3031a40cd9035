"""The live table on a screen: what stands there while a discovery runs, and what is left."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tqdm import tqdm

from rtl_plugin.progress import Progress, RoundsView, live_table
from rtl_plugin.progress.live_table import LiveTable
from tests.core.terminal import Screen, Terminal


class Stage:
    """A terminal of a size, and what its screen shows now."""

    def __init__(self, columns: int, lines: int) -> None:
        self.size, self.terminal = (columns, lines), Terminal()
        self._screen, self._fed = Screen(columns, lines), 0

    @property
    def screen(self) -> Screen:
        text = self.terminal.getvalue()
        self._screen.feed(text[self._fed :])
        self._fed = len(text)
        return self._screen

    @property
    def lines(self) -> list[str]:
        return self.screen.text.splitlines()


@pytest.fixture
def stage_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("TTY_INTERACTIVE", "TTY_COMPATIBLE", "NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    # Every step is drawn, so that what is seen does not depend on the machine.
    monkeypatch.setattr(live_table, "INTERVAL", 0.0)
    monkeypatch.setattr(live_table, "SHARE", float("inf"))

    @contextmanager
    def opened(columns: int = 100, lines: int = 24) -> Iterator[Stage]:
        stage = Stage(columns, lines)
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("LINES", str(lines))
            # Here and not before: between a test's phases pytest sets both streams anew.
            patch.setattr(sys, "stderr", stage.terminal)
            patch.setattr(sys, "stdout", stage.terminal)
            yield stage

    return opened


def timeless(line: str) -> str:
    """How long something took depends on the machine."""
    return re.sub(r"\d+:\d\d", "T", line).partition(", about T left")[0]


def row(round: int, group: str, **others: Any) -> dict[str, Any]:
    sparsity = 1 - 0.5**round
    return {
        "round": round, "group": group, "asked": sparsity, "achieved": sparsity, "loss": 0.125,
        "metric": None, "at_floor": [], **others,
    }  # fmt: skip


def one_round(
    view: RoundsView, round: int, names: Sequence[str], steps: int = 3, **ends: dict[str, Any]
) -> None:
    for name in names:
        for _ in view.track(range(steps), name, round):
            pass
        view.group_done(row(round, name), 0.1)
    common = {"similarity": 0.25 * round, "excess": 0.0, "alarm": None, "left": False}
    view.round_done([row(round, name, **{**common, **ends.get(name, {})}) for name in names])


def alarm(round: int, name: str) -> dict[str, Any]:
    text = f"{name}, round {round}: explained"
    return {
        "round": round, "direction": "rise", "last_good_round": round - 1, "explanation": text,
    }  # fmt: skip


def test_a_discovery_step_by_step(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage:
        with Progress(True).rounds(["a", "b"], 2) as view:
            assert isinstance(view, LiveTable)
            assert timeless(stage.lines[0]) == "round 0/2, T elapsed"
            assert [line.split()[::4] for line in stage.lines[2:]] == [
                ["a", "waiting"], ["b", "waiting"],
            ]  # fmt: skip
            assert not stage.screen.cursor_visible
            for step, _ in enumerate(view.track(range(500), "a", 1), start=1):
                if step == 120:
                    assert stage.lines[2].endswith("step 120/500")
            view.group_done(row(1, "a"), 0.1)
            assert stage.lines[2].split() == ["a", "50.00%", "0.1250", "-", "done"]
            one_round(view, 1, ["b"])
            view.round_done([row(1, "a", similarity=0.25)])
            one_round(view, 2, ["a", "b"], b={"alarm": alarm(2, "b"), "left": True})
        left = stage.lines
        assert left[0] == "alarm: b, round 2: explained; leaves the rounds"
        assert timeless(left[1]) == "round 2/2, asked so far 75.00%, took T"
        a, b = left[3:]
        assert a.split() == ["a", "75.00%", "0.1250", "▁▁", "0.500", "+0.250", "done"]
        assert b.split()[:5] == ["b", "50.00%", "0.1250", "▁▁", "0.250"]
        assert b.endswith("round 2: rise  left the rounds")
        assert stage.screen.cursor_visible
        assert stage.terminal.getvalue().endswith("\x1b[?25h"), "on a line of its own"
        assert stage.screen.x == 0


@pytest.mark.parametrize("size", [(60, 24), (60, 10), (100, 24)])
@pytest.mark.parametrize("count", [5, 300])
def test_it_never_scrolls(
    count: int,
    size: tuple[int, int],
    stage_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if count == 300:
        monkeypatch.setattr(live_table, "INTERVAL", 0.002)  # this test's screen is slow
    names = [f"a long name of an environment {k}" for k in range(count)]
    with stage_of(*size) as stage:
        with Progress(True).rounds(names, 2) as view:
            for round in (1, 2):
                one_round(view, round, names, steps=1)
        lines = stage.lines
        assert len(lines) < size[1]
        assert sum(line.startswith("round") for line in lines) == 1
        shown = sum("a lo" in line for line in lines)
        assert shown == min(count, size[1] - 6)
        if shown < count:
            assert f"and {count - shown} more: {count - shown} done" in lines
        assert max(map(len, lines)) <= size[0]


def test_many_alarms_are_counted(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_table, "INTERVAL", 0.002)
    names = [f"t{k}" for k in range(300)]
    with stage_of() as stage:
        with Progress(True).rounds(names, 1) as view:
            one_round(view, 1, names, 1, **{n: {"alarm": alarm(1, n), "left": True} for n in names})
        lines = stage.lines
        above = [line for line in lines if "explained" in line]
        assert above == [f"alarm: t{k}, round 1: explained; leaves the rounds" for k in range(3)]
        assert "round 1/1: 297 more alarms or leaves" in lines
        assert "and 282 more: 282 left the rounds, 282 with an alarm" in lines


NASTY = ["[red]x[/red]", ":smile:", "[", "日本語", "a\nb", "\x1b[2J"]


def test_names_are_text_and_nothing_else(stage_of: Callable[..., Any]) -> None:
    with stage_of(60) as stage:
        with Progress(True).rounds(NASTY, 1) as view:
            ends = {name: {"alarm": alarm(1, name)} for name in NASTY[::2]}
            one_round(view, 1, NASTY, **ends)
            view.say("[bold]said[/bold] :smile:")
            view.say("in\ntwo \x1b[2J")
        names = [line.split()[0] for line in stage.lines[-len(NASTY) :]]
        assert names == ["[red]x[/red]", ":smile:", "[", "日本語", "a�b", "�[2J"]
        for name in ("[red]x[/red]", "[", "a\ufffdb"):
            assert f"alarm: {name}, round 1: explained" in stage.lines
        assert "[bold]said[/bold] :smile:" in stage.lines
        assert "in\ufffdtwo \ufffd[2J" in stage.lines


def test_what_else_is_printed_stands_above(stage_of: Callable[..., Any]) -> None:
    logger = logging.getLogger("rtl_plugin_tests.live")
    with stage_of(60) as stage:
        handler = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        with Progress(True).rounds(["a"], 1) as view:
            for step in view.track(range(5), "a", 1):
                if step == 1:
                    print("printed 42 [red]as is[/red]", "x" * 60)
                    logger.warning("logged")
                if step == 2:
                    for _ in tqdm(range(3), desc="inner", leave=False):
                        pass
                    Progress(True).say("said by another")
            view.group_done(row(1, "a"), 0.1)
        logger.removeHandler(handler)
        text = "printed 42 [red]as is[/red] " + "x" * 60
        assert text in stage.terminal.getvalue(), "without colors of ours"
        assert stage.lines[:4] == [text[:60], text[60:], "logged", "said by another"]
        assert stage.lines[4].startswith("round 1/1, ")
        assert len(stage.lines) == 7, "no more than one table"
        assert "inner" not in stage.screen.text


def test_standard_output_in_a_file_stays_there(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    path = tmp_path / "results"
    with stage_of() as stage, path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with Progress(True).rounds(["a"], 1) as view:
            print("a result")
            one_round(view, 1, ["a"])
    assert path.read_text() == "a result\n"
    assert "a result" not in stage.screen.text


def test_a_bar_of_the_callers_comes_back_below(stage_of: Callable[..., Any]) -> None:
    with stage_of(60) as stage:
        for seed in tqdm(range(2), desc="seeds", file=sys.stderr, mininterval=0):
            with Progress(True).rounds([f"a{seed}"], 1) as view:
                one_round(view, 1, [f"a{seed}"])
                assert "seeds" not in stage.screen.text
        kinds = [line.split()[0] for line in stage.lines]
        assert kinds == ["round", "ticket", "a0", "round", "ticket", "a1", "seeds:"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_leaves_the_terminal_clean(
    kind: type[BaseException], stage_of: Callable[..., Any]
) -> None:
    with stage_of() as stage:
        with pytest.raises(kind), Progress(True).rounds(["a", "b"], 3) as view:  # noqa: PT012
            one_round(view, 1, ["a", "b"])
            for step in view.track(range(9), "a", 2):
                if step == 4:
                    raise kind
        assert sys.stderr is stage.terminal
        assert sys.stdout is stage.terminal
        assert stage.screen.cursor_visible
        assert stage.screen.x == 0
        header, _, a, b = stage.lines
        assert timeless(header) == "round 2/3, asked so far 50.00%, stopped after T"
        assert a.endswith("stopped at 5/9")
        assert b.endswith("waiting")


@pytest.mark.parametrize("place", ["start", "step", "say", "end"])
def test_a_terminal_that_goes_away_does_not_end_the_training(
    place: str, stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    def hang_up(stage: Stage) -> None:
        monkeypatch.setattr(stage.terminal, "write", gone)
        monkeypatch.setattr(stage.terminal, "flush", gone)

    with stage_of() as stage:
        steps = 0
        if place == "start":
            hang_up(stage)
        with Progress(True).rounds(["a"], 1) as view:
            for step in view.track(range(5), "a", 1):
                steps += 1
                if step == 2 and place in {"step", "say"}:
                    hang_up(stage)
                    if place == "say":
                        view.say("unheard")
            view.round_done([row(1, "a")])
            if place == "end":
                hang_up(stage)
        assert steps == 5
        assert sys.stderr is stage.terminal


def test_a_terminal_that_failed_once_gets_no_more_tables(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> int:
        raise OSError(5, "Input/output error")

    with stage_of() as stage, Progress(True).rounds(["a"], 1) as view:
        with monkeypatch.context() as patch:
            patch.setattr(stage.terminal, "write", gone)
            view.say("unheard")
        length = len(stage.terminal.getvalue())
        one_round(view, 1, ["a"])
        print("printed")
        assert stage.terminal.getvalue()[length:] == "printed\n"


def test_a_printed_line_does_not_work_the_table_out_again(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts, layout = [], live_table.layout
    monkeypatch.setattr(live_table, "layout", lambda *a: layouts.append(a) or layout(*a))
    with stage_of() as stage, Progress(True).rounds(["a"], 1) as view:
        before = len(layouts)
        for _ in range(5):
            print("printed")
        assert (before, len(layouts)) == (1, 1)
        one_round(view, 1, ["a"])
        assert len(layouts) > 1
        assert stage.lines[:5] == ["printed"] * 5


def test_a_terminal_that_knows_ascii_alone(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Terminal, "encoding", "ascii", raising=False)
    with stage_of() as stage:
        with Progress(True).rounds(["日本", "a very long name of an environment"], 2) as view:
            for round in (1, 2):
                one_round(view, round, ["日本", "a very long name of an environment"])
        assert stage.terminal.getvalue().isascii()
        assert stage.lines[2].startswith("?? ")


def test_the_sparsity_asked_is_shown_where_it_is_known(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage, Progress(True).rounds(["a"], 2, asked=[0.25, 0.5]) as view:
        for _ in view.track(range(2), "a", 1):
            assert stage.lines[0].startswith("round 1/2, asked 25.00%, ")


def test_a_closing_round_is_none_of_the_schedule(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage, Progress(True).rounds(["a", "b"], 2, asked=[0.5]) as view:
        one_round(view, 1, ["a", "b"], b={"alarm": alarm(1, "b"), "left": True})
        for _ in view.track(range(2), "a", 2):
            assert timeless(stage.lines[1]) == "closing round, T elapsed"
        view.group_done(row(2, "a", closing=True), 0.1)
        view.round_done([row(2, "a", closing=True)])
        assert [line.split()[-1] for line in stage.lines[3:]] == ["done", "rounds"]


def test_alarms_are_counted_in_rounds_of_the_schedule(stage_of: Callable[..., Any]) -> None:
    names = ["a", "b", "c", "d"]
    with stage_of() as stage, Progress(True).rounds(names, 2, asked=[0.5]) as view:
        one_round(view, 1, names, 1, **{n: {"alarm": alarm(1, n), "left": True} for n in names})
        assert "round 1/1: 1 more alarms or leaves" in stage.lines


def test_no_color(stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for _ in range(2):
        with stage_of() as stage, Progress(True).rounds(["a"], 1) as view:
            one_round(view, 1, ["a"])
        shown.append(stage.terminal.getvalue())
        monkeypatch.setenv("NO_COLOR", "1")
    green = "\x1b[32m"
    assert green in shown[0]
    assert not any(f"\x1b[{code}m" in shown[1] for code in ("32", "36", "31", "1;31", "1;36"))
    assert "done" in shown[1]


def test_a_forked_process_keeps_the_table_whole(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage:
        with Progress(True).rounds(["a", "b"], 2) as view:
            one_round(view, 1, ["a", "b"])
            before, stderr, owner = stage.lines, sys.stderr, os.getpid()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "getpid", lambda: owner + 1)
                print("from a worker\nin two lines", file=sys.stderr)
                assert stage.lines == ["from a worker", "in two lines", *before]
            one_round(view, 2, ["a", "b"])
            assert stage.lines[:2] == ["from a worker", "in two lines"]
            assert len(stage.lines) == 2 + len(before)
        length = len(stage.terminal.getvalue())
        stderr.write("a worker that lives on\n")
        assert stage.terminal.getvalue()[length:] == "a worker that lives on\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_sees_the_height_of_now(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage, Progress(True).rounds(["a", "b"], 1) as view:
        assert isinstance(view, LiveTable)
        read, write = os.pipe()
        go_read, go_write = os.pipe()
        if (child := os.fork()) == 0:
            os.read(go_read, 1)
            os.write(write, view._frame.around("x").encode())
            os._exit(0)
        view.group_done(row(1, "a", at_floor=["w"]), 0.1)  # one line more
        os.write(go_write, b"!")
        os.waitpid(child, 0)
        wrote = os.read(read, 65536).decode()
        assert wrote.count("\x1b[1A") == len(stage.lines) - 1 == 4
        assert wrote.count("\n") == 5
        for each in (read, write, go_read, go_write):
            os.close(each)


def test_items_of_any_kind_come_through(stage_of: Callable[..., Any]) -> None:
    with stage_of() as stage, Progress(True).rounds(["a"], 1) as view:
        assert list(view.track(iter("xyz"), "a", 1)) == ["x", "y", "z"]
        assert stage.lines[2].endswith("step 3")
        assert list(view.track([], "a", 1)) == []


def test_it_draws_at_most_eight_times_a_second(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_table, "INTERVAL", 0.125)
    now = [0.0]
    monkeypatch.setattr(live_table.time, "monotonic", lambda: now[0])
    with stage_of() as stage, Progress(True).rounds(["a"], 1) as view:
        drawn = []
        for _ in view.track(range(100), "a", 1):
            now[0] += 0.01
            drawn.append(stage.terminal.getvalue().count("elapsed"))
        assert drawn[-1] - drawn[0] == pytest.approx(1.0 / 0.13, abs=1)
        assert len(drawn) == 100


def test_drawing_takes_its_share_of_the_time_and_no_more(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_table, "SHARE", 0.02)
    now = [0.0]
    monkeypatch.setattr(live_table.time, "monotonic", lambda: now[0])
    with stage_of() as stage:
        write = stage.terminal.write

        def slowly(text: str) -> int:
            now[0] += 0.05
            return write(text)

        monkeypatch.setattr(stage.terminal, "write", slowly)
        with Progress(True).rounds(["a"], 1) as view:
            began = now[0]
            for _ in view.track(range(1000), "a", 1):
                now[0] += 0.1
            drawing = now[0] - began - 100.0
            assert 0 < drawing <= 0.025 * 100.0


def test_a_step_costs_less_than_twenty_microseconds(
    stage_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_table, "INTERVAL", 0.125)
    monkeypatch.setattr(live_table, "SHARE", 0.02)
    names = [f"t{k}" for k in range(300)]
    with stage_of(), Progress(True).rounds(names, 1) as view:
        took = []
        for _ in range(5):
            began = time.thread_time()
            for _ in view.track(range(20_000), "t0", 1):
                pass
            took.append((time.thread_time() - began) / 20_000)
    assert min(took) < 20e-6
