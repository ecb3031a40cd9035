"""The core's schedules as NNI's scheduled pruners, alone in a pipeline of NNI."""

import functools
import math
from typing import Any

import pytest
import torch
from nni.compression.pruning import (
    FPGMPruner,
    L1NormPruner,
    LevelPruner,
    LinearPruner,
    TaylorPruner,
)
from nni.compression.utils.evaluator import TorchEvaluator
from torch import nn

import rtl_plugin as rtl
from rtl_nni import FixedCountPruner, GeometricPruner
from rtl_nni.group_evaluators import train_on
from rtl_plugin.errors import InvalidArgument, PruningFailed
from tests.nni.networks import (
    CNN,
    MLP,
    TAYLOR,
    Kind,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    sgd,
)

RATIO, TIMES, INTERVAL = 0.75, 3, 2


def plain(model: nn.Module) -> TorchEvaluator:
    loop = functools.partial(train_on, loader=batches(MLP, "a"))
    return TorchEvaluator(loop, sgd(model.parameters()), cross_entropy)


def level(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LevelPruner(model, config, evaluator)


def l1(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return L1NormPruner(model, config, evaluator)


def fpgm(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return FPGMPruner(model, config, evaluator)


def taylor(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return TaylorPruner(model, config, evaluator, training_steps=INTERVAL)


INNER = [level, l1, fpgm, taylor]


def run(inner: Any, wrap: Any, config: Any = None, **model: Any) -> tuple[Any, Any, list[Any]]:
    """Densities of every layer after every optimizer step, and the final masks."""
    network = MLP.build()
    evaluator = plain(network)
    pruner = wrap(inner(network, config or MLP.config(RATIO), evaluator))
    seen: list[dict[str, float]] = []

    def noting(batch: Any, wrapped: nn.Module) -> torch.Tensor:
        masks = pruner.get_masks()
        seen.append({name: 1 - float(t["weight"].mean()) for name, t in masks.items()})
        return cross_entropy(batch, wrapped)

    evaluator._ori_training_step = evaluator._training_step = noting
    before = {n.replace("_nni_wrapper.", ""): p.clone() for n, p in network.named_parameters()}
    _, masks = pruner.compress(pruner.interval_steps * pruner.total_times, None)
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, before[name.replace("_nni_wrapper.", "")]), name
    seen.append({name: 1 - float(t["weight"].mean()) for name, t in masks.items()})
    return pruner, masks, seen


def blocks_of(inner: Any, layer: str) -> int:
    sizes = {"0": 96, "2": 192} if inner is level else {"0": 16, "2": 12}
    return sizes[layer]


@pytest.mark.parametrize("inner", INNER, ids=lambda f: f.__name__)
def test_a_geometric_pruner_follows_the_schedule_of_the_core(inner: Any) -> None:
    wrap = functools.partial(GeometricPruner, interval_steps=INTERVAL, total_times=TIMES)
    _, _, seen = run(inner, wrap)
    schedule = rtl.GeometricSchedule(RATIO, rounds=TIMES)
    for step, densities in enumerate(seen):
        ratio = schedule.sparsity(step // INTERVAL)
        for layer, sparsity in densities.items():
            count = blocks_of(inner, layer)
            assert sparsity == pytest.approx(int(count * ratio) / count), (step, layer)


@pytest.mark.parametrize("inner", INNER, ids=lambda f: f.__name__)
def test_a_fixed_count_pruner_removes_as_many_weights_at_every_update(inner: Any) -> None:
    wrap = functools.partial(FixedCountPruner, interval_steps=INTERVAL, count=60)
    pruner, _, seen = run(inner, wrap)
    assert pruner.total_times == math.ceil(RATIO * (96 + 192) / 60) == 4
    for step, densities in enumerate(seen):
        share = min(1.0, 60 * (step // INTERVAL) / (RATIO * (96 + 192)))
        for layer, sparsity in densities.items():
            count = blocks_of(inner, layer)
            assert sparsity == pytest.approx(int(count * RATIO * share) / count), (step, layer)


@pytest.mark.parametrize("prunable", [96, 288, 1000])
@pytest.mark.parametrize("count", [32, 60, 100])
def test_a_fixed_count_takes_as_many_updates_as_the_core_takes_rounds(
    count: int, prunable: int
) -> None:
    model = nn.Linear(prunable // 2, 2)
    evaluator = plain(model)
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.75, "target_names": ["weight"]}]
    pruner = FixedCountPruner(LevelPruner(model, config, evaluator), 1, count)
    assert pruner.total_times == rtl.FixedCountSchedule(count, 0.75).rounds_for(prunable)


@pytest.mark.parametrize("wrap", [GeometricPruner, FixedCountPruner])
def test_goals_are_floats_and_end_exactly(wrap: Any) -> None:
    """NNI's setters refuse anything but floats."""
    model = MLP.build()
    inner = LevelPruner(
        model, MLP.config(0.7, max_sparse_ratio=1, min_sparse_ratio=0.1), plain(model)
    )
    pruner = wrap(inner, 2, 3)
    spaces = [targets["weight"] for targets in inner._target_spaces.values()]
    seen = []
    for times in range(1, pruner.total_times + 1):
        pruner.update_sparse_goals(times)
        for space in spaces:
            assert isinstance(space.sparse_ratio, float)
            assert isinstance(space.max_sparse_ratio, float)
        seen.append(spaces[0].sparse_ratio)
    assert seen == sorted(seen)
    assert seen[-1] == 0.7
    assert (spaces[0].max_sparse_ratio, spaces[0].min_sparse_ratio) == (1.0, 0.1)


def test_thresholds_rise_evenly() -> None:
    model = MLP.build()
    config = [{"op_names": ["2"], "sparse_threshold": 0.3}]
    inner = LevelPruner(model, config, plain(model))
    pruner = GeometricPruner(inner, 1, 3)
    goals = []
    for times in (1, 2, 3):
        pruner.update_sparse_goals(times)
        goals.append(inner._target_spaces["2"]["weight"].sparse_threshold)
    assert goals == pytest.approx([0.1, 0.2, 0.3])


def test_an_evaluator_for_the_outer_pruner_that_would_train_nothing_is_refused() -> None:
    """The pattern of NNI's own tests, in which wrapped layers silently stand still."""
    model = MLP.build()
    evaluator = plain(model)
    message = "4 of the 6 parameters .* are not this model's"
    with pytest.raises(InvalidArgument, match=message):
        GeometricPruner(LevelPruner(model, MLP.config()), 2, 2, evaluator)
    with pytest.raises(InvalidArgument, match=message):
        FixedCountPruner(LevelPruner(model, MLP.config()), 2, 50, evaluator)


def test_an_evaluator_for_the_outer_pruner_that_is_tied_by_name_trains_everything() -> None:
    model = MLP.build()
    evaluator = evaluators_of(MLP, model, ["a"])["a"]
    pruner = GeometricPruner(LevelPruner(model, MLP.config()), 2, 2, evaluator)
    before = {name: p.clone() for name, p in model.named_parameters()}
    pruner.compress(4, None)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_two_evaluators_or_none() -> None:
    model = MLP.build()
    inner = LevelPruner(model, MLP.config(), plain(model))
    with pytest.raises(InvalidArgument, match="has an evaluator already"):
        GeometricPruner(inner, 2, 2, plain(model))
    with pytest.raises(InvalidArgument, match="give the evaluator to the LevelPruner"):
        GeometricPruner(LevelPruner(MLP.build(), MLP.config()), 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: GeometricPruner(p, 0, 2), "interval_steps"),
        (lambda p: GeometricPruner(p, 2, 0), "total_times"),
        (lambda p: GeometricPruner(p, 2.5, 2), "interval_steps"),
        (lambda p: FixedCountPruner(p, 1, 0), "count"),
        (lambda p: FixedCountPruner(p, 0, 1), "interval_steps"),
        (lambda p: GeometricPruner("level", 1, 1), "wraps an NNI pruner object, got str"),
        (lambda p: FixedCountPruner(LevelPruner, 1, 1), "wraps an NNI pruner object, got type"),
    ],
)
def test_arguments_out_of_range(make: Any, message: str) -> None:
    model = MLP.build()
    with pytest.raises(InvalidArgument, match=message):
        make(LevelPruner(model, MLP.config(), plain(model)))


def test_counting_needs_ratios() -> None:
    model = MLP.build()
    config = [{"op_names": ["0"], "sparse_threshold": 0.1}]
    with pytest.raises(InvalidArgument, match=r"0\.weight has a sparse_threshold"):
        FixedCountPruner(LevelPruner(model, config, plain(model)), 1, 5)
    config = [{"op_names": ["0"], "sparse_ratio": 0.0}]
    model = MLP.build()
    with pytest.raises(PruningFailed, match="asks for no sparsity"):
        FixedCountPruner(LevelPruner(model, config, plain(model)), 1, 5)


@pytest.mark.parametrize("lengths", [(5, None), (None, None)])
def test_a_training_that_is_too_short_is_refused(lengths: tuple[int | None, None]) -> None:
    model = MLP.build()
    pruner = GeometricPruner(LevelPruner(model, MLP.config(), plain(model)), 2, 3)
    with pytest.raises(InvalidArgument, match="max_steps"):
        pruner.compress(*lengths)


def test_a_maximum_of_one_is_no_limit_on_the_way() -> None:
    model = MLP.build()
    config = MLP.config(0.75, max_sparse_ratio=1.0)
    pruner = GeometricPruner(LevelPruner(model, config, plain(model)), 1, 2)
    pruner.update_sparse_goals(1)
    space = next(iter(pruner._target_spaces.values()))["weight"]
    assert (space.sparse_ratio, space.max_sparse_ratio) == (0.5, 1.0)


def test_a_count_knows_of_maxima() -> None:
    model = nn.Linear(10, 10)
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.9, "max_sparse_ratio": 0.5}]
    pruner = FixedCountPruner(LevelPruner(model, config, plain(model)), 1, 10)
    assert pruner.total_times == 5


def geometric(model: nn.Module, config: Any, evaluator: Any, steps: int) -> Any:
    return GeometricPruner(L1NormPruner(model, config, evaluator), max(1, steps // 2), 2)


def counting(model: nn.Module, config: Any, evaluator: Any, steps: int) -> Any:
    return FixedCountPruner(LevelPruner(model, config, evaluator), 1, count=50)


@pytest.mark.parametrize("source", [geometric, counting], ids=lambda f: f.__name__)
@pytest.mark.parametrize("network", [MLP, CNN], ids=lambda n: n.name)
def test_inside_our_own_pruner(source: Any, network: Any) -> None:
    kind = Kind(source.__name__, source, trains=True)
    schedule = rtl.GeometricSchedule(0.5, rounds=2)
    pruner = pruner_of(network, network.build(), kind, 24, schedule=schedule)
    pruner.compress()
    assert pruner.report.rows[-1].achieved == pytest.approx(0.5)


def test_beside_the_schedulers_of_nni() -> None:
    """Ours may be wrapped around pruners exactly where NNI's may."""
    model = MLP.build()
    inner = TAYLOR.source(model, MLP.config(), plain(model), training_steps=2)
    linear = LinearPruner(inner, 2, 2)
    assert linear.total_times == 2
    model = MLP.build()
    inner = TAYLOR.source(model, MLP.config(), plain(model), training_steps=2)
    _, masks = GeometricPruner(inner, 2, 2).compress(None, 2)
    assert int(masks["0"]["weight"].amax(1).sum()) == 8
