"""A trial that is stopped from inside, and one whose tickets find their own sparsity."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtl_nni import CollapseStop
from rtl_nni.search.trial_folder import TrialFolder
from tests.nni.search.trial_setups import WEIGHTS, designed

ALL = dict.fromkeys("abcd", "core")
MIXED = {"a": "core", "b": "core", "c": "own", "d": "own"}


@pytest.mark.parametrize(("share", "round"), [(0.5, 4), (0.75, 5)])
@pytest.mark.parametrize("rewind_to", [0, 2])
def test_a_collapsing_trial_is_stopped(
    share: float, round: int, rewind_to: int, tmp_path: Path
) -> None:
    told: list[float] = []
    result = designed(
        ALL, stop=CollapseStop(share), folder=tmp_path, rewind_to=rewind_to,
        report=lambda number, value: told.append(value),
    )  # fmt: skip
    assert result.stopped is not None
    assert result.stopped.round == round
    assert (result.metric, result.tickets, result.model, result.metrics) == (None, None, None, {})
    assert told == list(result.intermediate)
    assert len(told) == round
    assert result.steps_done == rewind_to + 4 * round
    assert result.steps_planned == rewind_to + 4 * 9 + 4
    assert result.sparsity == pytest.approx(1 - int(0.7**round * WEIGHTS + 0.5) / WEIGHTS)
    files = TrialFolder(tmp_path)
    stopped = json.loads(files.stopped.read_text())
    assert stopped == result.stopped.to_json() | {"by": "run_trial"}
    assert len(files.read_rounds()) == round
    assert not files.result.exists()
    assert CollapseStop(share).verdict(files.read_rounds()) == result.stopped


def test_a_trial_stopped_in_its_last_round_is_not_retrained() -> None:
    result = designed(ALL, stop=CollapseStop(1.0), rounds=5)
    assert result.stopped is not None
    assert result.stopped.round == result.stopped.rounds == 5
    assert result.steps_done == 4 * 5 < result.steps_planned


def test_a_good_trial_is_not_stopped() -> None:
    own = dict.fromkeys("abcd", "own")
    watched, plain = designed(own, stop=CollapseStop(1e-9)), designed(own)
    assert watched.stopped is None
    assert {**watched.to_json(), "seconds": 0} == {**plain.to_json(), "seconds": 0}


def test_one_group_runs_to_its_end() -> None:
    result = designed({"a": "core"}, stop=CollapseStop(1e-9))
    assert result.stopped is None
    assert result.metric is not None


@pytest.mark.parametrize("kinds", [ALL, MIXED], ids=["all", "mixed"])
def test_tickets_that_leave_are_told_at_their_last_good_round(
    kinds: dict[str, str], tmp_path: Path
) -> None:
    result = designed(kinds, stop_before_collapse=True, folder=tmp_path)
    assert result.tickets is not None
    tickets, rows = result.tickets, TrialFolder(tmp_path).read_rounds()
    assert len({ticket.kept for ticket in tickets.values()}) > 1, "or the test shows nothing"
    assert rows[-1]["sparsity"] == pytest.approx(result.sparsity)
    assert result.sparsity == pytest.approx(np.mean([1 - tickets.density(n) for n in tickets]))
    history = tickets.history
    for row in rows:
        # What every ticket told last, it tells on.
        last: dict[str, Any] = {h["group"]: h for h in history if h["round"] <= row["round"]}
        assert row["metrics"] == {name: h["metric"] for name, h in last.items()}
        assert row["metric"] == pytest.approx(np.mean(list(row["metrics"].values())))
        here = [h for h in history if h["round"] == row["round"]]
        assert row["names"] == [h["group"] for h in here]
        assert row["left"] == [h["group"] for h in here if h["left"]]
        assert row["alarms"] == [h["group"] for h in here if h["alarm"]]
        assert row["steps"] == len(here)
    assert sum(len(row["left"]) for row in rows) == sum(h["left"] for h in history) > 0
    assert result.steps_done == len(history) + 4
    assert result.steps_done < result.steps_planned


def test_who_leaves_for_want_of_company_keeps_the_last_masks(tmp_path: Path) -> None:
    result = designed(
        {"a": "core", "b": "core", "c": "own"}, stop_before_collapse=True, folder=tmp_path
    )
    assert result.tickets is not None
    row = TrialFolder(tmp_path).read_rounds()[-1]
    assert row["left"] == ["a", "b", "c"]
    assert row["alarms"] == ["a", "b"]
    assert result.tickets.density("c") < result.tickets.density("a")
    assert row["sparsity"] == pytest.approx(result.sparsity)


def test_who_left_does_not_stop_the_trial() -> None:
    result = designed(ALL, stop_before_collapse=True, stop=CollapseStop(1e-9))
    assert result.stopped is None


def test_an_alarm_without_leaving_is_told(tmp_path: Path) -> None:
    designed(ALL, folder=tmp_path)
    rows = TrialFolder(tmp_path).read_rounds()
    assert {row["round"]: row["alarms"] for row in rows if row["alarms"]} == {
        4: ["a", "c"],
        5: ["b", "d"],
    }
    assert all(row["left"] == [] for row in rows)
    assert rows[-1]["sparsity"] == pytest.approx(1 - int(0.7**9 * WEIGHTS + 0.5) / WEIGHTS)
