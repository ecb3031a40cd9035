"""How alarms meet knees: counts, pooled rates and their intervals, by hand."""

from collections.abc import Sequence

import pytest

from benchmarks.collapse_rules import NAIVE, Trace, fixed_sparsity
from benchmarks.collapse_scores import (
    KINDS,
    Outcome,
    best_limit,
    counts_of,
    outcomes_of,
    pooled,
    rates_of,
)
from tests.benchmarks_collapse.hand_made import ringing, trace


@pytest.mark.parametrize(
    ("alarm", "knee", "kind"),
    [(3, 3, "hits"), (2, 3, "hits"), (4, 3, "hits"), (1, 3, "early"), (5, 3, "late"),
     (None, 3, "missed"), (3, None, "needless"), (None, None, None)],
)  # fmt: skip
def test_every_ticket_is_counted_once(
    alarm: int | None, knee: int | None, kind: str | None
) -> None:
    outcome = Outcome(("t", 0), alarm, knee, 1.0, 0.5)
    assert outcome.kind == kind
    assert outcome.lead == (knee - alarm if alarm is not None and knee is not None else None)
    counts = counts_of([outcome])
    assert {name: counts[name] for name in KINDS} == {name: int(name == kind) for name in KINDS}
    named = (int(alarm is not None), int(knee is not None), 1)
    assert (counts["alarms"], counts["knees"], counts["tickets"]) == named


def test_an_outcome_is_of_the_masks_that_the_rule_keeps() -> None:
    falling = trace(metrics=(0.9, 0.9, 0.5, 0.3, 0.1))  # quality 1 1 .5 .25 0
    [found] = outcomes_of([falling], ringing({"a": 3}, kept=1), lambda t: 2)
    assert (found.alarm, found.knee, found.run) == (3, 2, ("t", 0))
    assert (found.quality_kept, found.sparsity_kept) == (pytest.approx(0.5), 0.75)
    [found] = outcomes_of([falling], ringing({"a": 3}, kept=2), lambda t: 2)
    assert (found.quality_kept, found.sparsity_kept) == (pytest.approx(1), 0.5)
    [silent] = outcomes_of([falling], ringing({"a": None}), lambda t: 2)
    assert (silent.quality_kept, silent.sparsity_kept) == (pytest.approx(0), 0.9375), "the end"
    [found] = outcomes_of([trace(metrics=(0.1,) * 5)], ringing({"a": 3}), lambda t: None)
    assert (found.quality_kept, found.sparsity_kept) == (None, 0.75)


def mixed() -> list[Outcome]:
    """Two runs: one with two tickets, a hit and an early alarm; one with three."""
    return [
        Outcome(("t", 0), 3, 3, 0.9, 0.5),
        Outcome(("t", 0), 1, 3, 1.0, 0.25),
        Outcome(("t", 1), None, 3, 0.2, 0.75),
        Outcome(("t", 1), 2, None, None, 0.5),
        Outcome(("t", 1), 2, 3, 0.9, 0.5),
    ]


def test_rates_are_pooled_over_tickets() -> None:
    rates = {name: rate["mean"] for name, rate in rates_of(mixed()).items() if rate}
    assert rates == {
        "hit rate": pytest.approx(2 / 4),
        "precision": pytest.approx(2 / 4),
        "false alarms": pytest.approx(2 / 5),
        "quality kept": pytest.approx(3 / 4),
        "sparsity kept": pytest.approx(2.5 / 5),
    }


def test_rates_without_a_ticket_are_none() -> None:
    rates = rates_of([Outcome(("t", 0), None, None, None, 0.9)])
    assert rates["hit rate"] is rates["precision"] is rates["quality kept"] is None
    assert rates["false alarms"] == {"mean": 0.0, "low": None, "high": None}, "one run, no interval"
    assert rates_of([]) == dict.fromkeys(rates)


def hit(each: Outcome) -> tuple[float, float]:
    return each.kind == "hits", 1


