"""The benchmarks of the NNI integration at their smallest, and their committed results."""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import nni_matrix, nni_speedup
from benchmarks.nni_matrix_pairs import CHECKS, KINDS, NETWORKS, same_model
from benchmarks.nni_speedup_networks import ARCHITECTURES, build, difference

ROOT = Path(__file__).parents[2]
FIELDS = {"benchmark", "date", "device", "versions", "setting", "rows", "goals"}


def committed(name: str) -> dict[str, Any]:
    path = ROOT / f"benchmarks/results/{name}.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def run(module: Any, monkeypatch: pytest.MonkeyPatch, path: Path) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--json", str(path)])
    threads = torch.get_num_threads()
    try:
        module.main()
    finally:
        torch.set_num_threads(threads)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_matrix_of_an_mlp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(nni_matrix, "QUICK", ("MLP",))
    results = run(nni_matrix, monkeypatch, tmp_path / "new" / "matrix.json")
    assert set(results) == FIELDS
    assert [row["pruner"] for row in results["rows"]] == list(KINDS)
    unsupported = [row for row in results["rows"] if not row["supported"]]
    assert [row["pruner"] for row in unsupported] == ["Slim"]
    assert unsupported[0]["error"].startswith("InvalidArgument: config_list does not fit the model")
    assert [goal["met"] for goal in results["goals"]] == [True, True]
    printed = capsys.readouterr().out
    assert "Level on MLP: yes" in printed
    assert "supported pairs of which everything holds: 1.0" in printed


def test_a_pair_of_which_something_does_not_hold_misses_the_goal() -> None:
    rows = committed("nni_matrix")["rows"]
    broken = next(row for row in rows if row["supported"])
    broken["checks"]["unchanged"] = False
    assert nni_matrix.verdict(broken) == "no: unchanged"
    assert nni_matrix.goals(rows)[0]["met"] is False
    silent = next(row for row in rows if not row["supported"])
    silent["error"] = ""
    assert nni_matrix.goals(rows)[1]["met"] is False


def test_a_model_that_changed_is_found() -> None:
    before = {"values": {"w": torch.zeros(2)}, "objects": {}, "modes": [], "attributes": []}
    after = copy.deepcopy(before)
    assert same_model(before, after)
    after["values"]["w"][1] = 1e-9
    assert not same_model(before, after)
    assert not same_model(before, {**copy.deepcopy(before), "modes": [True]})


def test_the_committed_matrix_is_whole() -> None:
    results = committed("nni_matrix")
    assert set(results) == FIELDS
    pairs = [(row["pruner"], row["network"]) for row in results["rows"]]
    assert pairs == [(pruner, network) for network in NETWORKS for pruner in KINDS]
    assert results["goals"] == nni_matrix.goals(results["rows"])
    for row in results["rows"]:
        assert set(row["checks"]) == set(CHECKS)
        assert row["error"] or row["distinct"] in (1, 2, 3)


def test_the_speedup_of_a_concatenating_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(nni_speedup, "QUICK", ("concatenating",))
    results = run(nni_speedup, monkeypatch, tmp_path / "speedup.json")
    assert set(results) == FIELDS
    assert [row["dependency_ids"] for row in results["rows"]] == [True, False]
    for row in results["rows"]:
        assert row["error"] == ""
        assert row["small_parameters"] < 0.5 * row["parameters"]
        assert row["difference"] < 1e-9 < row["from_given"]
    printed = capsys.readouterr().out
    assert f"{results['rows'][0]['small_parameters']:,}" in printed
    assert "largest difference from the completed masked network" in printed


def test_a_network_that_computes_something_else_is_found() -> None:
    one, x = build("concatenating"), torch.randn(1, 3, 64, 64)
    other = copy.deepcopy(one)
    assert difference(one, other, x)[0] == 0
    with torch.no_grad():
        other.head.bias[3] += 1e-3
    assert difference(one, other, x)[0] == pytest.approx(1e-3, rel=1e-3)


def test_the_committed_speedups_are_whole() -> None:
    results = committed("nni_speedup")
    assert set(results) == FIELDS
    names = [(row["network"], row["dependency_ids"]) for row in results["rows"]]
    assert names == [(name, ids) for name in ARCHITECTURES for ids in (True, False)]
    assert results["goals"] == nni_speedup.goals(results["rows"])


def test_a_slow_or_wrong_or_missing_speedup_misses_its_goal() -> None:
    rows = committed("nni_speedup")["rows"]
    row = next(row for row in rows if not row["error"])
    row["difference"], row["seconds"] = 2e-5, 5.1
    rows.append({**row, "error": "PruningFailed: nothing can be cut"})
    assert [goal["met"] for goal in nni_speedup.goals(rows)] == [False, False, False]


@pytest.mark.parametrize("name", ["nni_matrix", "nni_speedup"])
def test_the_json_names_no_machine(name: str) -> None:
    text = json.dumps(committed(name))
    assert os.uname().nodename not in text
    assert not any(place in text for place in ("/work", "/home", "/root", "/tmp", "site-packages"))
