"""Searches recorded for the comparison of assessors: whole trials, kept, the same again."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import search_assessors as compared
from benchmarks import search_recording as recording
from benchmarks.search_replay import stoppers
from rtl_nni import search_space
from rtl_nni.search.parameters import checked_parameters
from rtl_plugin.errors import InvalidArgument
from tests.nni.search import trial_setups


class Task:
    """The example's, with a network of 96 weights; counts its runs."""

    def __init__(self) -> None:
        self.runs: list[Mapping[str, Any]] = []

    def space(self) -> dict[str, Any]:
        return search_space(
            pruned_per_round=[0.3, 0.4], rounds=(2, 3), steps=[1, 2], epochs=[1],
            private_parameters=[[], ["1.*"]], importance=["magnitude", "random"],
        )  # fmt: skip

    def run(self, params: Mapping[str, Any], **options: Any) -> Any:
        self.runs.append(dict(params))
        return trial_setups.trial(params, **options)


def but_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != "seed"}


@pytest.fixture
def task(monkeypatch: Any) -> Task:
    made = Task()
    monkeypatch.setattr(recording, "task_of_example", lambda: made)
    return made


def test_a_search_is_recorded_once_and_the_same_again(task: Task, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    search = recording.recorded_search(7, 5, 2, tmp_path / "cache")
    assert len(task.runs) == 5
    assert [trial["number"] for trial in search] == list(range(5))
    assert {(trial["params"]["seed"], trial["seed"]) for trial in search} == {(7, 7)}
    assert len({json.dumps(params) for params in task.runs}) > 1
    assert recording.recorded_search(7, 5, 2, tmp_path / "cache") == search
    assert len(task.runs) == 5, "all from the cache"
    assert recording.recorded_search(7, 5, 2, tmp_path / "another") == search
    assert torch.get_num_threads() == threads
    assert json.loads(json.dumps(search)) == search
    other = recording.recorded_search(8, 5, 2, tmp_path / "cache")
    proposed = [[but_seed(trial["params"]) for trial in each[:2]] for each in (search, other)]
    assert proposed[0] != proposed[1], "before anything was told, by the tuner's seed"


def test_recorded_trials_are_as_if_nothing_had_been_shared(task: Task, tmp_path: Path) -> None:
    search = recording.recorded_search(7, 5, 5, tmp_path)
    reused = [
        json.loads(line)["reused"]
        for path in sorted(tmp_path.rglob("rounds.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert any(reused), "or the test shows nothing"
    for trial in search:
        params = trial["params"]
        told: list[float] = []
        alone = trial_setups.trial(params, report=lambda round, value, to=told: to.append(value))
        assert trial["metric"] == alone.metric
        assert [row["metric"] for row in trial["rounds"]] == told
        assert trial["steps"] == alone.steps_planned == alone.steps_done
        assert [row["steps"] for row in trial["rounds"]] == [3 * params["steps"]] * params["rounds"]
        assert (trial["parameters"], trial["sparsity"]) == (alone.parameters, alone.sparsity)
        assert trial["rounds"][0]["target"] == checked_parameters(params).target


def test_a_cache_of_other_parameters_is_refused(task: Task, tmp_path: Path) -> None:
    recording.recorded_search(7, 1, 1, tmp_path)
    kept = tmp_path / "seed-7" / "000" / "recorded.json"
    kept.write_text(kept.read_text().replace('"epochs": 1', '"epochs": 2'))
    with pytest.raises(ValueError, match="use another --cache"):
        recording.recorded_search(7, 1, 1, tmp_path)


def test_a_trial_that_cannot_be_run_is_an_outcome(
    task: Task, tmp_path: Path, monkeypatch: Any
) -> None:
    def refuses(params: Any, **options: Any) -> Any:
        raise InvalidArgument("no room")

    monkeypatch.setattr(task, "run", refuses)
    threads = torch.get_num_threads()
    search = recording.recorded_search(7, 3, 2, tmp_path)
    assert [trial["error"] for trial in search] == ["InvalidArgument: no room"] * 3
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(task, "run", lambda params, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recording.recorded_search(8, 1, 1, tmp_path)


def test_the_tasks_folder_is_not_left_on_the_path() -> None:
    before = list(sys.path)
    assert recording.task_of_example().space() == recording.task_of_example().space()
    assert sys.path == before


def test_the_quick_run_records_compares_and_writes(
    task: Task, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    path = tmp_path / "results.json"
    command = ["search_assessors", "--quick", "--json", str(path), "--cache", str(tmp_path / "c")]
    monkeypatch.setattr(sys, "argv", command)
    compared.main()
    printed = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert len(results["raw"]) == len(results["pilots"]) == 4
    assert [params["seed"] for params in task.runs] == [100] * 4 + [0] * 4
    names = [row["method"] for row in results["rows"]]
    *ours, sparsity, target = names
    assert ours == [stopper.name for stopper in stoppers()]
    assert (sparsity[:15], target[:13]) == ("sparsity above ", "target above ")
    assert [line["method"] for line in results["summary"]] == names
    assert all(name in printed for name in names)
    again = compared.results_of({100: results["pilots"]}, {0: results["raw"]}, 2)
    exact = [row for row in results["rows"] if "Curvefitting" not in row["method"]]
    assert [row for row in again["rows"] if "Curvefitting" not in row["method"]] == exact
