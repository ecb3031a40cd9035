"""The committed comparison of assessors follows from its raw trials, and the page quotes it."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import search_assessors as compared
from benchmarks.search_recording import task_of_example
from benchmarks.search_replay import replayed, stoppers
from rtl_nni.search.parameters import checked_parameters

ROOT = Path(__file__).parents[3]
FILE = ROOT / "benchmarks/results/search_assessors.cpu.json"
# Its fit draws from numpy's global stream, and takes most of the time.
DRAWS = "Curvefitting"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def searches(results: dict[str, Any], part: str = "raw") -> dict[int, list[dict[str, Any]]]:
    by_seed = itertools.groupby(results[part], key=lambda trial: trial["seed"])
    return {seed: list(trials) for seed, trials in by_seed}


def test_summary_and_goals_follow_from_the_rows(results: dict[str, Any]) -> None:
    assert compared.summary(results["rows"]) == results["summary"]
    assert compared.goals(results["rows"]) == results["goals"]


def test_the_rows_follow_from_the_raw_trials(results: dict[str, Any]) -> None:
    told = {(row["method"], row["seed"]): row for row in results["rows"]}
    pilots = list(searches(results, "pilots").values())
    naive = [compared.chosen_limit(field, pilots) for field in ("sparsity", "target")]
    methods = [*stoppers(), *naive]
    assert set(told) == {(each.name, seed) for each in methods for seed in compared.VALIDATION}
    for seed, search in searches(results).items():
        whole = [trial for trial in search if "error" not in trial]
        for stopper in methods:
            row = told[stopper.name, seed]
            assert row["labels"] == stopper.labels
            if DRAWS in stopper.name:
                everybody = [compared.Outcome(None, trial["steps"]) for trial in whole]
                judged = compared.judged(whole, everybody)
                assert {row[n] for n in ("good", "front", "trials")} == {
                    judged[n] for n in ("good", "front", "trials")
                }
                continue
            judged = compared.judged(whole, replayed(stopper, whole))
            assert {name: row[name] for name in judged} == judged, (stopper.name, seed)


@pytest.mark.parametrize("part", ["raw", "pilots"])
def test_the_trials_are_whole_searches_of_the_examples_space(
    part: str, results: dict[str, Any]
) -> None:
    found = searches(results, part)
    assert tuple(found) == {"raw": compared.VALIDATION, "pilots": compared.PILOT}[part]
    assert not set(compared.VALIDATION) & set(compared.PILOT)
    assert results["startup"] == compared.STARTUP
    space = task_of_example().space()
    for seed, search in found.items():
        assert [trial["number"] for trial in search] == list(range(compared.TRIALS))
        for trial in search:
            params = dict(trial["params"])
            assert params.pop("seed") == seed
            assert set(params) == set(space)
            assert all(allowed(space[name], value) for name, value in params.items()), params
            if "error" in trial:
                continue
            asked = checked_parameters(trial["params"])
            assert [row["round"] for row in trial["rounds"]] == list(range(1, asked.rounds + 1))
            assert {row["target"] for row in trial["rounds"]} == {asked.target}
            assert all(row["alike"]["importance"] == asked.importance for row in trial["rounds"])
            assert all(row["alike"]["seed"] == seed for row in trial["rounds"])
            assert trial["sparsity"] == pytest.approx(asked.target, abs=1e-3)
            done = sum(row["steps"] for row in trial["rounds"])
            assert done == 5 * asked.steps * asked.rounds < trial["steps"]


def allowed(entry: dict[str, Any], value: Any) -> bool:
    low, *_, high = entry["_value"]
    return low <= value < high if entry["_type"] == "randint" else value in entry["_value"]


def page() -> str:
    return (ROOT / "docs/search.md").read_text(encoding="utf-8").replace("**", "")


def squeezed(text: str) -> str:
    return re.sub(r"[ -]*\|[ -]*", "|", text)


def printed_lines(results: dict[str, Any]) -> list[str]:
    """The rows of the table that the benchmark prints, as Markdown."""
    lines = compared.text(results).splitlines()[2:]
    return [f"|{'|'.join(re.split(r'  +', line.strip()))}|" for line in lines]


def test_the_page_has_every_line_of_the_table(results: dict[str, Any]) -> None:
    lines = printed_lines(results)
    assert len(lines) == len(results["summary"]) >= 10
    assert {line.count("|") for line in lines} == {9}
    assert [line for line in lines if squeezed(line) not in squeezed(page())] == []


def accuracies(results: dict[str, Any], magnitude: bool, low: float, high: float) -> list[float]:
    found = [
        trial["metric"]
        for trial in results["raw"]
        if (trial["params"]["importance"] == "magnitude") == magnitude
        and low < trial["sparsity"] < high
    ]
    return [min(found), max(found)]


def test_the_page_tells_what_importance_does(results: dict[str, Any]) -> None:
    prose = " ".join(page().split())
    gradient = accuracies(results, False, 0.989, 0.993)
    magnitude = accuracies(results, True, 0.989, 0.993)
    deepest = accuracies(results, False, 0.995, 1)
    ranges = [
        f"{low:.2f} to {high:.2f}".replace("0.", ".")
        for low, high in (gradient, magnitude, deepest)
    ]
    assert f"at 99 % sparsity they have {ranges[0]}, where magnitude has {ranges[1]}." in prose
    assert f"At 99.6 and 99.8 % they have {ranges[2]}, still without an alarm" in prose
    own = [row for row in results["rows"] if row["method"] == compared.OURS]
    shares = [row["saved_by_importance"] for row in own]
    assert {share["weight_gradient"] for share in shares} == {0.0}
    magnitudes = [100 * share["magnitude"] for share in shares]
    assert f"between {min(magnitudes):.0f} and {max(magnitudes):.0f} % of the steps" in prose


def test_the_page_tells_the_goals_as_they_came(results: dict[str, Any]) -> None:
    prose = " ".join(page().split())
    saved, kept = results["goals"]
    best = next(row for row in results["summary"] if row["method"] == compared.OURS)
    assert f"{100 * saved['value']:.0f} % of the budget" in prose
    assert f"the best trial is kept in {best['best_kept']} of {best['searches']} searches" in prose
    assert kept["value"] == best["best_kept"] / best["searches"]
    if not (saved["met"] and kept["met"]):
        assert "The goal is missed" in prose
