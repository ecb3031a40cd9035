"""Knees and alarms of the collapse benchmark, by hand."""

import math

import pytest

from benchmarks.collapse_rules import (
    KNEES,
    NAIVE,
    Ring,
    chord_knee,
    fixed_jaccard,
    fixed_sparsity,
    loss_level,
    loss_slope,
    monitored,
    tolerance_knee,
    traces_of,
)
from rtl_plugin import CollapseRule
from tests.benchmarks_collapse.hand_made import halving, trace


def test_quality_is_the_falling_fits_share_above_chance() -> None:
    # .8 .9 .9 become their mean; the fit's first value is the best.
    best = 2.6 / 3 - 0.1
    assert trace().quality == pytest.approx((1, 1, 1, 0.74 / best, 0.4 / best))
    dipped = trace(metrics=(0.9, 0.5, 0.9, 0.5, 0.1))
    assert dipped.quality == pytest.approx((1, 0.75, 0.75, 0.5, 0)), "a dip counts for its mean"


def test_a_ticket_that_never_learnt_has_no_quality_and_no_knee() -> None:
    for metrics in ((0.1,) * 5, (0.1, 0.05, 0.05, 0.0, 0.0), (0.0, 0.1, 0.1, 0.1, 0.1)):
        idle = trace(metrics=metrics)
        assert idle.quality is None
        assert [knee(idle) for knee in KNEES.values()] == [None] * 4


def test_tolerance_knee() -> None:
    # Above chance: .8 .8 .76 .4 .04, so 1 1 .95 .5 .05 of the best.
    falling = trace(metrics=(0.9, 0.9, 0.86, 0.5, 0.14))
    assert tolerance_knee(falling, 0.025) == 2
    assert tolerance_knee(falling, 0.05) == 3, "exactly the tolerance is not more than it"
    assert tolerance_knee(falling, 0.6) == 4
    assert tolerance_knee(falling, 0.96) is None
    assert tolerance_knee(trace(metrics=(0.9, 0.9, 0.9, 0.82, 0.1)), 0.1) == 4, "nor is .9 - 1e-16"
    assert [KNEES[f"{n} % lost"](falling) for n in ("2.5", "5", "10")] == [2, 3, 3]


def test_a_noisy_best_does_not_move_the_knee() -> None:
    # Nothing but the raw best is .9: the fit starts at .83, and loses 5 % of .73 above chance
    # below .7935.
    noisy = trace(metrics=(0.8, 0.8, 0.9, 0.8, 0.5), chance=0.1)
    assert tolerance_knee(noisy, 0.05) == 4


def test_chord_knee() -> None:
    # Quality 1 1 1 .5 0: the chord falls by .25 a round, farthest below at round 2.
    assert chord_knee(trace(metrics=(0.9, 0.9, 0.9, 0.5, 0.1))) == 3
    assert chord_knee(trace(metrics=(0.9, 0.9, 0.9, 0.9, 0.85))) is None, "nothing broke down"
    assert chord_knee(trace(metrics=(0.9, 0.9, 0.9, 0.9, 0.8))) == 4
    # Quality 1 .98 .96 .5 .4: .46 below the best .96 would be the raw metric's; the dip of round 1
    # is evened out with round 2.
    assert chord_knee(trace(metrics=(0.9, 0.87, 0.898, 0.5, 0.42))) == 3


def test_naive_rules_and_the_masks_that_they_keep() -> None:
    assert fixed_sparsity(0.75)(trace()) == Ring(alarm=2, kept=1)
    assert fixed_sparsity(0.5)(trace()) == Ring(alarm=1, kept=0)
    assert fixed_sparsity(0.99)(trace()) is None
    assert fixed_jaccard(0.4)(trace()) == Ring(alarm=2, kept=1)
    assert fixed_jaccard(0.1)(trace()) is None
    rising = trace(similarities=(1.0, 0.2, 0.4, 0.8, 0.9))
    assert fixed_jaccard(0.1)(rising) is None, "one-sided"


def test_loss_rules_learn_of_a_loss_one_round_later() -> None:
    # Losses under masks 0..4: 1, .5, 1, 1.1, 4.4; those of round r are known in round r + 1.
    assert loss_slope(0.9)(trace()) == Ring(alarm=3, kept=1)  # doubled at a halving: elasticity 1
    assert loss_slope(0.9)(trace(losses=(1.0, 2.0, 2.0, 2.0, 2.0))) == Ring(alarm=2, kept=0)
    assert loss_slope(1.1)(trace()) is None  # the jump to 4.4 would show in round 5
    assert loss_level(1.05)(trace()) == Ring(alarm=4, kept=2)
    assert loss_level(0.4)(trace()) == Ring(alarm=2, kept=0)
    assert loss_level(1.1)(trace()) is None


def test_a_loss_slope_needs_a_round_that_pruned() -> None:
    floor = trace(densities=(1.0, 0.5, 0.5, 0.5, 0.25), losses=(1.0, 1.0, 2.0, 3.0, 4.0))
    assert loss_slope(0.5)(floor) is None


def test_the_monitor_is_the_packages_rule_and_names_the_masks_to_keep() -> None:
    rises = trace(changes=halving([0.2, 0.2, -0.1, -0.3]))
    assert monitored(CollapseRule(noise=0, rise=0.05))(rises) == Ring(alarm=3, kept=2)
    assert monitored(CollapseRule(noise=0, rise=0.2))(rises) == Ring(alarm=4, kept=3)
    assert monitored(CollapseRule(noise=0, rise=0.5))(rises) is None
    # A window of two halvings: -.2 over the last two, which start at round 2.
    wide = CollapseRule(noise=0, rise=0.15, window=1.3, warm_up=1)
    assert monitored(wide)(rises) == Ring(alarm=4, kept=2)


def test_the_grids_reach_past_the_sparsity_of_the_runs() -> None:
    sparsities = NAIVE["fixed sparsity"][1]
    assert max(sparsities) > 0.9985
    assert min(sparsities) < 0.4
    assert max(sparsities) < 1


def test_a_recorded_run_becomes_traces() -> None:
    run = {
        "task": "t",
        "seed": 3,
        "groups": ["a", "b"],
        "prunable": 64,
        "chance": [0.1, 0.2],
        "shared": [[[32, 16], [16, 32]], [[16, 4], [4, 16]]],
        "metrics": [[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]],
        "losses": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    }
    first, second = traces_of(run)
    assert first.densities == (1.0, 0.5, 0.25)
    assert first.similarities == (1.0, pytest.approx(16 / 48), pytest.approx(4 / 28))
    assert first.changes[1].agreement == pytest.approx(math.log(0.5))
    assert (first.task, first.seed, first.rounds) == ("t", 3, 2)
    assert (second.ticket, second.chance, second.metrics) == ("b", 0.2, (0.6, 0.5, 0.4))
    assert second.losses == (4.0, 5.0, 6.0)
