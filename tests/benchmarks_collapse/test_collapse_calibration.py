"""The limits that pilot runs set, by hand."""

import pytest

from benchmarks.collapse_calibration import (
    calibrated,
    healthy_rounds,
    largest_departures,
    rounded_up,
)
from rtl_plugin import CollapseRule
from tests.benchmarks_collapse.hand_made import halving, trace

HEALTHY = (1.0, 0.5, 0.6, 0.7, 0.8)
RULE = CollapseRule(warm_up=2)


def test_healthy_until_the_loss_passes_the_dense_networks() -> None:
    assert healthy_rounds(trace()) == 2
    assert healthy_rounds(trace(losses=HEALTHY)) == 4
    assert healthy_rounds(trace(losses=(1.0, 1.1, 0.6, 0.7, 0.8))) == 0


def test_departures_while_healthy() -> None:
    changes = halving([0.4, 0.2, 0.5, -0.3])
    assert largest_departures(trace(changes=changes, losses=HEALTHY), RULE) == pytest.approx(
        (0.3, 0.3)
    )
    sick = trace(changes=changes, losses=(1.0, 0.5, 0.6, 0.7, 1.8))
    assert largest_departures(sick, RULE) == pytest.approx((0.3, 0.0))
    calm = trace(changes=halving([0.4, 0.3, 0.2, 0.1]), losses=HEALTHY)
    assert largest_departures(calm, RULE) == (0.0, 0.0)


def test_the_warm_up_is_no_departure() -> None:
    changes = halving([0.1, 0.9, 0.1, 0.1])
    assert largest_departures(trace(changes=changes, losses=HEALTHY), RULE) == (0.0, 0.0)
    changes = halving([-0.4, -0.4, -0.4, -0.1])
    assert largest_departures(trace(changes=changes, losses=HEALTHY), RULE) == pytest.approx(
        (0.3, 0.4)
    )


def test_a_ticket_that_was_healthy_only_in_the_warm_up_says_nothing() -> None:
    changes = halving([0.2, 0.2, 0.7, 0.7])
    two = trace(changes=changes, losses=(1.0, 0.5, 0.6, 1.7, 1.8))
    three = trace(changes=changes, losses=(1.0, 0.5, 0.6, 0.7, 1.8))
    assert largest_departures(two, RULE) is None
    assert largest_departures(three, RULE) == pytest.approx((0.5, 0.0))


def test_rounds_within_the_first_window_do_not_count() -> None:
    # Elasticities over two halvings each: none, .2, .2, .4.
    wide = trace(changes=halving([0.2, 0.2, 0.2, 0.6]), losses=HEALTHY)
    assert largest_departures(wide, CollapseRule(window=0.8, warm_up=2)) == pytest.approx((0.2, 0))
    assert largest_departures(wide, CollapseRule(window=0.8, warm_up=3)) is None


def test_the_limits_are_a_quantile_of_the_tickets_that_count() -> None:
    climbs = [0.1, 0.2, 0.3]
    healthy = [trace(changes=halving([0.2, 0.2, 0.2 + c, 0.2]), losses=HEALTHY) for c in climbs]
    idle = [trace(losses=(1.0, 2.0, 2.0, 2.0, 2.0))] * 7
    # The 95th percentile of .1 .2 .3 is .29, that of .1 .2 is .195; with seven zeros it were .16.
    assert calibrated([*healthy, *idle]) == {"fall": 0.3, "rise": 0.05, "tickets": 3, "of": 10}
    assert calibrated(healthy[:2] + idle) == {"fall": 0.2, "rise": 0.05, "tickets": 2, "of": 9}


def test_no_ticket_no_limit() -> None:
    nothing = {"fall": None, "rise": None}
    assert calibrated([trace(losses=(1.0,) + (2.0,) * 4)]) == {**nothing, "tickets": 0, "of": 1}
    assert calibrated([]) == {**nothing, "tickets": 0, "of": 0}


def test_limits_are_rounded_up() -> None:
    limits = {0.0: 0.05, 0.01: 0.05, 0.05: 0.05, 0.051: 0.1, 0.1 + 0.2: 0.3, 0.31: 0.35}
    assert {limit: rounded_up(limit) for limit in limits} == limits
