"""The figures in docs/results.md and README.md are those of the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

from rtl_plugin.reports import comparison_table

ROOT = Path(__file__).parents[2]
METRICS = ("accuracy", "worst group", "balanced accuracy", "calibrated balanced accuracy")

DETECTOR_METRICS = (
    *("balanced accuracy", "calibrated balanced accuracy"),
    *("precision", "recall", "accuracy"),
)


def measured() -> dict[str, Any]:
    path = ROOT / "benchmarks/results/environments.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def results_table(rows: list[dict[str, Any]], metrics: tuple[str, ...] = METRICS) -> str:
    chosen = [row for metric in metrics for row in rows if row["metric"] == metric]
    return comparison_table(chosen, "markdown")


def table_lines(rows: list[dict[str, Any]]) -> list[str]:
    return results_table(rows).splitlines()[2:]


def difference_cells(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{r['mean']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]" for r in rows]


def readme_cells(rows: list[dict[str, Any]]) -> list[str]:
    chosen = [r for r in rows if r["metric"] == "accuracy" and r["sparsity"] in (0.0, 0.9)]
    return [
        f"{_short(r['mean'])} [{_short(r['low'])}, {_short(r['high'])}] | {r['parameters']:,} |"
        for r in chosen
    ]


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def missing(page: str, expected: list[str]) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8").replace("**", "")
    return [cell for cell in expected if cell not in text]


def test_the_documented_table_is_the_measured_one() -> None:
    results = measured()
    assert missing("docs/results.md", table_lines(results["rows"])) == []
    differences = difference_cells(results["paired_differences"]["rows"])
    assert missing("docs/results.md", differences) == []


def test_the_documented_one_vs_rest_table_is_the_measured_one() -> None:
    path = ROOT / "benchmarks/results/one_vs_rest.cpu.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    lines = results_table(rows, DETECTOR_METRICS).splitlines()[2:]
    assert len(lines) == 5
    assert missing("docs/results.md", lines) == []


def test_the_readme_claims_what_was_measured() -> None:
    cells = readme_cells(measured()["rows"])
    assert len(cells) == 7
    assert missing("README.md", cells) == []


def test_the_documented_overhead_is_the_measured_one() -> None:
    path = ROOT / "benchmarks/results/training_overhead.cpu.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    goal = results["goals"][0]
    noise = f"differed from itself by {results['ordinary_against_itself']:.3f}"
    assert missing("docs/results.md", [f"{goal['value']:.2f} times", noise]) == []
    assert goal["met"] is True


@pytest.mark.parametrize("page", ["docs/results.md", "README.md"])
def test_the_check_can_fail(page: str) -> None:
    rows = measured()["rows"]
    for row in rows:
        row["mean"], row["low"], row["high"] = 0.123, 0.122, 0.124
    cells = table_lines(rows) if page.startswith("docs") else readme_cells(rows)
    assert missing(page, cells) == cells
