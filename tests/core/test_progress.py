"""Progress goes to a terminal's standard error, and nowhere else, unless lines are wanted."""

import io
import math
import sys
from typing import Any

import pytest

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.progress import Progress
from rtl_plugin.progress.live_table import LiveTable
from rtl_plugin.progress.round_lines import alarm_lines, figure, group_line, round_line
from tests.core.terminal import Terminal

ROW = {
    "round": 1, "group": "a", "asked": 0.5, "achieved": 0.4996, "loss": 0.12344, "at_floor": [],
}  # fmt: skip
ALARM = {
    "round": 1, "sparsity": 0.5, "direction": "fall", "last_good_round": 0,
    "explanation": "b, round 1: from 1.00 to 0.33",
}  # fmt: skip


@pytest.mark.parametrize(
    ("enabled", "terminal", "shown"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_it_shows_only_where_it_is_wanted_and_somebody_looks(
    enabled: bool,
    terminal: bool,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    progress = Progress(enabled)
    assert list(progress.track(iter([3, 1, 2]), "training indoor")) == [3, 1, 2]
    progress.say("round 1 done")
    captured = capsys.readouterr()
    assert captured.out == ""
    if shown:
        assert "training indoor" in captured.err
        assert "round 1 done\n" in captured.err
    else:
        assert captured.err == ""


@pytest.mark.parametrize("wrong", ["line", "LINES", "", 1, 0, None, ["lines"], 0.5])
def test_another_value_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="must be True, False or 'lines', got") as caught:
        Progress(wrong)
    assert str(caught.value).endswith(repr(wrong))


def discovered(progress: Progress) -> None:
    """Two groups in one round, as `discover` reports them."""
    with progress.rounds(["a", "b"], 2) as view:
        for group in ("a", "b"):
            assert list(view.track(iter("xyz"), group, 1)) == ["x", "y", "z"]
            view.group_done({**ROW, "group": group}, 1.26)
        similar = {"similarity": 0.25, "excess": -0.125, "alarm": None, "left": False}
        second = {**ROW, **similar, "group": "b", "alarm": ALARM, "left": True}
        view.round_done([{**ROW, **similar}, second])
        view.say("that is all")


LINES = """\
round 1/2 a: asked 50.00%, achieved 49.96%, loss 0.1234, rewind verified, 1.3 s
round 1/2 b: asked 50.00%, achieved 49.96%, loss 0.1234, rewind verified, 1.3 s
round 1/2: mean similarity 0.2500, 0.1250 below chance
alarm: b, round 1: from 1.00 to 0.33; leaves the rounds
that is all
"""


def test_lines_go_to_a_file_without_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    discovered(Progress("lines"))
    assert sys.stderr.getvalue() == LINES


def test_lines_on_a_terminal_have_bars_and_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    discovered(Progress("lines"))
    shown = sys.stderr.getvalue()
    assert "a, 1: 0it" in shown
    assert "\x1b[?25l" not in shown
    for line in LINES.splitlines():
        assert line in shown


def test_silence_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    discovered(Progress(False))
    assert sys.stderr.getvalue() == ""


def test_without_a_terminal_it_is_silent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    discovered(Progress(True))
    assert sys.stderr.getvalue() == ""


def good_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    for name in ("TTY_INTERACTIVE", "TTY_COMPATIBLE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return terminal


def has_a_table() -> bool:
    return isinstance(Progress(True).rounds(["a"], 1), LiveTable)


def test_a_good_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    good_terminal(monkeypatch)
    assert has_a_table()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TERM", "dumb"), ("TERM", "unknown"), ("COLUMNS", "59"), ("LINES", "9")],
)
def test_a_terminal_that_cannot_hold_a_table_has_lines(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = good_terminal(monkeypatch)
    monkeypatch.setenv(variable, value)
    assert not has_a_table()
    discovered(Progress(True))
    for line in LINES.splitlines():
        assert line in terminal.getvalue()


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = good_terminal(monkeypatch)
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoRich(), *sys.meta_path])
    assert not has_a_table()
    discovered(Progress(True))
    for line in LINES.splitlines():
        assert line in terminal.getvalue()


class _NoRich:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "rich":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_notebook_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    good_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert not has_a_table()


def test_a_notebook_is_no_terminal_and_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    discovered(Progress(True))
    assert "a, 1: 0it" in sys.stderr.getvalue()
    for line in LINES.splitlines():
        assert line in sys.stderr.getvalue()


def test_forced_colors_make_no_terminal_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    good_terminal(monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not has_a_table()
    discovered(Progress(True))
    assert sys.stderr.getvalue() == ""


def test_another_live_display_keeps_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    good_terminal(monkeypatch)
    with Progress(True).rounds(["a"], 1) as view:
        assert isinstance(view, LiveTable)
        assert not has_a_table()
    assert has_a_table()


def test_the_lines_of_a_group() -> None:
    full = {**ROW, "at_floor": ["w", "v"], "metric": 0.987654}
    assert group_line(full, 3, 0.04) == (
        "round 1/3 a: asked 50.00%, achieved 49.96%, loss 0.1234, metric 0.9877, rewind "
        "verified, 0.0 s; floor holds w, v"
    )
    closing = {"round": 3, "group": "a", "closing": True, "achieved": 0.5, "loss": 1.0}
    assert group_line(closing, 2, 2.0) == (
        "closing round a: sparsity 50.00%, loss 1.0000, rewind verified, 2.0 s"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0000"), (0, "0.0000"), (1e-3, "0.0010"), (9.9e-4, "9.90e-04"), (4e-5, "4.00e-05"),
        (-4e-5, "-4.00e-05"), (0.12344, "0.1234"), (999.9, "999.9000"), (1e3, "1.00e+03"),
        (math.nan, "nan"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_a_small_loss_or_metric_does_not_look_like_nothing(value: float, shown: str) -> None:
    assert figure(value) == shown
    line = group_line({**ROW, "loss": value, "metric": value}, 1, 0.0)
    assert f", loss {shown}, metric {shown}, " in line


NASTY = "a\nb\x1b[2J\rc\x07日"
HARMLESS = "a\ufffdb\ufffd[2J\ufffdc\ufffd日"


def test_a_name_breaks_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress("lines").rounds([NASTY], 1) as view:
        assert list(view.track([1], NASTY, 1)) == [1]
        view.group_done({**ROW, "group": NASTY}, 0.0)
        view.round_done([{**ROW, "group": NASTY, "left": True}])
        view.round_done([{**ROW, "alarm": {**ALARM, "explanation": f"{NASTY}: rises"}}])
    Progress("lines").say(f"epoch 1/1: loss {NASTY} 0.1")
    assert sys.stderr.getvalue() == (
        f"round 1/1 {HARMLESS}: asked 50.00%, achieved 49.96%, loss 0.1234, rewind verified, 0.0 s"
        f"\nround 1/1 {HARMLESS}: leaves the rounds\nalarm: {HARMLESS}: rises\n"
        f"epoch 1/1: loss {HARMLESS} 0.1\n"
    )


def test_a_name_breaks_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("lines").rounds([NASTY], 1) as view:
        assert list(view.track([1], NASTY, 1)) == [1]
    assert f"{HARMLESS}, 1: " in sys.stderr.getvalue()
    assert "\x1b[2J" not in sys.stderr.getvalue()


def test_a_closing_round_is_none_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("lines").rounds(["a"], 2, asked=[0.5]) as view:
        assert list(view.track([1], "a", 1)) == [1]
        view.group_done(ROW, 0.0)
        assert "closing" not in sys.stderr.getvalue()
        assert list(view.track([1], "a", 2)) == [1]
        view.group_done({**ROW, "round": 2, "closing": True}, 0.0)
        view.round_done([{**ROW, "round": 2, "closing": True}])
    shown = sys.stderr.getvalue()
    assert "round 1/1 a: asked 50.00%" in shown
    assert "a, closing round: " in shown
    assert "closing round a: sparsity 49.96%" in shown
    assert "/2" not in shown


def test_a_round_without_similarity_has_no_line() -> None:
    assert round_line([], 2) is None
    assert round_line([ROW, {**ROW, "similarity": None, "excess": None}], 2) is None
    assert round_line([{**ROW, "similarity": 0.5}], 2) == "round 1/2: mean similarity 0.5000"
    assert alarm_lines([ROW, {**ROW, "alarm": None, "left": False}], 2) == []
    assert alarm_lines([{**ROW, "left": True}], 2) == ["round 1/2 a: leaves the rounds"]
