"""The configuration gives the final ratios, the schedule the path of all of them."""

from typing import Any

import pytest

import rtl_plugin as rtl
from rtl_plugin.errors import InvalidArgument
from tests.nni.networks import CNN, LEVEL, MLP, pruner_of

PRUNABLE = 96 + 192
SCHEDULES = [
    rtl.OneShotSchedule(0.75),
    rtl.GeometricSchedule(0.75, rounds=3),
    rtl.LinearSchedule(0.75, rounds=3),
    rtl.CubicSchedule(0.75, rounds=3),
    rtl.FixedCountSchedule(100, 0.75),
]


class Late(rtl.SparsitySchedule):
    """A user's own."""

    def rounds_for(self, prunable: int | None = None) -> int:
        return 2

    def path(self, target: float, fraction: float) -> float:
        return target * fraction**2


@pytest.mark.parametrize("schedule", [*SCHEDULES, Late(0.75)], ids=lambda s: type(s).__name__)
def test_every_schedule(schedule: Any) -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=MLP.config(0.75), schedule=schedule)
    pruner.compress()
    rounds = schedule.rounds_for(PRUNABLE)
    assert pruner.rounds == rounds
    assert [row.round for row in pruner.report.rows] == [
        r for r in range(1, rounds + 1) for _ in "abc"
    ]
    for row in pruner.report.rows:
        ratio = schedule.sparsity(row.round, PRUNABLE)
        assert row.asked == pytest.approx(ratio)
        for name, size in (("0.weight", 96), ("2.weight", 192)):
            assert row.layers[name] == pytest.approx(int(size * ratio + 1e-9) / size)
    assert pruner.report.rows[-1].achieved == 0.75


def test_varied_ratios_keep_their_proportions() -> None:
    config = [
        {"op_names": ["0"], "sparse_ratio": 0.5},
        {"op_names": ["2"], "sparse_ratio": 0.75},
    ]
    schedule = rtl.LinearSchedule(0.9, rounds=3)  # its own end does not matter here
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config, schedule=schedule)
    pruner.compress()
    for row in pruner.report.rows:
        share = row.round / 3
        assert row.layers["0.weight"] == pytest.approx(int(96 * 0.5 * share + 1e-9) / 96)
        assert row.layers["2.weight"] == pytest.approx(int(192 * 0.75 * share + 1e-9) / 192)


def test_limits_and_thresholds_are_on_the_path_too() -> None:
    config = [{"op_names": ["2"], "sparse_ratio": 0.8, "min_sparse_ratio": 0.4}]
    schedule = rtl.LinearSchedule(0.8, rounds=2)
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config, schedule=schedule)
    pruner.compress()
    assert pruner.report.rows[0].layers["2.weight"] == pytest.approx(int(192 * 0.4) / 192)
    config = [{"op_names": ["2"], "sparse_threshold": 0.2}]
    pruner = pruner_of(MLP, MLP.build(), LEVEL, config=config, schedule=schedule)
    pruner.compress()
    first, last = pruner.report.rows[0], pruner.report.rows[-1]
    assert first.asked is None
    assert 0 < first.achieved < last.achieved < 1


@pytest.mark.parametrize("kind", [rtl.GeometricSchedule, rtl.LinearSchedule, rtl.CubicSchedule])
def test_a_schedule_that_contradicts_one_uniform_ratio(kind: Any) -> None:
    message = r"sparse_ratio 0\.5 everywhere, the schedule ends at 0\.75: give both the same"
    with pytest.raises(InvalidArgument, match=message):
        pruner_of(MLP, MLP.build(), schedule=kind(0.75, rounds=2))


def test_ratios_of_targets_count_too() -> None:
    config = [{"op_names": ["2"], "target_settings": {"weight": {"sparse_ratio": 0.5}}}]
    with pytest.raises(InvalidArgument, match=r"the schedule ends at 0\.75"):
        pruner_of(MLP, MLP.build(), config=config, schedule=rtl.LinearSchedule(0.75, rounds=2))


def test_a_round_that_rounds_down_to_nothing_is_no_error_before_the_last() -> None:
    schedule = rtl.LinearSchedule(0.5, rounds=10)
    pruner = pruner_of(CNN, CNN.build(), config=CNN.config(0.5), schedule=schedule)
    pruner.compress()
    assert pruner.report.rows[0].achieved == 0
    assert pruner.report.rows[-1].achieved == 0.5


def test_without_a_schedule_there_is_one_round() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL)
    assert pruner.rounds == 1
    pruner.compress()
    assert [row.round for row in pruner.report.rows] == [1, 1, 1]


def test_the_schedule_is_remembered_by_the_tickets() -> None:
    schedule = rtl.GeometricSchedule(0.5, rounds=2)
    pruner = pruner_of(MLP, MLP.build(), LEVEL, schedule=schedule)
    pruner.compress()
    assert pruner.tickets.schedule is not None
    assert pruner.tickets.schedule["path"] == schedule.description()
    assert pruner.tickets.schedule["pruner"].endswith(".LevelPruner")
    assert len(pruner.tickets.history) == 6
    assert "seconds" not in pruner.tickets.history[0]
