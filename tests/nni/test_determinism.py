"""The same masks in every process, and random streams that groups do not share."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import rtl_plugin as rtl
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.randomness import forked
from tests.nni.networks import (
    CLASSES,
    CNN,
    LEVEL,
    MLP,
    TAYLOR,
    Network,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
)

ROOT = Path(__file__).parents[2]
SCRIPT = "from tests.nni.test_determinism import described; print(described())"


def described() -> str:
    """Masks of several layers, ranked together and apart, with all their keys in order."""
    shared = {"exclude_op_names": ["8"], "sparse_ratio": 0.5, "global_group_id": 1}
    made = []
    for network, kind, config in (
        (CNN, TAYLOR, [{"op_types": ["Conv2d", "Linear"], **shared}]),
        (MLP, LEVEL, [{"op_types": ["Linear"], "exclude_op_names_re": ["4"], "sparse_ratio": 0.5}]),
    ):
        pruner = pruner_of(network, network.build(), kind, 20, config=config, seed=1)
        _, masks = pruner.compress()
        keys = [[g, [[m, list(t)] for m, t in ms.items()]] for g, ms in masks.items()]
        values = [v for ms in masks.values() for t in ms.values() for v in t.values()]
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in values)).hexdigest()
        entries = [entry["op_names"] for entry in pruner.config_list]
        made.append([keys, entries, list(pruner.tickets.shapes), digest])
    return json.dumps(made)


def test_another_process_with_another_hash_seed() -> None:
    """NNI walks over sets of names, whose order changes with the hash seed."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'integrations'}",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.splitlines()[-1:] == [described()], finished.stderr


def shuffling(network: Network, names: str, own: bool) -> dict[str, Any]:
    loaders = {}
    for name in names:
        with forked(ord(name)):
            data = TensorDataset(network.inputs(20), torch.randint(CLASSES, (20,)))
        generator = torch.Generator().manual_seed(ord(name)) if own else None
        loaders[name] = DataLoader(data, batch_size=4, shuffle=True, generator=generator)
    return loaders


def noisy(batch: Any, model: nn.Module) -> torch.Tensor:
    """Draws from torch, numpy and python alike."""
    import random

    scale = 1 + torch.rand(1).item() + float(np.random.rand()) + random.random()
    return cross_entropy((batch[0] + torch.randn_like(batch[0]), batch[1]), model) * scale


def run(names: str, seed: int | None, own: bool, steps: int = 12, **others: Any) -> Any:
    model = MLP.build()
    loaders = shuffling(MLP, names, own)
    evaluators = evaluators_of(MLP, model, loaders=loaders, training_step=noisy)
    return pruner_of(MLP, model, LEVEL, steps, evaluators=evaluators, seed=seed, **others)


@pytest.mark.parametrize("own", [False, True], ids=["global", "own generators"])
class TestSeed:
    def test_makes_runs_repeatable(self, own: bool) -> None:
        with forked(1):
            first = run("ab", 7, own).compress()[1]
        with forked(2):
            second = run("ab", 7, own).compress()[1]
        assert all(same_masks(first[name], second[name]) for name in "ab")

    def test_another_one_gives_others(self, own: bool) -> None:
        first, second = run("ab", 7, own).compress()[1], run("ab", 8, own).compress()[1]
        assert not same_masks(first["a"], second["a"])

    def test_a_group_trains_alike_in_other_company(self, own: bool) -> None:
        both = run("ab", 7, own).compress()[1]
        alone = run("b", 7, own).compress()[1]
        assert same_masks(both["b"], alone["b"])

    def test_rounds_have_streams_of_their_own(self, own: bool) -> None:
        drawn: list[float] = []

        def drawing(batch: Any, model: nn.Module) -> torch.Tensor:
            drawn.append(float(batch[0].sum()))
            return cross_entropy(batch, model)

        model = MLP.build()
        loaders = shuffling(MLP, "a", own)
        evaluators = evaluators_of(MLP, model, loaders=loaders, training_step=drawing)
        schedule = rtl.GeometricSchedule(0.5, rounds=2)
        pruner_of(MLP, model, LEVEL, 5, evaluators=evaluators, seed=3, schedule=schedule).compress()
        assert drawn[:5] != drawn[5:]


@pytest.mark.parametrize("own", [False, True], ids=["global", "own generators"])
def test_without_a_seed_every_training_sees_the_same_order(own: bool) -> None:
    drawn: list[float] = []

    def drawing(batch: Any, model: nn.Module) -> torch.Tensor:
        drawn.append(float(batch[0].sum()))
        return cross_entropy(batch, model)

    model = MLP.build()
    loaders = shuffling(MLP, "a", own)
    evaluators = evaluators_of(MLP, model, loaders=loaders, training_step=drawing)
    schedule = rtl.GeometricSchedule(0.5, rounds=3)
    pruner_of(MLP, model, LEVEL, 7, evaluators=evaluators, schedule=schedule).compress()
    assert drawn[:7] == drawn[7:14] == drawn[14:]
    assert len(set(drawn[:5])) == 5


