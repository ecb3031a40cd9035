"""The figures in docs/serving.md are those of the committed results."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving_goals import goal_table

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def results(name: str) -> dict[str, Any]:
    path = ROOT / f"benchmarks/results/{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def squeezed(text: str) -> str:
    return re.sub(r"[ -]*\|[ -]*", "|", text.replace("**", ""))


def goal_lines() -> list[str]:
    measured = [goal for goal in results("serving.cpu")["goals"] if goal["value"] is not None]
    return goal_table(measured, "github").splitlines()[2:]


def routing_lines() -> list[str]:
    rows = [row for row in results("online_routing.cpu")["rows"] if row["metric"] == "successes"]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cells = {
        (row["method"], row["task"]): f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        for row in rows
    }
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if "always" not in m]
    return [f"| {m} | {' | '.join(cells[m, task] for task in tasks)} |" for m in methods]


def kernel_lines() -> list[str]:
    """Instructions a weight of the kernels that mask, over all configurations."""
    rows = [r for r in results("kernel_resources.aot")["rows"] if r["alu_per_weight"] is not None]
    lines = []
    for kernel, target in dict.fromkeys((row["kernel"], row["target"]) for row in rows):
        chosen = (row for row in rows if (row["kernel"], row["target"]) == (kernel, target))
        found = [row["alu_per_weight"] for row in chosen]
        lines.append(f"| {kernel} | {target} | {min(found):.2f} to {max(found):.2f} |")
    return lines


@pytest.mark.parametrize("lines", [goal_lines, routing_lines, kernel_lines])
def test_every_figure_is_in_the_page(lines: Any) -> None:
    page = squeezed(PAGE)
    expected = lines()
    assert expected
    assert [line for line in expected if squeezed(line) not in page] == []


def test_the_prose_on_process_memory() -> None:
    rows = [row for row in results("serving.cpu")["rows"] if row["case"] == "memory of a process"]
    grown = {(r["net"], r["dtype"], r["program"]): round(r["resident"] / 1e6) for r in rows}
    for net, dtype in {(row["net"], row["dtype"]) for row in rows}:
        lean, copies = grown[net, dtype, "mixture"], grown[net, dtype, "copies"]
        assert re.search(rf"\b{lean}\b.{{0,60}}\b{copies} MB", PAGE, re.DOTALL), (net, dtype)


def test_the_prose_on_random_ensembles() -> None:
    rows = results("robust_ensemble.cpu")["rows"]
    means = {(row["method"], row["metric"]): f"{row['mean']:.3f}".lstrip("0") for row in rows}
    seen = "accuracy under PGD of eps 0.05 on single ticket"
    draw, alone, mean = "random draw of 2", "single ticket", "all averaged"
    clean = "accuracy"
    assert f"two keeps {means[draw, seen]} of the digits" in PAGE
    assert f"that ticket keeps {means[alone, seen]}; averaging" in PAGE.replace("\n", " ")
    assert f"({means[mean, seen]})" in PAGE
    assert f"({means[mean, clean]} against {means[draw, clean]})" in PAGE
    assert means[mean, "accuracy under the worst attack of eps 0.1"] == ".020"
    assert means[draw, "accuracy under the worst attack of eps 0.1"] == ".025"


def test_the_table_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    values = {
        (goal["number"], goal["net"], goal["batch"], "bfloat16" in goal["name"]): goal["value"]
        for goal in results("serving.cpu")["goals"]
        if goal["value"] is not None
    }
    mlp, resnet = "MLP 1024-2048-2048-10", "resnet18@32"
    for line in (
        f"| MLP, 6.3 M weights | {values[1, mlp, 10, False]:.1f} times less |",
        f"| ResNet-18 | {values[1, resnet, 10, False]:.1f} times less |",
        f"| MLP | {values[10, mlp, 64, False]:.2f} | a loop over ten masked copies |",
        f"| ResNet-18, 32 x 32 | {values[10, resnet, 64, False]:.2f} | a loop over ten",
        f"| MLP | {values[6, mlp, 64, False]:.2f} | masked copies kept |",
        f"| ResNet-18, 32 x 32 | {values[6, resnet, 64, False]:.2f} | masked copies kept |",
        f"| MLP | {values[9, mlp, 64, False]:.1f} times faster (the goal was 2) |",
    ):
        assert line in readme, line


def test_the_prose_on_the_missed_goal() -> None:
    best = {
        (row["batch"], row["program"]): row["best"]
        for row in results("serving.cpu")["rows"]
        if row["case"] == "mixed batch" and row["net"].startswith("MLP")
    }
    small, large = (
        best[batch, "one network re-masked"] / best[batch, "loop over copies"]
        for batch in (64, 256)
    )
    prose = " ".join(PAGE.split())
    assert f"is {small:.2f} (batch 64) and {large:.2f} times (batch 256) as fast" in prose
    for batch in (64, 256):
        programs = ("auto", "cached", "slices", "grouped", "scratch", "auto, budget 0")
        assert min(best[batch, p] for p in programs) > best[batch, "dense network, whole batch"]
