"""Pruning to the knee is a discovery with many rounds that stops by itself."""

from typing import Any

import pytest

from rtl_plugin import CollapseRule, GeometricSchedule, prune_to_the_knee
from rtl_plugin.errors import InvalidArgument
from tests.discovery.setups import MLP, built, cross_entropy, found, named_groups, sgd

RULE = CollapseRule(fall=0.3, rise=0.2, noise=0)


def knee(**settings: Any) -> Any:
    groups = named_groups(MLP, **dict.fromkeys("abcde", 1))
    others = {"optimizer": sgd, "steps": 2, "progress": False, "importance": "random"} | settings
    return prune_to_the_knee(built(MLP), groups, cross_entropy, **others)


def test_it_is_that_discovery() -> None:
    groups = named_groups(MLP, **dict.fromkeys("abcde", 1))
    schedule = GeometricSchedule(0.9, rounds=7)  # ln 0.1 / ln 0.7 = 6.5
    ours = knee(rate=0.3, limit=0.9, rule=RULE)
    theirs = found(
        built(MLP), groups, schedule=schedule, importance="random", stop_before_collapse=RULE
    )
    assert ours.history == theirs.history
    assert len({ticket.kept for ticket in ours.values()}) > 1


def test_a_limit_on_the_grid_takes_no_extra_round() -> None:
    tickets = knee(rate=0.5, limit=0.875, rule=CollapseRule(fall=0.99, rise=0.99))
    assert {row["round"] for row in tickets.history} == {1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0}, "rate"), ({"rate": 1.0}, "rate"), ({"limit": 1}, "limit"),
        ({"limit": "0.9"}, "limit"), ({"rate": True}, "rate"),
        ({"schedule": GeometricSchedule(0.5, rounds=3)}, "sets schedule itself"),
        ({"stop_before_collapse": True}, "sets stop_before_collapse itself"),
        ({"rate": 1e-12}, "larger rate"), ({"limit": 0.999999}, "smaller limit"),
        ({"rule": False}, "CollapseRule or None"), ({"rule": True}, "CollapseRule or None"),
        ({"rate": 0.5, "limit": 0.6}, "needs rounds to see a change in"),
    ],
)  # fmt: skip
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        knee(**settings)
