"""The serving benchmark at its smallest, and its committed results."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import serving, serving_memory
from benchmarks.serving_goals import GOALS, ROUNDS, all_judged, goal_table, program_table
from benchmarks.serving_memory import COUNTED, PROCESS
from benchmarks.serving_networks import MLP, TICKETS
from benchmarks.serving_timing import Setting
from tests.benchmarks_serving.small import stand_in

ROOT = Path(__file__).parents[2]
FIELDS = {"benchmark", "date", "device", "versions", "setting", "rows", "goals"}
# What identifies a goal to a reader, in every entry.
NAMED = {"name", "comparator", "net", "batch", "tickets", "density", "value", "target", "better"}


def committed() -> dict[str, Any]:
    path = ROOT / "benchmarks/results/serving.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_all_of_it_runs_in_small(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stand_in(monkeypatch)
    sizes = serving.Sizes(rounds=2, long_rounds=2, resnet=64, processes=())
    monkeypatch.setattr(serving, "QUICK", sizes)
    path = tmp_path / "new" / "serving.json"
    command = ["serving", "--quick", "--only", "cpu", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", command)
    threads = torch.get_num_threads()
    try:
        status = serving.main()
    finally:
        torch.set_num_threads(threads)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == FIELDS
    assert [row for row in content["rows"] if "error" in row] == []
    assert status == 0
    assert content["goals"] == all_judged(content["rows"])
    for goal in content["goals"]:
        assert set(goal) >= NAMED
        assert (goal["value"] is None) == (goal["device"] == "cuda")
        assert goal["met"] is None or goal["number"] == 1
    printed = capsys.readouterr().out
    assert goal_table(content["goals"]) in printed
    assert program_table(content["rows"]) in printed
    gpu_goals = [goal for goal in content["goals"] if goal["device"] == "cuda"]
    assert printed.count("not measured") == len(gpu_goals) > 15


def test_a_question_that_fails_shows_in_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(setting: Setting) -> Any:
        raise AssertionError("something else")

    only = [(Setting(COUNTED, MLP, TICKETS, TICKETS), fails)]
    monkeypatch.setattr(serving, "cpu_questions", lambda sizes: iter(only))
    monkeypatch.setattr(sys, "argv", ["serving", "--only", "cpu"])
    assert serving.main() == 1
    assert "AssertionError: something else" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_alone_needs_a_gpu() -> None:
    with pytest.raises(SystemExit, match="torch finds none"):
        serving.run(serving.QUICK, "cuda")


@pytest.mark.skipif(not serving_memory.STATUS.exists(), reason="only Linux tells")
def test_processes_load_and_serve(tmp_path: Path) -> None:
    setting = Setting(PROCESS, MLP, TICKETS, TICKETS)
    copies, mixture = serving_memory.of_processes(setting, ("copies", "mixture"))
    network = 6_316_042 * 4
    assert 9.5 * network < copies["resident"] <= copies["peak"]
    assert network < mixture["resident"] <= mixture["peak"]
    with pytest.raises(RuntimeError, match=r"serving_process mixture .* failed: .*MissingFile"):
        serving_memory.grown("mixture", setting, str(tmp_path))


def test_a_mixture_that_counts_copies_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    setting = Setting(COUNTED, MLP, TICKETS, TICKETS)
    rows = serving_memory.counted(setting)
    assert [row["copies"] / row["total"] for row in rows] == [row["ratio"] for row in rows]
    assert all(row["total"] == sum(row["parts"].values()) for row in rows)

    wrong = serving_memory.rtl.MixtureOfMasks.memory

    def memory(self: Any) -> Any:
        found = wrong(self)
        return type(found)(found.parts, found.copies + 4)

    monkeypatch.setattr(serving_memory.rtl.MixtureOfMasks, "memory", memory)
    with pytest.raises(AssertionError, match="the mixture says"):
        serving_memory.counted(setting)


def test_the_committed_goals_are_those_of_the_code() -> None:
    results = committed()
    assert set(results) == FIELDS
    assert results["goals"] == all_judged(results["rows"])
    assert {goal["name"] for goal in results["goals"]} == {goal.name for goal in GOALS}
    assert [row for row in results["rows"] if "error" in row] == []


def test_the_committed_run_is_whole() -> None:
    results = committed()
    asked = [setting for setting, _ in serving.cpu_questions(serving.FULL)]
    answered = {(row["case"], row["net"], row["batch"], row["dtype"]) for row in results["rows"]}
    for setting in asked:
        fields = setting.described()
        assert (fields["case"], fields["net"], fields["batch"], fields["dtype"]) in answered
    for row in results["rows"]:
        assert "seconds" not in row or len(row["seconds"]) >= ROUNDS
    measured = [goal for goal in results["goals"] if goal["device"] == "cpu"]
    assert all(goal["value"] is not None for goal in measured)


def test_figures_in_documents_can_be_tied_to_the_results() -> None:
    goals = committed()["goals"]
    lines = goal_table(goals, "github").splitlines()[2:]
    assert len(set(lines)) == len(goals)
    for goal in goals:
        if goal["value"] is not None:
            goal["value"] += 0.5
    changed = goal_table(goals, "github").splitlines()[2:]
    measured = sum(goal["value"] is not None for goal in goals)
    assert len(set(lines) - set(changed)) == measured > 10
