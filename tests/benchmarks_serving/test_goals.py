"""When a goal of the serving benchmark is met, and that each is answered by a question."""

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import serving
from benchmarks.serving_goals import (
    COUNTED,
    GOALS,
    ROUNDS,
    SYNCHRONISATIONS,
    Goal,
    all_judged,
    goal_table,
    judged,
    program_table,
    verdict,
)
from benchmarks.serving_timing import AGAIN

LOWER = Goal(10, "mixed", "net", 8, "ours", "rival", 1.1)
HIGHER = replace(LOWER, number=9, limit=2.0, better="higher")


def rows_for(goal: Goal, ours: float, rival: float, again: float, **more: Any) -> list[Any]:
    alike = ("case", "net", "batch", "device", "dtype", "tickets")
    best = {goal.ours: ours, goal.rival: rival, goal.rival + AGAIN: again}
    return [
        {**{key: getattr(goal, key) for key in alike}, "program": name, "best": seconds,
         "seconds": [seconds] * ROUNDS, **more}
        for name, seconds in best.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "limit", "better", "noise", "rounds", "met"),
    [
        (1.1, 1.1, "lower", 0.0, ROUNDS, True),
        (1.11, 1.1, "lower", 0.0, ROUNDS, False),
        (2.0, 2.0, "higher", 0.0, ROUNDS, True),
        (1.99, 2.0, "higher", 0.0, ROUNDS, False),
        (0.85, 0.85, "higher", 0.07, ROUNDS, True),
        (0.5, 1.1, "lower", 0.0, ROUNDS - 1, None),
        (0.5, 1.1, "lower", 0.045, ROUNDS, True),
        (0.5, 1.1, "lower", 0.046, ROUNDS, None),
        (9.0, 2.0, "higher", 0.25, ROUNDS, True),
        (9.0, 2.0, "higher", 0.26, ROUNDS, None),
        (9.0, 0.85, "higher", 0.08, ROUNDS, None),
    ],
)
def test_the_verdict(
    value: float, limit: float, better: str, noise: float, rounds: int, met: bool | None
) -> None:
    assert verdict(value, limit, limit, better, noise, rounds) is met


def test_ratios_are_of_minima_and_against_the_better_of_two_rivals() -> None:
    lower = judged(LOWER, rows_for(LOWER, 1.05, 1.0, 1.02))
    assert (lower["value"], lower["met"]) == (1.05, True)
    assert lower["reference_against_itself"] == pytest.approx(1 - 1 / 1.02)
    higher = judged(HIGHER, rows_for(HIGHER, 0.5, 1.1, 1.0))
    assert (higher["value"], higher["met"]) == (2.0, True)
    assert judged(HIGHER, rows_for(HIGHER, 0.52, 1.1, 1.0))["met"] is False
    assert higher["within_noise"] is True
    assert judged(HIGHER, rows_for(HIGHER, 0.1, 1.1, 1.0))["within_noise"] is False


def test_a_rival_that_differs_from_itself_decides_nothing() -> None:
    entry = judged(LOWER, rows_for(LOWER, 0.1, 1.0, 1.1))
    assert entry["value"] == pytest.approx(0.1)
    assert entry["met"] is None


def test_a_fraction_of_work_scales_the_target_alone() -> None:
    goal = replace(LOWER, limit=1.6)
    entry = judged(goal, rows_for(goal, 0.45, 1.0, 1.15, fraction=0.25))
    assert (entry["target"], entry["met"]) == (0.4, False)
    assert judged(goal, rows_for(goal, 0.39, 1.0, 1.15, fraction=0.25))["met"] is True
    assert judged(goal, rows_for(goal, 0.39, 1.0, 1.3, fraction=0.25))["met"] is None


@pytest.mark.parametrize(
    "changed",
    [{"batch": 4}, {"net": "other"}, {"dtype": "bfloat16"}, {"device": "cuda"}, {"tickets": 2}],
)
def test_what_was_not_measured_has_no_value(changed: dict[str, Any]) -> None:
    entry = judged(LOWER, [row | changed for row in rows_for(LOWER, 0.5, 1.0, 1.0)])
    assert (entry["value"], entry["met"], entry["target"]) == (None, None, 1.1)
    assert "not measured" in goal_table([entry])


