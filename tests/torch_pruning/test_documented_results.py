"""The figures in docs/torch-pruning.md are those of the committed results."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/torch-pruning.md"


@pytest.fixture(params=["torch_pruning_digits", "torch_pruning_digits_75"])
def measured(request: pytest.FixtureRequest) -> dict[str, Any]:
    path = ROOT / f"benchmarks/results/{request.param}.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("torch_pruning_digits")


def size_lines(results: dict[str, Any]) -> list[str]:
    return [
        f"| {row['name']} | {row['asked']:.0%} | {row['parameters']:,} | {row['macs']:,} | "
        f"{row['bytes']:,} | {row['latency_ms']:.1f} | {row['latency_ratio']:.3f} | "
        f"{'yes' if row['within_noise'] else 'no'} |"
        for row in results["sizes"]["rows"]
    ]


def documented(results: dict[str, Any], example: Any) -> list[str]:
    """Everything that the page says about the results."""
    table = example.accuracy_table(results["rows"], tablefmt="pipe").splitlines()[2:]
    rivals = results["paired_differences"]["rows"]
    differences = [f"| {row['rival']} | {example.cell(row, '+.3f')} |" for row in rivals]
    mixed = f"takes {results['mixed_batch_latency']['ratio']:.3f} of the dense network's time"
    return [*table, *differences, *size_lines(results), mixed]


def missing(expected: list[str]) -> list[str]:
    text = PAGE.read_text(encoding="utf-8").replace("**", "").replace("\n", " ")
    return [line for line in expected if line not in text]


def test_the_documented_figures_are_the_measured_ones(
    measured: dict[str, Any], example: Any
) -> None:
    assert missing(documented(measured, example)) == []


def test_the_figures_are_of_several_seeds_and_one_budget(measured: dict[str, Any]) -> None:
    assert all(len(row["seeds"]) >= 3 for row in measured["rows"])
    assert len({row["batches"] for row in measured["raw"]}) == 1
    assert measured["data"].endswith("test figures")


def test_the_check_can_fail(measured: dict[str, Any], example: Any) -> None:
    for row in [*measured["rows"], *measured["paired_differences"]["rows"]]:
        for interval in (row.get("accuracy", row),):
            interval["mean"] = 0.12345
    for row in measured["sizes"]["rows"]:
        row["latency_ms"] = 0.12345
    measured["mixed_batch_latency"]["ratio"] = 0.12345
    wrong = documented(measured, example)
    assert missing(wrong) == wrong


def test_the_documented_costs_are_the_measured_ones() -> None:
    path = ROOT / "benchmarks/results/structured_pruning_cost.cpu.json"
    measured = json.loads(path.read_text(encoding="utf-8"))
    goals = [(g["value"], round(g["target"], 3)) for g in measured["goals"]]
    ends = [f"| {value:.3f} | {target:g} |" for value, target in goals]
    fraction = f"has {measured['kept_mac_fraction']:.3f} of the multiply-accumulates"
    assert missing([*ends, fraction]) == []
