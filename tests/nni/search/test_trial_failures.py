"""Trials that fail, and trials that are killed and run again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rtl_plugin as rtl
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.errors import InvalidArgument, InvalidGroups, TrainingDiverged
from tests.nni.search.trial_setups import metric, same_tickets, squared, trial

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "groups": ({"groups": [1]}, InvalidArgument, r"groups must be DataGroups or a function"),
    "what the builder made": (
        {"groups": lambda params: None}, InvalidArgument, "must return DataGroups, got None"
    ),
    "no validation": (
        {"groups": rtl.DataGroups.from_loaders({"a": [1], "b": [1]})}, InvalidGroups, "validation"
    ),
    "aggregate": ({"aggregate": "median"}, InvalidArgument, "aggregate must be one of.*median"),
    "what it returned": (
        {"aggregate": lambda metrics: "0.5"}, InvalidArgument, "finite number, got '0.5'"
    ),
    "report": ({"report": "nni"}, InvalidArgument, 'report must be "auto".*nni'),
    "stop": ({"stop": True}, InvalidArgument, "stop must be a CollapseStop or None, got True"),
    "evaluate": ({"evaluate": 3}, InvalidArgument, "evaluate must be callable"),
    "warm start without files": ({"warm_start": True}, InvalidArgument, "folder="),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arguments_are_refused_by_name(case: str) -> None:
    options, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        trial(**options)


class Failing:
    """A metric that is NaN from its n-th call on."""

    def __init__(self, good: int) -> None:
        self.good = good

    def __call__(self, model: Any, held_out: Any) -> float:
        self.good -= 1
        return metric(model, held_out) if self.good >= 0 else float("nan")


# 3 groups: a rehearsal, three rounds, and the retrained tickets.
@pytest.mark.parametrize(("good", "told"), [(3, 0), (4, 0), (6, 1), (11, 2), (12, 3), (14, 3)])
def test_a_metric_that_is_nan_fails_the_trial_unreported(
    good: int, told: int, tmp_path: Path
) -> None:
    heard: list[float] = []
    with pytest.raises(InvalidArgument, match="must return a finite number, got nan"):
        trial(
            evaluate=Failing(good),
            folder=tmp_path,
            report=lambda round, value: heard.append(value),
        )
    assert len(heard) == told
    assert np.isfinite(heard).all()
    files = TrialFolder(tmp_path)
    assert len(files.read_rounds()) == told
    assert not files.result.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_an_aggregate_that_is_not_finite_fails_the_trial_unreported(bad: Any) -> None:
    heard: list[float] = []
    with pytest.raises(InvalidArgument, match="aggregate must return a finite number"):
        trial(aggregate=lambda metrics: bad, report=lambda round, value: heard.append(value))
    assert heard == []


def test_a_loss_that_diverges_fails_the_trial() -> None:
    with pytest.raises(TrainingDiverged):
        trial(loss=lambda model, batch: squared(model, batch) * float("inf"))


def killing(at: int) -> Any:
    """A loss that is interrupted at its n-th call."""
    calls = iter(range(10_000))

    def loss(model: Any, batch: Any) -> torch.Tensor:
        if next(calls) == at:
            raise KeyboardInterrupt
        return squared(model, batch)

    loss.__qualname__ = squared.__qualname__
    loss.__module__ = squared.__module__
    return loss


# 12 steps a round, 36 of them in rounds; then 18 of retraining.
@pytest.mark.parametrize("at", [3, 17, 35, 36, 47, 53, None])
def test_a_killed_trial_ends_alike_when_it_is_run_again(at: int | None, tmp_path: Path) -> None:
    whole = trial(folder=tmp_path / "whole")
    files = TrialFolder(tmp_path / "killed")
    if at is None:
        trial(folder=files.path)
    else:
        with pytest.raises(KeyboardInterrupt):
            trial(folder=files.path, loss=killing(at))
        assert not files.result.exists()
        assert len(files.read_rounds()) == min(at // 12, 3)
    told: list[float] = []
    again = trial(folder=files.path, report=lambda round, value: told.append(value))
    assert {**again.to_json(), "seconds": 0} == {**whole.to_json(), "seconds": 0}
    assert told == list(whole.intermediate)
    assert same_tickets(again.tickets, whole.tickets)
    timeless = {"seconds": 0}
    expected = [row | timeless for row in TrialFolder(tmp_path / "whole").read_rounds()]
    assert [row | timeless for row in files.read_rounds()] == expected
    assert json.loads(files.result.read_text()) == again.to_json()
