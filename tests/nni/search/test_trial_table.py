"""The table of trials: its columns, its star, and what it cuts."""

import math

import pytest

from rtl_nni.search.records import TrialRecord
from rtl_nni.search.trial_table import best_trial, trial_table, varying_parameters
from rtl_plugin.errors import InvalidArgument

FINISHED = TrialRecord(
    "qRmXw", "finished", {"rounds": 3, "steps": 10, "private_parameters": ["*.bias"]}, sequence=0,
    metric=0.85, intermediate=(0.8,), sparsity=0.9, parameters=12345, steps_planned=1000,
    steps_done=1000,
)  # fmt: skip
STOPPED = TrialRecord(
    "Zt5aB", "stopped", {"rounds": 4, "steps": 10, "lr": 1e-3}, sequence=1,
    intermediate=(0.7, 0.95), sparsity=0.75, steps_planned=2000, steps_done=500,
    reason="the masks of 5 of 5\ntickets changed abruptly by round 6 of 9",
)  # fmt: skip
DIED = TrialRecord("k0oPs", "died", {"rounds": 4, "steps": 10}, sequence=2, error="boom | bang")


def cells(records: list[TrialRecord]) -> list[list[str]]:
    """The table by columns' widths."""
    header, rule, *lines = trial_table(records).split("\n")
    starts = [n for n, mark in enumerate(rule) if mark == "-" and (n == 0 or rule[n - 1] == " ")]
    ends = [*starts[1:], None]
    return [
        [line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in (header, *lines)
    ]


def test_a_line_a_trial() -> None:
    header, *lines = cells([FINISHED, STOPPED, DIED])
    varying = ["rounds", "private_parameters", "lr"]
    figures = ["metric", "achieved", "parameters", "steps done", "status"]
    assert header == ["", "trial", "id", *varying, *figures]
    assert lines[0][:6] == ["*", "0", "qRmXw", "3", '["*.bias"]', "-"]
    assert lines[0][6:] == ["0.8500", "90.0 %", "12,345", "1,000 / 1,000", "finished"]
    assert lines[1][:6] == ["", "1", "Zt5aB", "4", "-", "0.001"]
    assert lines[1][6:10] == ["(0.9500)", "75.0 %", "-", "500 / 2,000"]
    assert lines[1][10] == "stopped: the masks of 5 of 5 tickets changed abruptly by…"
    assert lines[2] == [
        "",
        "2",
        "k0oPs",
        "4",
        "-",
        "-",
        "-",
        "-",
        "-",
        "0 / -",
        "died: boom | bang",
    ]


def test_without_numbers_there_are_names() -> None:
    first = TrialRecord("first", "finished", metric=0.5)
    assert cells([first])[0][:3] == ["", "trial", "metric"]
    assert cells([first])[1][:2] == ["*", "first"]


def test_the_best_is_the_first_of_the_highest_that_finished() -> None:
    low = TrialRecord("low", "finished", metric=0.1)
    high = TrialRecord("high", "finished", metric=0.9)
    also = TrialRecord("also", "finished", metric=0.9)
    nan = TrialRecord("nan", "finished", metric=math.nan)
    assert best_trial([nan, low, high, also]) is high
    assert best_trial([STOPPED, DIED]) is None
    stars = [line[0] for line in cells([nan, low, high, also])[1:]]
    assert stars == ["", "", "*", ""]
    assert cells([nan])[1][2] == "nan"


def test_numbers_that_read_alike_still_vary() -> None:
    near = [TrialRecord("a", "died", {"lr": 0.1 + n * 1e-9, "seed": 0}) for n in range(2)]
    assert varying_parameters(near) == ["lr"]


def test_the_same_records_give_the_same_table() -> None:
    assert trial_table([FINISHED, STOPPED]) == trial_table([FINISHED, STOPPED])
    with pytest.raises(InvalidArgument, match="at least one trial"):
        trial_table([])
