"""What a run tells: a row a (round, group), and lines on a terminal."""

import io
import json
import sys

import pytest

import rtl_plugin as rtl
from rtl_nni import IdenticalTickets, Report, RoundRow
from tests.nni.networks import CNN, LEVEL, MLP, pruner_of


def test_rows_and_columns() -> None:
    schedule = rtl.GeometricSchedule(0.5, rounds=2)
    pruner = pruner_of(MLP, MLP.build(), LEVEL, schedule=schedule)
    assert not pruner.report.rows
    pruner.compress()
    printed = str(pruner.report)
    assert printed.split("\n")[0].split() == ["round", "group", "asked", "achieved", "seconds"]
    assert len(printed.split("\n")) == 2 + 6
    assert all(row.seconds > 0 for row in pruner.report.rows)
    assert set(pruner.report.rows[0].layers) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_thresholds_ask_for_no_ratio() -> None:
    config = [{"op_names": ["2"], "sparse_threshold": 0.2}]
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config)
    pruner.compress()
    assert pruner.report.rows[0].asked is None
    assert "threshold" in str(pruner.report)


def test_ratios_are_weighted_by_size() -> None:
    config = [
        {"op_names": ["0"], "sparse_ratio": 0.25},
        {"op_names": ["2"], "sparse_ratio": 0.75},
    ]
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config)
    pruner.compress()
    expected = (0.25 * 96 + 0.75 * 192) / 288
    assert pruner.report.rows[0].asked == pytest.approx(expected)
    assert pruner.report.rows[0].achieved == pytest.approx(expected)


def test_history_is_what_json_can_hold() -> None:
    pruner = pruner_of(CNN, CNN.build(), names=("a",))
    pruner.compress()
    history = pruner.tickets.history
    assert json.loads(json.dumps(history)) == history
    assert history[0] == pruner.report.rows[0].history()


def test_notes_are_printed_below_the_table() -> None:
    report = Report([RoundRow(1, "a", 0.5, 0.5, {}, 0.1)], ["something is unusual"])
    assert str(report).endswith("\n\nsomething is unusual")


def test_emptied_layers_are_named() -> None:
    config = [
        {"op_names": ["0"], "sparse_ratio": 0.25},
        {"op_names": ["2"], "sparse_threshold": 50.0},
    ]
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config, names=("a",))
    pruner.compress()
    assert any("nothing kept in a: 2.weight" in note for note in pruner.report.notes)


def test_a_second_run_has_a_report_of_its_own() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL)
    pruner.compress()
    first = pruner.report
    pruner.compress()
    assert pruner.report is not first
    assert len(pruner.report.rows) == len(first.rows) == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("wanted", "terminal"), [(True, True), (False, True), (True, False)])
def test_progress_is_for_terminals(
    wanted: bool, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    pruner_of(MLP, MLP.build(), LEVEL, progress=wanted).compress()
    lines = [line for line in stream.getvalue().splitlines() if "round 1/1" in line]
    assert len(lines) == (3 if wanted and terminal else 0)


def test_identical_tickets_are_a_warning_that_can_be_filtered() -> None:
    assert issubclass(IdenticalTickets, UserWarning)