def run_of(seed: int, hits: int, misses: int, task: str = "t") -> list[Outcome]:
    hit, miss = (Outcome((task, seed), alarm, 3, 1.0, 0.5) for alarm in (3, None))
    return [hit] * hits + [miss] * misses


def ends(outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    found = pooled(outcomes, hit)
    assert found is not None
    return found["low"], found["high"]


def test_whole_runs_are_drawn() -> None:
    # Two runs, all hits and all misses: draws give 0, 1/2 and 1, the outer ones a quarter each.
    assert ends(run_of(0, 4, 0) + run_of(1, 0, 4)) == (0.0, 1.0)
    # The same hits spread over runs alike: every draw is 1/2.
    assert ends(run_of(0, 2, 2) + run_of(1, 2, 2)) == (0.5, 0.5)
    # A larger run counts for its tickets: 9 of 9 and 0 of 1.
    assert pooled(run_of(0, 9, 0) + run_of(1, 0, 1), hit) == {"mean": 0.9, "low": 0.0, "high": 1.0}


def test_runs_of_two_tasks_with_one_seed_are_two() -> None:
    both = run_of(0, 4, 0, "t") + run_of(0, 0, 4, "u")
    assert ends(both) == (0.0, 1.0)


def test_the_interval_is_the_95_percent_one_and_the_same_every_time() -> None:
    # Half of 40 runs are all hits: the share of 40 draws is binomial, sd 1/2 / sqrt(40) = .079.
    many = [o for seed in range(40) for o in run_of(seed, seed % 2, 1 - seed % 2)]
    low, high = ends(many)
    assert low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.026)
    assert high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.026)
    fine = [o for seed in range(40) for o in run_of(seed, seed, 40 - seed)]
    assert ends(fine) == ends(fine)


def test_draws_without_a_denominator_are_left_out() -> None:
    calm = [Outcome(("t", 1), None, None, 1.0, 0.5)]
    rate = rates_of(run_of(0, 1, 0) + calm)["hit rate"]
    assert rate == {"mean": 1.0, "low": 1.0, "high": 1.0}


def limits(monkeypatch: pytest.MonkeyPatch, alarms: dict[float, dict[str, int | None]]) -> None:
    monkeypatch.setitem(NAIVE, "by hand", (lambda limit: ringing(alarms[limit]), list(alarms)))


def named(names: str) -> list[Trace]:
    return [trace(ticket=name) for name in names]


def test_the_best_limit_hits_most_knees_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two hits and three early alarms beat one hit and no false alarm.
    quiet = {"a": 4, "b": None, "c": None, "d": None, "e": None}
    limits(monkeypatch, {1.0: quiet, 2.0: {"a": 4, "b": 4, "c": 1, "d": 1, "e": 1}})
    assert best_limit("by hand", named("abcde"), lambda t: 4) == 2.0


def test_then_with_fewest_false_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    knees = {"a": 4, "b": 4, "c": None, "d": 4}
    alarms = {
        1.0: {"a": 4, "b": 2, "c": None, "d": 4},  # two hits, one early
        2.0: {"a": 4, "b": None, "c": 2, "d": 4},  # two hits, one needless
        3.0: {"a": 3, "b": None, "c": None, "d": 3},  # two hits, one missed, a round away
        4.0: {"a": 4, "b": 2, "c": 1, "d": 4},
    }
    limits(monkeypatch, alarms)
    assert best_limit("by hand", named("abcd"), lambda t: knees[t.ticket]) == 3.0


def test_then_nearest_to_the_knees(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, {1.0: {"a": 2}, 2.0: {"a": 3}, 3.0: {"a": 4}})
    assert best_limit("by hand", named("a"), lambda t: 3) == 2.0


def test_every_naive_rule_finds_a_limit() -> None:
    for name in ("fixed sparsity", "fixed Jaccard", "loss slope", "loss level"):
        assert best_limit(name, named("ab"), lambda t: 3) in NAIVE[name][1]
    ring = fixed_sparsity(best_limit("fixed sparsity", named("ab"), lambda t: 3))(trace())
    assert ring is not None
    assert ring.alarm == 3
