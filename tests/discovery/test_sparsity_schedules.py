"""The five schedules against values worked out by hand."""

import itertools
import math
from typing import Any

import pytest

from rtl_plugin import (
    CubicSchedule,
    FixedCountSchedule,
    GeometricSchedule,
    LinearSchedule,
    OneShotSchedule,
    SparsitySchedule,
)
from rtl_plugin.discovery.sparsity_schedules import survivors
from rtl_plugin.errors import InvalidArgument

BY_HAND = [
    (GeometricSchedule(0.75, rounds=2), [0.0, 0.5, 0.75]),
    (GeometricSchedule(0.488, rounds=3), [0.0, 0.2, 0.36, 0.488]),  # 20 % of the survivors
    (GeometricSchedule(0.9, rounds=1), [0.0, 0.9]),
    (LinearSchedule(0.8, rounds=4), [0.0, 0.2, 0.4, 0.6, 0.8]),
    (CubicSchedule(0.8, rounds=2), [0.0, 0.7, 0.8]),
    (CubicSchedule(0.64, rounds=4), [0.0, 0.37, 0.56, 0.63, 0.64]),
    (OneShotSchedule(0.9), [0.0, 0.9]),
]


@pytest.mark.parametrize(("schedule", "expected"), BY_HAND, ids=lambda x: repr(x)[:40])
def test_sparsity_after_every_round(schedule: SparsitySchedule, expected: list[float]) -> None:
    rounds = schedule.rounds_for()
    assert rounds == len(expected) - 1
    path = [schedule.sparsity(r) for r in range(rounds + 1)]
    assert path == pytest.approx(expected, abs=1e-12)
    assert path[0] == 0.0
    assert path[-1] == schedule.target, "the last is exactly the target, not nearly"
    assert [schedule.sparsity(r, prunable=123) for r in range(rounds + 1)] == path


def test_a_fixed_count_needs_the_number_of_weights() -> None:
    schedule = FixedCountSchedule(30, sparsity=0.5)
    assert schedule.rounds_for(100) == 2
    assert [schedule.sparsity(r, 100) for r in (0, 1, 2)] == [0.0, 0.3, 0.5]
    assert schedule.rounds_for(50) == 1
    assert schedule.rounds_for(300) == 5
    with pytest.raises(InvalidArgument, match="FixedCountSchedule needs prunable="):
        schedule.sparsity(1)


def test_a_fixed_count_removes_exactly_so_many_and_the_rest_in_the_last_round() -> None:
    prunable = 125_832  # the paper's network
    schedule = FixedCountSchedule(4096, sparsity=0.75)
    rounds = schedule.rounds_for(prunable)
    kept = [survivors(schedule.sparsity(r, prunable), prunable) for r in range(rounds + 1)]
    removed = [before - after for before, after in itertools.pairwise(kept)]
    assert removed[:-1] == [4096] * (rounds - 1)
    assert 0 < removed[-1] <= 4096
    assert kept[-1] == 31_458


CALLED = [
    (GeometricSchedule(0.1, rounds=7), 0.75, 2, [0.0, 0.5, 0.75]),
    (LinearSchedule(0.1, rounds=7), 0.8, 4, [0.0, 0.2, 0.4, 0.6, 0.8]),
    (CubicSchedule(0.1, rounds=7), 0.8, 2, [0.0, 0.7, 0.8]),
    (FixedCountSchedule(30, sparsity=0.1), 0.6, 3, [0.0, 0.2, 0.4, 0.6]),
    (OneShotSchedule(0.1), 0.5, 3, [0.0, 0.5, 0.5, 0.5]),
    (GeometricSchedule(0.1, rounds=7), 1.0, 2, [0.0, 1.0, 1.0]),
    (LinearSchedule(0.1, rounds=7), 0.0, 2, [0.0, 0.0, 0.0]),
    (CubicSchedule(0.1, rounds=7), 0.3, 1, [0.0, 0.3]),
]


@pytest.mark.parametrize(("schedule", "ratio", "steps", "expected"), CALLED)
def test_called_as_torch_pruning_does(
    schedule: SparsitySchedule, ratio: float, steps: int, expected: list[float]
) -> None:
    values = schedule(ratio, steps)
    assert len(values) == steps + 1
    assert values == pytest.approx(expected, abs=1e-12)
    assert (values[0], values[-1]) == (0.0, ratio)
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("ratio", "steps"), [(1.1, 2), (-0.1, 2), (math.nan, 2), (0.5, 0), (0.5, 1.5)]
)
def test_called_with_nonsense(ratio: float, steps: int) -> None:
    with pytest.raises(InvalidArgument, match=r"need ratio in \[0, 1\] and steps >= 1, got"):
        LinearSchedule(0.5, rounds=2)(ratio, steps)


@pytest.mark.parametrize("round", [-1, 3])
def test_a_round_that_is_not_there(round: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"round must be in 0\.\.2, got {round}"):
        LinearSchedule(0.5, rounds=2).sparsity(round)


@pytest.mark.parametrize("sparsity", [0, 1, 1.5, -0.2, math.nan, 75, True, "0.5", None])
@pytest.mark.parametrize(
    "make",
    [
        lambda s: GeometricSchedule(s, rounds=2),
        lambda s: FixedCountSchedule(3, sparsity=s),
        OneShotSchedule,
    ],
    ids=["geometric", "fixed", "one shot"],
)
def test_a_target_out_of_range(make: Any, sparsity: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"sparsity must be (a number )?in \(0, 1\), got"):
        make(sparsity)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, None])
def test_rounds_and_counts_are_whole_numbers(count: Any) -> None:
    for kind in (GeometricSchedule, LinearSchedule, CubicSchedule):
        with pytest.raises(InvalidArgument, match="rounds must be a whole number of at least 1"):
            kind(0.5, rounds=count)
    with pytest.raises(InvalidArgument, match="count must be a whole number of at least 1"):
        FixedCountSchedule(count, sparsity=0.5)


@pytest.mark.parametrize(
    ("sparsity", "prunable", "kept"),
    [
        (0.75, 10, 3),
        (0.5, 5, 3),
        (0.9, 10, 1),
        (0.0, 7, 7),
        (0.999, 100, 0),
        (0.25, 125_832, 94_374),
    ],
)
def test_survivors_round_half_up(sparsity: float, prunable: int, kept: int) -> None:
    assert survivors(sparsity, prunable) == kept


def test_descriptions_tell_schedules_apart() -> None:
    schedules = [schedule for schedule, _ in BY_HAND] + [FixedCountSchedule(3, sparsity=0.9)]
    assert len({str(schedule.description()) for schedule in schedules}) == len(schedules)
    assert repr(FixedCountSchedule(3, sparsity=0.9)) == "FixedCountSchedule(sparsity=0.9, count=3)"