@pytest.mark.parametrize("program", [None, "ours", "rival"])
def test_what_failed_is_not_met(program: str | None) -> None:
    rows = rows_for(LOWER, 0.5, 1.0, 1.0)
    failed = {**rows[0], "program": program, "error": "RuntimeError: no"}
    entry = judged(LOWER, [row for row in rows if row["program"] != program] + [failed])
    assert (entry["value"], entry["met"], entry["error"]) == (None, False, "RuntimeError: no")
    assert "RuntimeError: no" in goal_table([entry])
    assert "RuntimeError: no" in program_table([failed])


def test_bytes_and_waits_are_counted() -> None:
    bytes_goal = next(goal for goal in GOALS if goal.case == COUNTED)
    (row,) = rows_for(bytes_goal, 1, 1, 1)[:1]
    for ratio, met in ((bytes_goal.limit, True), (bytes_goal.limit - 0.01, False)):
        entry = judged(bytes_goal, [row | {"ratio": ratio}])
        assert (entry["value"], entry["met"]) == (ratio, met)
    waits = next(goal for goal in GOALS if goal.case == SYNCHRONISATIONS)
    (row,) = rows_for(waits, 1, 1, 1)[:1]
    for count, met in ((0, True), (1, False)):
        entry = judged(waits, [row | {"count": count}])
        assert (entry["value"], entry["met"]) == (count, met)


def test_every_goal_of_the_issue_has_a_name_of_its_own() -> None:
    assert {goal.number for goal in GOALS} == set(range(1, 11))
    assert len({goal.name for goal in GOALS}) == len(GOALS)
    limits: dict[tuple[int, str], set[float]] = {}
    for goal in GOALS:
        limits.setdefault((goal.number, goal.better), set()).add(goal.limit)
    assert limits == {
        (1, "higher"): {6.0, 7.4}, (2, "higher"): {5.0}, (3, "higher"): {1.5},
        (4, "higher"): {0.85, 0.7}, (5, "higher"): {2.0}, (6, "lower"): {1.5},
        (7, "lower"): {1.35, 1.6}, (8, "lower"): {1.05, 1.15, 0.0},
        (9, "higher"): {2.0, 1.4}, (10, "lower"): {1.1},
    }  # fmt: skip


def test_every_goal_is_answered_by_a_question() -> None:
    questions = itertools.chain(
        serving.cpu_questions(serving.FULL), serving.gpu_questions(serving.FULL)
    )
    asked = {
        (s.case, s.net, s.batch, s.device, str(s.dtype).removeprefix("torch."), s.tickets)
        for s, _ in questions
    }
    wanted = {(g.case, g.net, g.batch, g.device, g.dtype, g.tickets) for g in GOALS}
    assert wanted <= asked


def test_a_full_run_has_the_rounds_that_decide() -> None:
    assert min(serving.FULL.rounds, serving.FULL.long_rounds) >= ROUNDS
    assert max(serving.QUICK.rounds, serving.QUICK.long_rounds) < ROUNDS


def test_without_rows_nothing_is_met() -> None:
    entries = all_judged([])
    assert [entry["met"] for entry in entries] == [None] * len(GOALS)
    assert [entry["number"] for entry in entries] == sorted(goal.number for goal in GOALS)


def test_a_question_that_fails_leaves_the_others_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = [serving.Setting(name, "net", 1, 1) for name in ("bad", "good")]

    def fails(_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("too much\nand more")

    def works(setting: Any) -> Any:
        return [{**setting.described(), "program": "ours", "count": 0}]

    rows = serving.answers(iter(zip(settings, (fails, works), strict=True)))
    assert [row.get("error") for row in rows] == ["OutOfMemoryError: too much", None]
    assert copy.copy(rows[0])["program"] is None
    assert capsys.readouterr().out.count(" ...") == 2
