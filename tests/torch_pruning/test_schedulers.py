"""The core's schedules as the host asks for them."""

import copy
import itertools
from typing import Any

import pytest
import torch_pruning as tp

from rtl_plugin.discovery.sparsity_schedules import CubicSchedule, GeometricSchedule, LinearSchedule
from rtl_plugin.errors import InvalidArgument
from rtl_torch_pruning import cubic_scheduler, geometric_scheduler, linear_scheduler
from tests.torch_pruning.setups import example, host_of, magnitude, pruner_of, run_all
from tests.torch_pruning.zoo import CONV_BN, LAYER_NORM

PAIRS = {
    "geometric": (geometric_scheduler, GeometricSchedule),
    "linear": (linear_scheduler, LinearSchedule),
    "cubic": (cubic_scheduler, CubicSchedule),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("ratio", "steps"), [(0.5, 1), (0.75, 4), (0.9, 7), (0.0, 2)])
def test_shape(name: str, ratio: float, steps: int) -> None:
    scheduler, schedule = PAIRS[name]
    ratios = scheduler(ratio, steps)
    assert len(ratios) == steps + 1
    assert (ratios[0], ratios[-1]) == (0, pytest.approx(ratio))
    assert ratios == sorted(ratios)
    if ratio:
        assert ratios == list(schedule(ratio, steps)(ratio, steps))


def test_geometric_keeps_the_same_fraction_every_step() -> None:
    kept = [1 - ratio for ratio in geometric_scheduler(0.9, 5)]
    fractions = [later / earlier for earlier, later in itertools.pairwise(kept)]
    assert fractions == pytest.approx([fractions[0]] * 5)


def test_linear_is_the_hosts_default() -> None:
    default = tp.pruner.algorithms.scheduler.linear_scheduler
    for ratio, steps in ((0.5, 1), (0.7, 3), (0.9, 10)):
        assert linear_scheduler(ratio, steps) == pytest.approx(list(default(ratio, steps)))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("ratio", "steps"), [(-0.1, 2), (1.5, 2), (float("nan"), 2), (0.5, 0)])
def test_arguments_out_of_range(name: str, ratio: Any, steps: Any) -> None:
    with pytest.raises(InvalidArgument):
        PAIRS[name][0](ratio, steps)


@pytest.mark.parametrize("name", PAIRS)
def test_the_hosts_own_pruner_takes_them(name: str) -> None:
    model = CONV_BN.build()
    keywords = {"iterative_steps": 3, "iterative_pruning_ratio_scheduler": PAIRS[name][0]}
    host = host_of(
        copy.deepcopy(model), example(CONV_BN), magnitude(),
        {**CONV_BN.keywords(model), "pruning_ratio": 0.6, **keywords},
    )  # fmt: skip
    assert list(host.per_step_pruning_ratio) == PAIRS[name][0](0.6, 3)


def test_what_a_schedule_asks_is_reported() -> None:
    pruner = pruner_of(
        LAYER_NORM, LAYER_NORM.build(), pruning_ratio=0.6, iterative_steps=3,
        iterative_pruning_ratio_scheduler=GeometricSchedule(0.6, 3),
    )  # fmt: skip
    run_all(pruner)
    asked = [report["a"].asked for report in pruner.reports]
    assert asked == pytest.approx(geometric_scheduler(0.6, 3)[1:])
    assert pruner.tickets.schedule["ratios"] == pytest.approx([0, *asked])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (GeometricSchedule(0.5, 2), r"GeometricSchedule\(.* contradicts pruning_ratio=0.6"),
        (GeometricSchedule(0.6, 3), r"contradicts .*iterative_steps=2.*geometric_scheduler"),
        (lambda ratio, steps: [0.0, ratio], r"must return 3 ratios in \[0, 1\), got \[0.0, 0.6\]"),
        (lambda ratio, steps: [0.0, 0.5, 1.0], r"must return 3 ratios in \[0, 1\)"),
        (lambda ratio, steps: [0.0, float("nan"), 0.6], r"must return 3 ratios in \[0, 1\)"),
    ],
)
def test_schedules_that_contradict(schedule: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        pruner_of(
            CONV_BN, CONV_BN.build(), pruning_ratio=0.6, iterative_steps=2,
            iterative_pruning_ratio_scheduler=schedule,
        )  # fmt: skip
