"""The committed results of the real experiments: from their trials, and on the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import nni_search
from rtl_plugin.evaluation import confidence_interval

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / "nni_search.cpu.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def page() -> str:
    return " ".join((ROOT / "docs" / "search.md").read_text(encoding="utf-8").split())


def test_every_seed_ran_whole(results: dict[str, Any]) -> None:
    assert tuple(row["seed"] for row in results["rows"]) == nni_search.SEEDS
    for row in results["rows"]:
        assert len(row["trials"]) == results["trials"] >= 16
        assert row["finished"] + row["stopped"] + row["others"] == results["trials"]
        assert len(row["stopped_trials_run_to_their_end"]) == row["stopped"]
        assert None not in row["stopped_trials_run_to_their_end"]


def test_rows_follow_from_their_trials(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        finished = [t for t in row["trials"] if t["status"] == "finished"]
        assert row["best"] == max(t["metric"] for t in finished)
        small = [t["metric"] for t in finished if t["parameters"] <= row["quickstart_parameters"]]
        assert row["best_as_small"] == max(small)
        assert row["planned"] == sum(t["steps_planned"] for t in row["trials"])
        reused = sum(t["steps_reused"] for t in row["trials"])
        assert row["saved_by_reuse"] == pytest.approx(reused / row["planned"])
        ended = row["stopped_trials_run_to_their_end"]
        assert row["best_kept"] == all(metric <= row["best"] for metric in ended)


def test_goals_follow_from_the_rows(results: dict[str, Any]) -> None:
    assert results["goals"] == nni_search.goals(results["rows"])


def test_the_page_quotes_them(results: dict[str, Any]) -> None:
    text = page()
    for row in results["rows"]:
        stopped = row["best_of_stopped"]
        cells = (
            row["seed"], f"{row['seconds']:.0f} s", row["stopped"],
            f"{row['saved_by_assessor']:.1%}", f"{row['saved_by_reuse']:.1%}",
            f"{row['best']:.4f} ({row['best_parameters']:,})",
            f"{row['best_as_small']:.4f} ({row['best_as_small_parameters']:,})",
            "-" if stopped is None else f"{stopped:.4f}",
            f"{row['quickstart']:.4f} ({row['quickstart_parameters']:,})",
        )  # fmt: skip
        assert f"| {' | '.join(map(str, cells))} |" in text
    saved = confidence_interval([100 * row["saved_by_assessor"] for row in results["rows"]])
    assert f"{saved.mean:.1f} % of the optimizer steps, [{saved.low:.1f}, {saved.high:.1f}]" in text
    reuse = [100 * row["saved_by_reuse"] for row in results["rows"]]
    assert f"Warm start saved {min(reuse):.0f} to {max(reuse):.0f} %" in text
    better = sum(row["best_as_small"] > row["quickstart"] for row in results["rows"])
    assert "four of five did" in text
    assert better == 4
    assert all(row["best_kept"] and row["best"] > row["quickstart"] for row in results["rows"])
    assert not any(row["left_running"] for row in results["rows"])
