"""examples/nni_existing_config.py runs, prints what it writes, and its committed figures agree."""

import importlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtl_plugin import DataGroups
from rtl_plugin.tasks import digits

ROOT = Path(__file__).parents[2]
METHODS = ["tickets", "one NNI mask", "NNI apart", "random tickets", "dense"]


@pytest.fixture(scope="module")
def example() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        return importlib.import_module("nni_existing_config")


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    path = ROOT / "benchmarks/results/nni_existing_config.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def few_test_digits() -> DataGroups:
    """The environments with a tenth of their test digits."""
    groups = digits.digit_environments()
    tests = {
        name: replace(group.test, x=group.test.x[::10], y=group.test.y[::10])
        for name, group in groups.items()
    }
    return DataGroups.from_loaders({n: group.train for n, group in groups.items()}, test=tests)


@pytest.fixture(scope="module")
def run(example: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of the shortest run, and what was printed under "printed"."""
    path = tmp_path_factory.mktemp("example") / "folder" / "results.json"
    short = example.Recipe(
        pretraining=2, rounds=2, steps=2, updates=1, epochs=1, batches_per_epoch=1
    )
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "QUICK", short)
        groups = few_test_digits()
        patch.setattr(example.digits, "digit_environments", lambda: groups)
        patch.setattr(sys, "argv", ["example", "--quick", "--json", str(path)])
        patch.setattr("builtins.print", lambda *values, **_: printed.extend(map(str, values)))
        example.main()
    return {**json.loads(path.read_text(encoding="utf-8")), "printed": "\n".join(printed)}


def test_it_prints_what_it_writes(example: Any, run: dict[str, Any]) -> None:
    assert [row["method"] for row in run["raw"]] == METHODS
    for row in run["rows"]:
        cells = " ".join(line for line in run["printed"].splitlines() if row["method"] in line)
        assert f"{row['mean']:.3f}" in cells
        assert f"{row['parameters']:,}" in cells
    for row in run["paired_differences"]["rows"]:
        words = f"tickets - {row['rival']}, {row['metric']}: {example.cell(row, '+.3f')}"
        assert words in run["printed"]
    assert f"{run['goals'][0]['value']:.1e}" in run["printed"]


def test_the_small_networks_are_small_and_compute_what_the_masked_ones_do(
    run: dict[str, Any],
) -> None:
    rows = {row["method"]: row for row in run["raw"]}
    found, alone, apart, drawn, dense = (rows[name]["parameters"] for name in METHODS)
    assert found == apart == drawn == alone * 5
    assert found[0] < 0.3 * dense[0]
    assert found[0] <= rows["tickets"]["kept"] <= dense[0]
    assert rows["NNI apart"]["kept"] == sum(apart)
    assert run["goals"][0]["met"] is True
    names = ["dense", *run["environments"], "one NNI mask"]
    assert [row["name"] for row in run["sizes"]["rows"]] == names


def test_all_methods_train_on_as_many_batches(run: dict[str, Any]) -> None:
    batches = {row["method"]: row["batches"] for row in run["raw"]}
    assert batches.pop("random tickets") == 5  # 1 of each environment, no search
    assert set(batches.values()) == {5 * (2 * 2 + 1)}


def test_the_committed_figures_follow_from_the_runs(
    example: Any, committed: dict[str, Any]
) -> None:
    raw = committed["raw"]
    ratio = committed["recipe"]["pruning_ratio"]
    assert committed["rows"] == example.summarised(raw, ratio)
    assert committed["paired_differences"]["rows"] == example.paired(raw)
    assert committed["goals"] == example.goals(raw)


def test_the_committed_figures_are_of_several_seeds_and_one_budget(
    committed: dict[str, Any],
) -> None:
    assert committed["data"].endswith("test figures")
    assert all(len(row["seeds"]) >= 3 for row in committed["rows"])
    same = {row["batches"] for row in committed["raw"] if row["method"] != "random tickets"}
    assert len(same) == 1


def test_a_small_network_that_computes_something_else_misses_the_goal(
    example: Any, committed: dict[str, Any]
) -> None:
    committed["raw"][0]["difference"] = 1e-4
    assert example.goals(committed["raw"])[0]["met"] is False


@pytest.mark.parametrize("which", ["run", "committed"])
def test_the_json_names_no_machine(which: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(which)
    assert {"benchmark", "date", "device", "versions", "rows", "goals"} <= set(results)
    assert "/" not in results["device"]
    assert os.uname().nodename not in json.dumps(results)
