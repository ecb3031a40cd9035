"""The sums of a search's steps, against sums made by hand."""

import math
from pathlib import Path

import pytest

from rtl_nni.search.budget import budget
from rtl_nni.search.records import TrialRecord, read_trials
from rtl_plugin.errors import InvalidArgument
from tests.nni.search.trial_files import result, round_row, settings, write_trial

ASSESSOR = {"reason": "collapse", "by": "CollapseAssessor"}


def test_every_step_is_counted_once(tmp_path: Path) -> None:
    rows = [round_row(n) for n in (1, 2, 3)]
    # Each plans 100: three rounds of 20, then 40 of retraining.
    write_trial(tmp_path / "all", settings(0), rows, result())
    write_trial(tmp_path / "itself", settings(1), rows[:1], None, ASSESSOR | {"by": "run_trial"})
    write_trial(tmp_path / "killed", settings(2), rows[:2], None, ASSESSOR)
    write_trial(tmp_path / "unfinished", settings(3), rows[:2])
    reused = round_row(1, steps=0, steps_reused=20, seconds_saved=2.5)
    ended = result(steps_done=80, seconds_saved=2.5)
    write_trial(tmp_path / "warm", settings(4), [reused, *rows[1:]], ended)
    left = round_row(3, steps=10)  # one of two tickets had left
    write_trial(tmp_path / "left", settings(5), [*rows[:2], left], result(steps_done=90))
    died = TrialRecord("died", "died", sequence=6)
    sums = budget([*read_trials(tmp_path), died])
    assert (sums.planned, sums.trials, sums.unknown) == (600, 7, 1)
    assert sums.done == 100 + 20 + 40 + 40 + 80 + 90
    assert sums.cut == 20
    assert sums.stopped == 80 + (60 - 20)
    assert (sums.reused, sums.left, sums.missing) == (20, 10, 60)
    assert sums.saved == 120 + 20 + 10
    assert sums.share(sums.saved) == 150 / 600
    assert (sums.seconds, sums.seconds_saved) == (7.5 + 2.0 + 4.0 + 4.0 + 7.5 + 7.5, 2.5)
    parts = (sums.done, sums.cut, sums.stopped, sums.reused, sums.left, sums.missing)
    assert sum(parts) == sums.planned


def test_no_more_is_cut_than_there_was_left() -> None:
    late = TrialRecord("a", "stopped", steps_planned=100, steps_done=95, steps_cut=20)
    assert (budget([late]).cut, budget([late]).stopped) == (5, 0)


def test_it_prints_what_there_is() -> None:
    some = TrialRecord("a", "stopped", steps_planned=4000, steps_done=1000)
    lines = str(budget([some, TrialRecord("b", "died")])).split("\n")
    assert [line.split() for line in lines[2:]] == [
        ["planned", "4,000", "100.0", "%"],
        ["done", "1,000", "25.0", "%"],
        ["saved", "by", "stops", "3,000", "75.0", "%"],
        "1 of 2 trials said no plan, and count nowhere here".split(),
    ]


def test_nothing_to_add_up() -> None:
    with pytest.raises(InvalidArgument, match="at least one trial"):
        budget([])
    assert math.isnan(budget([TrialRecord("a", "died")]).share(0))


def test_it_tells_the_time_that_reuse_saved() -> None:
    some = TrialRecord("a", "finished", steps_planned=10, seconds=7.4, seconds_saved=2.6)
    told = str(budget([some])).splitlines()[-1]
    assert told == "trials took 7 s; the rounds that they reused had taken 3 s"
