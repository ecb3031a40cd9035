"""What the collapse benchmark says of recorded runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import collapse
from benchmarks.collapse import goals_of, recorded, results, row_of, shown, shown_goal, table
from benchmarks.collapse_rules import KNEES
from benchmarks.collapse_runs import ENVIRONMENTS, CollapseTask
from rtl_plugin.errors import InvalidArgument
from tests.benchmarks_collapse.hand_made import ringing, trace

CALM = [0.9, 0.9, 0.9, 0.9, 0.9]
FALLS = [0.9, 0.9, 0.9, 0.4, 0.1]
IDLE = [0.1, 0.1, 0.1, 0.1, 0.1]


def recorded_run(seed: int, metrics: list[float], alike: bool = False) -> dict[str, Any]:
    """Two tickets of 1,600 weights that halve; ``alike``: they grow to be one in the end."""
    kept = [800, 400, 200, 100]
    both = [480, 200, 150, 95] if alike else [480, 190, 75, 30]
    return {
        "task": "t",
        "seed": seed,
        "groups": ["a", "b"],
        "prunable": 1600,
        "chance": [0.1, 0.1],
        "shared": [[[k, s], [s, k]] for k, s in zip(kept, both, strict=True)],
        "metrics": [metrics, metrics],
        "losses": [[1.0, 0.5, 0.6, 0.7, 0.8]] * 2,
    }


def rows_by(content: dict[str, Any], method: str, knee: str = "5 % lost") -> dict[str, Any]:
    [row] = [
        row
        for row in content["rows"]
        if (row["task"], row["method"], row["knee"]) == ("all", method, knee)
    ]
    return dict(row)


def test_the_goals_are_the_tables_figures() -> None:
    pilot = [recorded_run(0, FALLS, alike=True)]
    runs = [recorded_run(seed, FALLS, alike=seed != 12) for seed in (10, 11, 12)]
    content = results(pilot, runs, quick=False)
    row = rows_by(content, "monitor")
    assert (row["tickets"], row["knees"], row["hits"], row["missed"]) == (6, 6, 4, 2)
    recall, false = content["goals"]
    assert recall["value"] == row["hit rate"]["mean"] == pytest.approx(4 / 6)
    assert (recall["low"], recall["high"]) == (row["hit rate"]["low"], row["hit rate"]["high"])
    assert false["value"] == row["false alarms"]["mean"] == 0
    assert (recall["met"], false["met"]) == (False, True)
    assert json.loads(json.dumps(content)) == content
    assert len(content["rows"]) == len(KNEES) * 2 * 5
    assert content["tickets"][0]["alarm"] == 3
    assert content["tickets"][0]["kept"] == 2
    assert content["tickets"][-1]["alarm"] is content["tickets"][-1]["kept"] is None


def test_the_pilot_sets_the_limits_and_the_goals_are_of_the_primary_knee() -> None:
    # 3.5 % lost from round 1 on, the rest at round 3, where the alarm rings.
    slips = [0.9, 0.872, 0.872, 0.4, 0.1]
    content = results([recorded_run(0, FALLS)], [recorded_run(10, slips, alike=True)], quick=False)
    assert 0.75 < content["rules"]["fixed sparsity"]["limit"] <= 0.875
    assert content["goals"][0]["value"] == 1
    assert rows_by(content, "monitor", "2.5 % lost")["hits"] == 0


def test_a_ticket_that_never_learnt_stops_a_full_run() -> None:
    good, idle = [recorded_run(0, FALLS)], [recorded_run(10, IDLE)]
    with pytest.raises(InvalidArgument, match=r"'a' of t, seed 10; 'b' of t, seed 10"):
        results(good, idle, quick=False)
    with pytest.raises(InvalidArgument, match="seed 10"):
        results(idle, good, quick=False)


def test_a_full_run_without_a_knee_cannot_judge_its_alarms() -> None:
    recall, false = results([recorded_run(0, CALM)], [recorded_run(10, CALM)], quick=False)["goals"]
    assert (recall["value"], recall["met"]) == (None, None)
    assert (false["value"], false["met"]) == (0, True)


@pytest.mark.parametrize("metrics", [IDLE, CALM])
def test_a_quick_run_without_knees_or_alarms(metrics: list[float]) -> None:
    content = results([recorded_run(0, metrics)], [recorded_run(10, metrics)], quick=True)
    row = rows_by(content, "monitor")
    assert (row["knees"], row["alarms"], row["hit rate"], row["precision"]) == (0, 0, None, None)
    assert [goal["met"] for goal in content["goals"]] == [None, None]
    assert content["goals"][0]["value"] is None
    assert (row["quality kept"] is None) == (metrics is IDLE)
    assert "nan" not in table(content["rows"])
    assert shown_goal(content["goals"][0]) == "-, goal >= 0.9: not judged"
    assert shown_goal(content["goals"][1]) == "0.00, goal < 0.1: not judged"


def test_a_quick_run_with_knees_judges_nothing() -> None:
    content = results([recorded_run(0, FALLS)], [recorded_run(10, FALLS)], quick=True)
    assert content["goals"][0]["value"] == 0
    assert [goal["met"] for goal in content["goals"]] == [None, None]


@pytest.mark.parametrize(
    ("hits", "false", "met"),
    [(0.9, 0.0999, [True, True]), (0.8999, 0.1, [False, False])],
)
def test_goals(hits: float, false: float, met: list[bool]) -> None:
    rates = {"hit rate": hits, "false alarms": false}
    row = {name: {"mean": value, "low": 0.0, "high": 1.0} for name, value in rates.items()}
    goals = goals_of(row, quick=False)
    assert [goal["met"] for goal in goals] == met
    assert (
        shown_goal(goals[0]) == f"0.90 [0.00, 1.00], goal >= 0.9: {'met' if met[0] else 'missed'}"
    )


def test_a_row() -> None:
    tickets = [trace(ticket=name, seed=seed) for seed in (3, 1) for name in "abcd"]
    # Qualities 1 1 1 .965 .52: every knee lies at round 4.
    rule = ringing({"a": 4, "b": 3, "c": None, "d": 2})
    row = row_of("t", "by hand", tickets, rule, "5 % lost")
    kinds = ("hits", "early", "late", "missed", "needless")
    assert {kind: row[kind] for kind in kinds} == dict(zip(kinds, (4, 2, 0, 2, 0), strict=True))
    assert (row["lead"], row["leads"]) == (1, {"0": 2, "1": 2, "2": 2})
    assert row["seeds"] == [1, 3]
    assert row["hit rate"] == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_missed_and_needless_have_columns_of_their_own() -> None:
    tickets = [trace(ticket=name) for name in "ab"]
    row = row_of("t", "by hand", tickets, ringing({"a": None, "b": 3}), "5 % lost")
    header, _, line = table([row]).splitlines()
    columns = [name for name in header.replace("hit rate", "hit-rate").split() if name]
    assert columns[4:9] == ["hits", "early", "late", "missed", "needless"]
    assert [line[header.index(name)] for name in ("hits", "missed", "needless")] == ["1", "1", "0"]
    assert line[header.index("precision") :].startswith("1.00")
    calm = row_of("t", "by hand", tickets, ringing({"a": None, "b": None}), "5 % lost")
    header, _, line = table([calm]).splitlines()
    assert [line[header.index(name)] for name in ("lead", "precision")] == ["-", "-"]


def test_a_rate_is_shown_with_what_interval_there_is() -> None:
    assert shown(None) == "-"
    assert shown({"mean": 0.5, "low": None, "high": None}) == "0.50"
    assert shown({"mean": 0.5, "low": 0.25, "high": 1.0}) == "0.50 [0.25, 1.00]"


def test_quick_runs_are_short_and_one_a_task(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, int, int]] = []

    def run(task: CollapseTask, seed: int, cache: Path) -> dict[str, Any]:
        asked.append((task.steps, task.rounds, seed))
        return {}

    monkeypatch.setattr(collapse, "run_of", run)
    recorded([(ENVIRONMENTS, (4, 5))], tmp_path, quick=True)
    assert asked == [(10, 8, 4)]
    recorded([(ENVIRONMENTS, (4, 5))], tmp_path, quick=False)
    assert asked[1:] == [(200, 21, 4), (200, 21, 5)]


def test_the_program_writes_what_it_prints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        collapse, "run_of", lambda task, seed, cache: recorded_run(seed, FALLS, alike=True)
    )
    monkeypatch.setattr("sys.argv", ["collapse", "--quick", "--json", str(tmp_path / "r.json")])
    collapse.main()
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["quick"] is True
    assert all(f"knee: {knee}" in printed for knee in KNEES)
    assert "not judged" in printed
    assert f"alarm within one round of the knee: {content['goals'][0]['value']:.2f}" in printed
