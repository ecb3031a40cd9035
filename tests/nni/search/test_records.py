"""Trials read from their folders: every end that a trial can come to, and every damaged file."""

import json
import math
from pathlib import Path

import pytest
import torch

import rtl_plugin as rtl
from rtl_nni import run_trial
from rtl_nni.search.records import TrialRecord, read_trials
from rtl_plugin.errors import DamagedFile, InvalidArgument, MissingFile
from tests.nni.search.trial_files import (
    result,
    round_row,
    settings,
    write_nni,
    write_trial,
)

NO_SEQUENCE = {name: value for name, value in settings().items() if name != "sequence"}
ROWS = [round_row(1), round_row(2), round_row(3)]


def only(folder: Path) -> TrialRecord:
    (record,) = read_trials(folder)
    return record


def test_a_finished_trial(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", rows=ROWS, ended=result())
    assert only(tmp_path) == TrialRecord(
        name="a",
        status="finished",
        params={"sparsity": 0.9, "rounds": 3, "steps": 10, "epochs": 1},
        began=1000.0,
        metric=0.85,
        metrics={"indoor": 0.8, "street": 0.9},
        intermediate=tuple(row["metric"] for row in ROWS),
        rounds=3,
        rounds_planned=3,
        sparsity=0.9,
        parameters=1234,
        measured={"latency": 0.002},
        steps_planned=100,
        steps_done=100,
        seconds=7.5,
    )


def test_a_trial_that_an_assessor_stopped(tmp_path: Path) -> None:
    rows = [round_row(1), round_row(2, sparsity=0.7)]
    stopped = {"reason": "2 of 2 collapsed", "by": "CollapseAssessor", "round": 2}
    write_trial(tmp_path / "a", rows=rows, stopped=stopped)
    record = only(tmp_path)
    assert (record.status, record.reason, record.error) == ("stopped", "2 of 2 collapsed", None)
    assert (record.rounds, record.rounds_planned, record.sparsity) == (2, 3, 0.7)
    assert (record.steps_done, record.seconds, record.metric) == (40, 4.0, None)
    assert record.steps_cut == 20  # it was killed in the third round


def test_a_trial_that_stopped_itself_lost_no_round(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", rows=ROWS[:1], stopped={"reason": "collapse", "by": "run_trial"})
    assert (only(tmp_path).status, only(tmp_path).steps_cut) == ("stopped", 0)


def test_a_result_counts_more_than_a_stop_that_came_too_late(tmp_path: Path) -> None:
    late = {"reason": "collapse", "by": "CollapseAssessor"}
    write_trial(tmp_path / "a", rows=ROWS, ended=result(), stopped=late)
    assert (only(tmp_path).status, only(tmp_path).steps_cut) == ("finished", 0)


def test_trials_are_ordered_by_number_then_by_beginning(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", settings(began=30.0))
    write_trial(tmp_path / "b", settings(began=20.0))
    write_trial(tmp_path / "c", settings(sequence=10, began=50.0))
    write_trial(tmp_path / "d", settings(sequence=9, began=60.0))
    write_trial(tmp_path / "e", settings(sequence=9, began=40.0))
    assert [record.name for record in read_trials(tmp_path)] == ["e", "d", "c", "b", "a"]
    assert [record.label for record in read_trials(tmp_path)] == ["9", "9", "10", "b", "a"]


def test_reused_rounds(tmp_path: Path) -> None:
    both = round_row(1, steps=0, steps_reused=27, seconds_saved=1.5)
    one = round_row(2, steps=10, steps_reused=10, seconds_saved=0.5)
    asked = settings()
    asked["asked"]["rewind_to"] = 7
    write_trial(tmp_path / "a", asked, rows=[both, one])
    record = only(tmp_path)
    assert (record.steps_done, record.steps_reused, record.seconds_saved) == (10, 37, 2.0)


def test_a_line_that_a_kill_cut_off_is_no_damage(tmp_path: Path) -> None:
    files = write_trial(tmp_path / "a", rows=ROWS[:2])
    with files.rounds.open("a") as log:
        log.write('{"round": 3, "met')
    assert only(tmp_path).rounds == 2


def test_a_metric_that_is_no_number_is_read_as_it_is(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", rows=ROWS, ended=result(metric=math.nan))
    metric = only(tmp_path).metric
    assert metric is not None
    assert math.isnan(metric)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rtl/trial.json", "{", "trial.json is not JSON"),
        ("rtl/trial.json", json.dumps(settings(steps_planned=-1)), "'steps_planned' must be a who"),
        ("rtl/trial.json", json.dumps(settings(params=[])), "'params' must be a JSON object"),
        (
            "rtl/trial.json",
            json.dumps(settings(began="now")),
            "'began' must be a number, got 'no",
        ),
        (
            "rtl/trial.json",
            json.dumps(settings(asked={})),
            "asked: 'rounds' must be a whole",
        ),
        ("rtl/trial.json", json.dumps(NO_SEQUENCE), "'sequence' must be a whole number"),
        ("rtl/rounds.jsonl", "nonsense\n", "rounds.jsonl has a line that is not JSON"),
        ("rtl/rounds.jsonl", "{}\n", "rounds.jsonl, round 1: 'metric' must be a number, got no"),
        (
            "rtl/rounds.jsonl",
            json.dumps(round_row(1)) + "\n" + json.dumps(round_row(2, steps=True)) + "\n",
            "rounds.jsonl, round 2: 'steps' must be a whole number",
        ),
        ("rtl/result.json", "[]", "result.json does not hold a JSON object"),
        ("rtl/result.json", json.dumps(result(metric=None)), "'metric' must be a number, got None"),
        (
            "rtl/result.json",
            json.dumps(result(metrics={"indoor": "good"})),
            "metrics: 'indoor' must be a number",
        ),
        (
            "rtl/stopped.json",
            '{"by": "me"}',
            "stopped.json: 'reason' must be a string, got no",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    write_trial(tmp_path / "good", rows=ROWS, ended=result())
    write_trial(tmp_path / "bad", rows=ROWS)
    (tmp_path / "bad" / name).write_text(content)
    with pytest.raises(DamagedFile, match=r"bad") as error:
        read_trials(tmp_path)
    assert message in str(error.value)


def test_rounds_without_settings_are_damage(tmp_path: Path) -> None:
    files = write_trial(tmp_path / "a", rows=ROWS)
    files.settings.unlink()
    with pytest.raises(DamagedFile, match=r"trial\.json is missing although"):
        read_trials(tmp_path)


def test_folders_without_trials(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no folder"):
        read_trials(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(MissingFile, match="there is no folder"):
        read_trials(tmp_path / "file")
    with pytest.raises(MissingFile, match="holds no trial"):
        read_trials(tmp_path)
    write_nni(tmp_path / "qRmXwAbC", [])
    with pytest.raises(MissingFile, match="holds no trial of this machine"):
        read_trials(tmp_path / "qRmXwAbC")
    with pytest.raises(MissingFile, match="holds experiments, not trials: give one of qRmXwAbC"):
        read_trials(tmp_path)
    write_trial(tmp_path / "loop" / "a")
    with pytest.raises(MissingFile, match="is the folder of one trial"):
        read_trials(tmp_path / "loop" / "a")


def test_what_run_trial_writes_is_what_is_read(tmp_path: Path) -> None:
    batch = (torch.eye(4), torch.ones(4, 1))
    loaders = {"a": [batch], "b": [batch]}
    groups = rtl.DataGroups.from_loaders(loaders, validation=loaders)

    def distance(model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    def trial(folder, rounds, **more):
        return run_trial(
            lambda seed: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)),
            groups,
            distance,
            lambda model, batches: -sum(float(distance(model, batch)) for batch in batches),
            {"sparsity": 0.5, "rounds": rounds, "steps": 3, "epochs": 1},
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
            folder=folder,
            **more,
        )

    def killed(number: int, value: object) -> None:
        if number == 2:
            raise InvalidArgument("a trial that ends by itself")

    found = trial(tmp_path / "first", 2, measure={"latency": lambda mixture: 0.25})
    with pytest.raises(InvalidArgument, match="ends by itself"):
        trial(tmp_path / "second", 3, report=killed)
    first, second = read_trials(tmp_path)
    assert (first.status, first.metric, first.metrics) == ("finished", found.metric, found.metrics)
    assert (first.intermediate, first.rounds_planned) == (found.intermediate, 2)
    assert (first.sparsity, first.parameters) == (found.sparsity, found.parameters)
    assert (first.measured, first.params["rounds"]) == ({"latency": 0.25}, 2)
    assert (first.steps_planned, first.steps_done) == (found.steps_planned, found.steps_done)
    assert (second.status, second.rounds, second.rounds_planned) == ("unfinished", 2, 3)
    assert (second.steps_done, second.steps_planned) == (12, found.steps_planned + 6)
