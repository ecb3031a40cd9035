"""Histories as curves: every number at the sparsity that it belongs to."""

from typing import Any

import pytest

from rtl_plugin.diagnostics.curves import ticket_curves
from rtl_plugin.errors import InvalidArgument


def row(round: int, achieved: float, **others: Any) -> dict[str, Any]:
    return {"round": round, "group": "a", "achieved": achieved, **others}


ALARM = {"round": 3, "last_good_round": 2, "direction": "rise"}


def test_loss_and_metric_stand_where_they_were_trained() -> None:
    history = [
        row(1, 0.5, loss=1.0, metric=0.9, similarity=0.4, excess=0.1),
        row(2, 0.75, loss=2.0, metric=0.8, similarity=0.3, excess=0.2),
        row(3, 0.75, loss=3.0, metric=0.7, closing=True),
    ]
    curve = ticket_curves(history)["a"]
    fields = ("round", "sparsity", "similarity", "excess", "loss", "metric")
    assert [tuple(getattr(p, field) for field in fields) for p in curve.points] == [
        (0, 0.0, None, None, 1.0, 0.9),
        (1, 0.5, 0.4, 0.1, 2.0, 0.8),
        (2, 0.75, 0.3, 0.2, 3.0, 0.7),
    ]
    assert (curve.alarm, curve.left, curve.kept_round) == (None, False, 2)


def test_without_a_closing_round_the_last_point_is_not_measured() -> None:
    last = ticket_curves([row(1, 0.5, loss=1.0)])["a"].points[-1]
    assert (last.round, last.loss, last.metric) == (1, None, None)


def test_who_left_keeps_its_last_good_round() -> None:
    history = [row(1, 0.3), row(2, 0.5), row(3, 0.7, alarm=ALARM, left=True)]
    curve = ticket_curves(history)["a"]
    assert (curve.left, curve.kept_round, curve.kept.sparsity) == (True, 2, 0.5)
    assert curve.alarm == ALARM


def test_an_alarm_that_stops_nothing() -> None:
    history = [row(1, 0.3), row(2, 0.5), row(3, 0.7, alarm=ALARM), row(4, 0.8)]
    curve = ticket_curves(history)["a"]
    assert (curve.alarm, curve.left, curve.kept_round) == (ALARM, False, 4)


def test_a_round_that_is_missing_shifts_nothing() -> None:
    history = [row(1, 0.3, loss=1.0, metric=0.9), row(3, 0.7, loss=3.0, metric=0.7)]
    points = ticket_curves(history)["a"].points
    assert [(p.round, p.loss, p.metric) for p in points] == [
        (0, 1.0, 0.9),
        (1, None, None),
        (3, None, None),
    ]


def test_who_left_quietly_is_measured_later() -> None:
    history = [row(1, 0.3), row(2, 0.5, left=True), row(9, 0.5, metric=0.6, closing=True)]
    curve = ticket_curves(history)["a"]
    assert curve.kept_round == 2
    assert curve.kept.metric == 0.6


def test_groups_in_order_of_appearance_and_rounds_sorted() -> None:
    history = [{**row(2, 0.5), "group": "b"}, {**row(1, 0.3), "group": "b"}, row(1, 0.3)]
    curves = ticket_curves(history)
    assert list(curves) == ["b", "a"]
    assert [point.round for point in curves["b"].points] == [0, 1, 2]
    assert ticket_curves([]) == {}


def test_refused() -> None:
    with pytest.raises(InvalidArgument, match="needs round, group and achieved"):
        ticket_curves([{"round": 1, "group": "a"}])
    with pytest.raises(InvalidArgument, match="round 1 of 'a' comes twice"):
        ticket_curves([row(1, 0.5), row(1, 0.5)])
