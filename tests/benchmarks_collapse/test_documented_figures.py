"""What the documentation says of the collapse monitor is what was measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.collapse_calibration import calibrated
from benchmarks.collapse_rules import monitored, traces_of
from rtl_plugin import CollapseRule

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks/results/collapse.cpu.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
TASKS = {
    "environments": "digit environments",
    "one-vs-rest": "one-vs-rest digits",
    "INR": "INR astronaut",
    "all": "all",
}


def rows() -> dict[tuple[str, str], dict[str, Any]]:
    knee = RESULTS["primary knee"]
    return {(r["task"], r["method"]): r for r in RESULTS["rows"] if r["knee"] == knee}


def table() -> dict[tuple[str, str], list[str]]:
    """(task, rule) -> the other cells of the page's table."""
    found, task = {}, ""
    for line in PAGE[PAGE.index("| task | rule |") :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        first, rule, *cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        task = TASKS.get(first, task)
        found[task, rule] = cells
    return found


def two_digits(value: float) -> str:
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def test_the_table_is_the_result() -> None:
    shown = table()
    assert shown.keys() == rows().keys()
    for key, row in rows().items():
        hits, early, late, lead, quality, sparsity = shown[key]
        rate = row["hit rate"]
        ends = f"[{two_digits(rate['low'])}, {two_digits(rate['high'])}]"
        assert hits == f"{two_digits(rate['mean'])} {ends}", key
        assert early.split()[0] == str(row["early"] + row["needless"]), key
        assert late == str(row["late"] + row["missed"]), key
        assert lead == f"{row['lead']:+.1f}", key
        assert quality == two_digits(row["quality kept"]["mean"]), key
        assert sparsity == two_digits(row["sparsity kept"]["mean"]), key


def test_the_goals_are_told_as_they_came() -> None:
    within, false = RESULTS["goals"]
    assert (within["met"], false["met"]) == (False, False)
    assert f"{100 * within['value']:.0f} % and {100 * false['value']:.0f} % came" in PROSE
    assert "**The goal is missed**" in PROSE


def test_the_defaults_are_what_the_pilot_gives() -> None:
    pilot = [trace for run in RESULTS["pilot"] for trace in traces_of(run)]
    limits = calibrated(pilot)
    rule = CollapseRule()
    assert (limits["fall"], limits["rise"]) == (rule.fall, rule.rise)
    assert f"the {limits['tickets']} of {limits['of']} pilot tickets" in PROSE
    assert f"rounded up to 0.05: {rule.fall} and {rule.rise}." in PROSE
    assert RESULTS["rules"]["monitor"] == rule.description()


def test_pilot_and_validation_are_apart() -> None:
    pilot = {(run["task"], run["seed"]) for run in RESULTS["pilot"]}
    runs = {(run["task"], run["seed"]) for run in RESULTS["runs"]}
    assert not pilot & runs
    assert not {seed for _, seed in pilot} & {seed for _, seed in runs}


def of_task(task: str) -> list[dict[str, Any]]:
    return [ticket for ticket in RESULTS["tickets"] if ticket["task"] == TASKS[task]]


def test_sentences_about_classifiers() -> None:
    tickets = of_task("environments") + of_task("one-vs-rest")
    in_time = [t for t in tickets if t["alarm"] and t["alarm"] <= t["knee (10 % lost)"]]
    assert f"{len(in_time)} of the {len(tickets)} tickets rang at or before" in PROSE
    knees = sorted(t["knee (5 % lost)"] for t in of_task("one-vs-rest"))
    assert knees[0] == 1
    assert f"between rounds {knees[1]} and {knees[-1]} (one at 1)" in PROSE
    assert {t["alarm"] for t in of_task("one-vs-rest")} == {13, 14, 15}


def test_sentences_about_the_inr() -> None:
    tickets = of_task("INR")
    late = [t["alarm"] - t["knee (5 % lost)"] for t in tickets if t["alarm"]]
    assert (min(late), max(late)) == (5, 13)
    assert "five to thirteen rounds too late" in PROSE
    knees = [t["knee (5 % lost)"] for t in tickets]
    assert f"with knees between rounds {min(knees)} and {max(knees)}" in PROSE
    assert sum(t["alarm"] is None for t in RESULTS["tickets"]) == 1
    assert "but for one that never rang" in PROSE


def test_the_readme_says_the_same() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    classifiers = of_task("environments") + of_task("one-vs-rest")
    in_time = sum(t["alarm"] <= t["knee (10 % lost)"] for t in classifiers)
    assert f"{in_time} of {len(classifiers)} tickets rang at or before the round" in readme
    assert f"only {100 * RESULTS['goals'][0]['value']:.0f} % (the goal was 90 %)" in readme


def test_the_loss_level_is_told_with_its_limit() -> None:
    limit = RESULTS["rules"]["loss level"]["limit"]
    assert f"passes {limit:.2f} times the dense network's" in PROSE


def test_the_alarms_are_the_packages() -> None:
    """The recorded alarms are those of the present code on the recorded runs."""
    told = {(t["task"], t["seed"], t["ticket"]): t["alarm"] for t in RESULTS["tickets"]}
    ours = monitored(CollapseRule())
    for run in RESULTS["runs"]:
        for trace in traces_of(run):
            ring = ours(trace)
            alarm = None if ring is None else ring.alarm
            assert alarm == told[trace.task, trace.seed, trace.ticket]


def test_the_checks_can_fail() -> None:
    assert two_digits(0.426) == ".43"
    assert two_digits(1.0) == "1.00"
    assert re.search(r"\d", PROSE)
    with pytest.raises(KeyError):
        table()["digit environments", "no rule"]