def test_without_a_seed_the_global_one_decides() -> None:
    found = []
    for seed in (1, 1, 2):
        pruner = run("a", None, own=False)
        with forked(seed):
            found.append(pruner.compress()[1]["a"])
    assert same_masks(found[0], found[1])
    assert not same_masks(found[0], found[2])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seed", [None, 5])
def test_generators_inside_loaders_are_put_back(seed: int | None, fails: bool) -> None:
    model = MLP.build()
    loaders = shuffling(MLP, "ab", own=True)
    with forked(0):
        sampler = RandomSampler(range(20), generator=torch.Generator().manual_seed(9))
        data = TensorDataset(MLP.inputs(20), torch.randint(CLASSES, (20,)))
    loaders["c"] = DataLoader(data, batch_size=4, sampler=sampler)

    def failing(batch: Any, model: nn.Module) -> torch.Tensor:
        if fails:
            raise RuntimeError
        return cross_entropy(batch, model)

    evaluators = evaluators_of(MLP, model, loaders=loaders, training_step=failing)
    generators = [loaders["a"].generator, loaders["b"].generator, sampler.generator]
    before = [generator.get_state() for generator in generators]
    pruner = pruner_of(MLP, model, LEVEL, evaluators=evaluators, seed=seed)
    if fails:
        with pytest.raises(RuntimeError):
            pruner.compress()
    else:
        pruner.compress()
    for generator, state in zip(generators, before, strict=True):
        assert torch.equal(generator.get_state(), state)


class Loop:
    """A training function that is an object with a loader."""

    def __init__(self, loader: Any) -> None:
        self.parts = {"train": [loader]}

    def __call__(self, model: nn.Module, optimizer: Any, step: Any, *_: Any) -> None:
        for batch in self.parts["train"][0]:
            optimizer.zero_grad()
            step(batch, model).backward()
            optimizer.step()

    method = __call__


def closing(loader: Any) -> Any:
    def loop(model: nn.Module, optimizer: Any, step: Any, *_: Any) -> None:
        Loop(loader)(model, optimizer, step)

    return loop


def defaulting(loader: Any) -> Any:
    def loop(model: nn.Module, optimizer: Any, step: Any, *_: Any, own: Any = loader) -> None:
        Loop(own)(model, optimizer, step)

    return loop


FORMS = {
    "object": Loop,
    "method": lambda loader: Loop(loader).method,
    "closure": closing,
    "default": defaulting,
}


@pytest.mark.parametrize("form", FORMS)
def test_generators_are_found_in_every_form_of_training_function(form: str) -> None:
    from nni.compression.utils.evaluator import TorchEvaluator

    from tests.nni.networks import sgd

    model, orders = MLP.build(), []

    def noting(batch: Any, wrapped: nn.Module) -> torch.Tensor:
        orders.append(float(batch[0].sum()))
        return cross_entropy(batch, wrapped)

    loader = shuffling(MLP, "a", own=True)["a"]
    evaluator = TorchEvaluator(FORMS[form](loader), sgd(model.parameters()), noting)
    schedule = rtl.GeometricSchedule(0.5, rounds=2)
    pruner = pruner_of(MLP, model, LEVEL, 5, evaluators={"a": evaluator}, schedule=schedule)
    pruner.compress()
    assert orders[:5] == orders[5:]


@pytest.mark.parametrize("wrong", [-1, 0.5, "a", True])
def test_a_seed_that_is_no_number(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="seed"):
        run("a", wrong, own=False)


def test_runs_repeat_bit_for_bit_with_dropout_under_taylor() -> None:
    class Dropping(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, CLASSES))

    network = Network("dropping", Dropping, (6,), {"op_names": ["0"]})
    masks = []
    for outside in (1, 2):
        with forked(outside):
            pruner = pruner_of(network, network.build(), TAYLOR, 10, seed=4)
            masks.append(pruner.compress()[1])
    assert all(same_masks(masks[0][name], masks[1][name]) for name in "abc")


def test_statistics_of_batch_norm_do_not_leak_between_groups() -> None:
    """Groups in company have the masks that they have alone."""
    together = pruner_of(CNN, CNN.build(), TAYLOR, names=("a", "b")).compress()[1]
    alone = pruner_of(CNN, CNN.build(), TAYLOR, names=("b",)).compress()[1]
    assert same_masks(together["b"], alone["b"])
