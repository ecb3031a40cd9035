"""The figures in docs/nni.md are those of the committed results."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/nni.md"
Row = dict[str, Any]


def results(name: str) -> Row:
    path = ROOT / f"benchmarks/results/{name}.cpu.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def interval(row: Row, style: str = ".3f") -> str:
    return f"{row['mean']:{style}} [{row['low']:{style}}, {row['high']:{style}}]"


def accuracy_lines(measured: Row) -> list[str]:
    rows = {(row["method"], row["metric"]): row for row in measured["rows"]}
    metrics = ["accuracy", "worst group", *(f"accuracy in {e}" for e in measured["environments"])]
    lines = []
    for method in dict.fromkeys(row["method"] for row in measured["rows"]):
        cells = [interval(rows[method, metric]) for metric in metrics]
        kept = rows[method, "accuracy"]["parameters"]
        lines.append(f"| {method} | {' | '.join(cells)} | {kept:,} |")
    return lines


def difference_lines(measured: Row) -> list[str]:
    return [
        f"| {row['rival']} | {row['metric']} | {interval(row, '+.3f')} |"
        for row in measured["paired_differences"]["rows"]
    ]


def size_lines(measured: Row) -> list[str]:
    return [
        f"| {row['name']} | {row['parameters']:,} | {row['macs']:,} | {row['latency_ms']:.1f} | "
        f"{row['latency_ratio']:.3f} | {'yes' if row['within_noise'] else 'no'} |"
        for row in measured["sizes"]["rows"]
    ]


def speedup_lines(measured: Row) -> list[str]:
    return [
        f"| {row['network']} | {'yes' if row['dependency_ids'] else 'no'} | "
        f"{row['parameters']:,} | {row['small_parameters']:,} | {row['difference']:.0e} | "
        f"{row['from_given']:.2g} | "
        f"{row['seconds']:.1f} | {row['latency_ratio']:.2f}{' *' if row['within_noise'] else ''} | "
        f"{row['nni']['model_speedup']['seconds']:.1f} |"
        for row in measured["rows"]
    ]


def missing(expected: list[str]) -> list[str]:
    text = PAGE.read_text(encoding="utf-8").replace("**", "")
    return [line for line in expected if line not in text]


def test_the_examples_figures_are_the_measured_ones() -> None:
    measured = results("nni_existing_config")
    lines = [*accuracy_lines(measured), *difference_lines(measured), *size_lines(measured)]
    assert len(lines) > 20
    assert missing(lines) == []


def test_the_prose_says_what_was_measured() -> None:
    measured = results("nni_existing_config")
    alike = [mean_similarity(measured, method) for method in ("tickets", "random tickets")]
    said = f"Jaccard similarity {alike[0]:.2f}; random\nones {alike[1]:.2f}"
    rows = results("nni_speedup")["rows"]
    slowest = [max(row[key] for row in rows) for key in ("seconds", "wall_seconds")]
    took = f"took {slowest[0]:.1f} of CPU time, and {slowest[1]:.1f} on the clock"
    hosts = [row["nni"] for row in rows]
    assert missing([said, took]) == []
    assert all(each["unpatched"]["error"] for each in hosts)
    assert not any(each["model_speedup"]["error"] for each in hosts)


def mean_similarity(measured: Row, method: str) -> float:
    return fmean(row["similarity"] for row in measured["raw"] if row["method"] == method)


def test_the_speedups_figures_are_the_measured_ones() -> None:
    lines = speedup_lines(results("nni_speedup"))
    assert len(lines) == 22
    assert missing(lines) == []


def test_the_matrix_has_no_pair_that_fails() -> None:
    measured = results("nni_matrix")
    supported = [row for row in measured["rows"] if row["supported"]]
    assert all(all(row["checks"].values()) for row in supported)
    assert missing([f"{len(supported)} of {len(measured['rows'])} pairs"]) == []
    assert all(row["error"] for row in measured["rows"] if not row["supported"])


def test_every_goal_says_whether_it_is_met() -> None:
    for name in ("nni_existing_config", "nni_matrix", "nni_speedup"):
        assert all(goal["met"] for goal in results(name)["goals"])


def test_the_check_can_fail() -> None:
    measured = results("nni_existing_config")
    for row in [*measured["rows"], *measured["paired_differences"]["rows"]]:
        row["mean"] = 0.12345
    wrong = [*accuracy_lines(measured), *difference_lines(measured)]
    assert missing(wrong) == wrong
