"""Whatever goes wrong, the model is unwrapped and as it was, and compress() can be called again."""

import random
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from nni.compression.pruning import L1NormPruner
from torch import nn

import rtl_plugin as rtl
from rtl_nni import IdenticalTickets
from rtl_plugin.errors import PruningFailed, RewindFailed, RtlError, TrainingDiverged
from tests.nni.networks import (
    AGP,
    CNN,
    ENCODER,
    GROUPS,
    KINDS,
    L1,
    LEVEL,
    LINEAR,
    MLP,
    MOVEMENT,
    SLIM,
    TAYLOR,
    Kind,
    adam,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
)
from tests.nni.traits import Before, used

STEPS = 4
SCHEDULE = rtl.GeometricSchedule(0.5, rounds=2)


class Stumbling:
    """A training step that raises at one of its calls, until it is mended."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.calls, self.mended = at, error, 0, False

    def __call__(self, batch: Any, model: nn.Module) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at and not self.mended:
            raise self.error
        return cross_entropy(batch, model)


def stumbling(kind: Kind, at: int, error: BaseException) -> tuple[Stumbling, Any, Any]:
    model = used(CNN)
    step = Stumbling(at, error)
    evaluators = evaluators_of(CNN, model, training_step=step)
    pruner = pruner_of(CNN, model, kind, STEPS, evaluators=evaluators, schedule=SCHEDULE)
    return step, pruner, evaluators


def check_clean(before: Before, evaluators: Any) -> None:
    before.check()
    for evaluator in evaluators.values():
        assert evaluator.model is None
        assert evaluator._optimizers is None
        assert not evaluator.get_all_hooks()
        assert evaluator._training_step is evaluator._ori_training_step


SAME = pytest.mark.filterwarnings("ignore::rtl_nni.IdenticalTickets")  # few steps are few


# Steps are counted over (round, group): the first at all, the second group's first, the middle
# of the third group in the second round.
@SAME
@pytest.mark.parametrize("at", [1, STEPS + 1, STEPS * 5 + 2])
@pytest.mark.parametrize("kind", [L1, TAYLOR, SLIM, MOVEMENT, LINEAR, AGP], ids=lambda k: k.name)
def test_a_training_function_that_fails(kind: Kind, at: int) -> None:
    error = RuntimeError("no more disk space")
    step, pruner, evaluators = stumbling(kind, at, error)
    before = Before(pruner.bound_model)
    with pytest.raises(RuntimeError) as caught:
        pruner.compress()
    assert caught.value is error
    check_clean(before, evaluators)
    step.mended = True
    _, masks = pruner.compress()
    expected = pruner_of(CNN, used(CNN), kind, STEPS, schedule=SCHEDULE).compress()[1]
    assert all(same_masks(masks[name], expected[name]) for name in GROUPS)
    before.check()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(2), AssertionError("mine"), StopIteration()]
)
def test_every_kind_of_exception_passes_through(error: BaseException) -> None:
    _, pruner, evaluators = stumbling(L1, STEPS + 2, error)
    before = Before(pruner.bound_model)
    with pytest.raises(type(error)) as caught:
        pruner.compress()
    assert caught.value is error
    check_clean(before, evaluators)


def test_masks_of_an_unfinished_run_are_not_handed_out() -> None:
    _, pruner, _ = stumbling(L1, STEPS * 4, RuntimeError())
    with pytest.raises(RuntimeError):
        pruner.compress()
    for asked in (pruner.get_masks, lambda: pruner.tickets):
        with pytest.raises(RtlError, match=r"compress\(\) has not finished"):
            asked()


def test_a_failed_second_run_leaves_the_masks_of_the_first() -> None:
    step, pruner, _ = stumbling(L1, STEPS * 4, RuntimeError())
    step.mended = True
    _, masks = pruner.compress()
    step.at, step.mended, step.calls = 1, False, 0
    with pytest.raises(RuntimeError):
        pruner.compress()
    assert same_masks(pruner.get_masks("a"), masks["a"])
    assert not pruner.report.rows


@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_pruner_function_that_fails(at: int) -> None:
    calls: list[int] = []

    def factory(model: nn.Module, config: Any, evaluator: Any) -> Any:
        made = L1NormPruner(model, config, evaluator)
        calls.append(1)
        if len(calls) == at:
            raise ZeroDivisionError("by hand")
        return made

    model = used(CNN)
    pruner = pruner_of(CNN, model, pruner=factory, pruner_options=None, schedule=SCHEDULE)
    before = Before(model)
    with pytest.raises(ZeroDivisionError, match="by hand"):
        pruner.compress()
    before.check()
    pruner.compress()
    before.check()


def test_a_late_rewind_point_that_is_not_reached() -> None:
    error = RuntimeError("too late")
    model = used(CNN)
    evaluators = evaluators_of(CNN, model, training_step=Stumbling(3, error))
    pruner = pruner_of(CNN, model, evaluators=evaluators, rewind_to=6)
    before = Before(model)
    with pytest.raises(RuntimeError) as caught:
        pruner.compress()
    assert caught.value is error
    check_clean(before, evaluators)


def test_what_nni_itself_asserts_says_which_pruner() -> None:
    """A fine-grained FPGM is what NNI refuses, with an AssertionError."""
    from nni.compression.pruning import FPGMPruner

    class Fine(FPGMPruner):  # type: ignore[misc]
        def _set_default_sparse_granularity(self, target_space: Any) -> None:
            return None

    model = used(CNN)
    before = Before(model)
    pruner = pruner_of(CNN, model, Kind("fine", Fine))
    with pytest.raises(
        PruningFailed, match=r"refused to make or run Fine: .*finegrained"
    ) as caught:
        pruner.compress()
    assert isinstance(caught.value.__cause__, AssertionError)
    before.check()


def test_weights_that_became_nan() -> None:
    def exploding(batch: Any, model: nn.Module) -> torch.Tensor:
        return cross_entropy(batch, model) * float("nan")

    model = used(CNN)
    evaluators = evaluators_of(CNN, model, training_step=exploding)
    pruner = pruner_of(CNN, model, evaluators=evaluators)
    before = Before(model)
    with pytest.raises(TrainingDiverged, match="group 'a', round 1"):
        pruner.compress()
    check_clean(before, evaluators)


def buffers_replaced(model: nn.Module) -> None:
    norm = model.get_submodule("1")
    norm.running_mean = torch.zeros(8)
    norm.num_batches_tracked = None


def layer_replaced(model: nn.Module) -> None:
    model[8] = nn.Linear(12, 4)


def hooks_added(model: nn.Module) -> None:
    model.get_submodule("1").register_forward_hook(lambda *_: None)
    model.get_submodule("1").register_forward_pre_hook(lambda *_: None)


def method_replaced(model: nn.Module) -> None:
    norm = model.get_submodule("1")
    norm.forward = types.MethodType(type(norm).forward, norm)


def flags_changed(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
    model.eval()


MISCHIEF = (
    buffers_replaced, layer_replaced, hooks_added, method_replaced, flags_changed,
)  # fmt: skip


@pytest.mark.parametrize("mischief", MISCHIEF, ids=lambda m: m.__name__)
def test_a_trainer_that_changes_the_model_itself(mischief: Callable[[nn.Module], None]) -> None:
    """And then fails: what it left behind is put back."""
    model = used(CNN)
    before = Before(model)

    def training(wrapped: nn.Module, *_: Any, **__: Any) -> None:
        mischief(wrapped)
        raise RuntimeError("after the mischief")

    evaluators = evaluators_of(CNN, model, training_func=training)
    with pytest.raises(RuntimeError, match="after the mischief"):
        pruner_of(CNN, model, evaluators=evaluators).compress()
    check_clean(before, evaluators)


def test_a_model_that_cannot_be_rewound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that do not come back bit for bit are found before the next training."""
    from rtl_nni import bare_model

    model = used(CNN)
    pruner = pruner_of(CNN, model, schedule=SCHEDULE)

    def unwrap_only(self: Any, point: Any) -> None:
        for module, tables in self._tables.items():
            tables.put_back(module)

    monkeypatch.setattr(bare_model.BareModel, "_unwrap", unwrap_only)
    with pytest.raises(RewindFailed, match="differs from the rewind point"):
        pruner.compress()


def states() -> tuple[torch.Tensor, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("fails", [False, True])
def test_global_random_states_are_as_before(seed: int | None, fails: bool) -> None:
    def drawing(batch: Any, model: nn.Module) -> torch.Tensor:
        noise = torch.rand(1).item() + float(np.random.rand()) + random.random()
        if fails and noise >= 0:
            raise RuntimeError
        return cross_entropy(batch, model) * noise

    model = CNN.build()
    evaluators = evaluators_of(CNN, model, training_step=drawing)
    pruner = pruner_of(CNN, model, LEVEL, evaluators=evaluators, seed=seed, rewind_to=3)
    before = states()
    if fails:
        with pytest.raises(RuntimeError):
            pruner.compress()
    else:
        pruner.compress()
    after = states()
    assert torch.equal(before[0], after[0])
    assert all(np.array_equal(x, y) for x, y in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]


@pytest.fixture
def fast_path() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    yield
    torch.backends.mha.set_fastpath_enabled(enabled)


@pytest.mark.usefixtures("fast_path")
@pytest.mark.parametrize("enabled", [True, False])
def test_attention_runs_as_before_afterwards(enabled: bool) -> None:
    torch.backends.mha.set_fastpath_enabled(enabled)
    pruner_of(CNN, CNN.build(), LEVEL).compress()
    assert torch.backends.mha.get_fastpath_enabled() is enabled


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_the_same_pruner_twice(kind: Kind) -> None:
    model = used(MLP)
    before = Before(model)
    pruner = pruner_of(MLP, model, kind, steps=6)
    first = pruner.compress()[1]
    second = pruner.compress()[1]
    assert all(same_masks(first[name], second[name]) for name in GROUPS)
    before.check()


def test_two_pruners_one_after_the_other_with_the_same_evaluators() -> None:
    model = used(MLP)
    before = Before(model)
    evaluators = evaluators_of(MLP, model)
    one = pruner_of(MLP, model, LEVEL, evaluators=evaluators)
    other = pruner_of(MLP, model, TAYLOR, evaluators=evaluators)
    for pruner, kind in ((one, LEVEL), (other, TAYLOR), (one, LEVEL)):
        masks = pruner.compress()[1]
        alone = pruner_of(MLP, used(MLP), kind).compress()[1]
        assert all(same_masks(masks[name], alone[name]) for name in GROUPS)
        before.check()


def test_two_pruners_in_one_process() -> None:
    """The second runs all its rounds inside a training step of the first."""
    outer, inner = MLP.build(), CNN.build()
    second = pruner_of(CNN, inner, LINEAR, schedule=SCHEDULE)
    found: list[Any] = []

    def interrupted(batch: Any, model: nn.Module) -> torch.Tensor:
        if len(found) < 2:
            found.append(second.compress()[1])
        return cross_entropy(batch, model)

    evaluators = evaluators_of(MLP, outer, training_step=interrupted)
    masks = pruner_of(MLP, outer, LEVEL, evaluators=evaluators).compress()[1]
    alone = pruner_of(MLP, MLP.build(), LEVEL).compress()[1]
    assert all(same_masks(masks[name], alone[name]) for name in GROUPS)
    expected = pruner_of(CNN, CNN.build(), LINEAR, schedule=SCHEDULE).compress()[1]
    assert len(found) == 2
    for one in found:
        assert all(same_masks(one[name], expected[name]) for name in GROUPS)


def test_optimizers_with_state_start_afresh_in_every_round() -> None:
    """A moment of round one in round two would make these differ."""
    model = MLP.build()
    first = pruner_of(
        MLP, model, LEVEL, evaluators=evaluators_of(MLP, model, optimizer=adam)
    ).compress()[1]
    evaluators = evaluators_of(MLP, model, optimizer=adam)
    twice = pruner_of(MLP, model, LEVEL, evaluators=evaluators)
    twice.compress()
    assert same_masks(twice.compress()[1]["a"], first["a"])


def test_a_users_optimizer_made_before_still_trains_the_model() -> None:
    """NNI's unwrapping makes other Parameter objects, which orphans such an optimizer."""
    model = MLP.build()
    own = torch.optim.SGD(model.parameters(), 0.1)
    pruner_of(MLP, model, LEVEL).compress()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(MLP.inputs(4)).square().sum().backward()
    own.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_identical_tickets_as_an_error_lose_no_results() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL, steps=0)
    with pytest.raises(IdenticalTickets):  # warnings are errors in this suite
        pruner.compress()
    assert set(pruner.get_masks()) == set(GROUPS) == set(pruner.tickets)


def accumulating(
    wrapped: nn.Module, optimizer: Any, step: Any, *_: Any, loader: Any, **__: Any
) -> None:
    """Clears gradients after its steps, so relies on there being none before the first."""
    for batch in loader:
        step(batch, wrapped).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_gradients_of_before_do_not_leak_into_the_training() -> None:
    fresh, stale = MLP.build(), MLP.build()
    stale(MLP.inputs(4)).square().sum().mul(100).backward()
    found = []
    for model in (fresh, stale):
        evaluators = evaluators_of(MLP, model, training_func=accumulating)
        found.append(pruner_of(MLP, model, LEVEL, evaluators=evaluators).compress()[1])
    assert all(same_masks(found[0][name], found[1][name]) for name in GROUPS)


@pytest.mark.parametrize("fails", [False, True])
def test_a_trainer_that_converts_the_model(fails: bool) -> None:
    """Stands for one that moves it to another device, too."""
    model = used(MLP)
    before = Before(model)

    def converting(wrapped: nn.Module, optimizer: Any, step: Any, *_: Any, loader: Any) -> None:
        wrapped.double()
        for inputs, labels in loader:
            optimizer.zero_grad()
            step((inputs.double(), labels), wrapped).backward()
            optimizer.step()
        if fails:
            raise RuntimeError("while it is in double precision")

    evaluators = evaluators_of(MLP, model, training_func=converting)
    pruner = pruner_of(MLP, model, LEVEL, evaluators=evaluators, schedule=SCHEDULE)
    if fails:
        with pytest.raises(RuntimeError, match="double precision"):
            pruner.compress()
    else:
        pruner.compress()
    before.check()


def plain_loop(model: nn.Module, optimizer: Any, step: Any, *_: Any, loader: Any) -> None:
    """As many users write it: without model.train()."""
    for batch in loader:
        optimizer.zero_grad()
        step(batch, model).backward()
        optimizer.step()


def test_training_is_in_training_mode_whatever_the_models_was() -> None:
    model, modes = CNN.build().eval(), []

    def noting(batch: Any, wrapped: nn.Module) -> torch.Tensor:
        modes.append(all(module.training for module in wrapped.modules()))
        return cross_entropy(batch, wrapped)

    evaluators = evaluators_of(CNN, model, training_step=noting, training_func=plain_loop)
    pruner_of(CNN, model, LEVEL, evaluators=evaluators).compress()
    assert all(modes)
    assert not any(module.training for module in model.modules())


def test_evaluating_inside_the_training_sees_trained_and_masked_weights() -> None:
    """In eval mode torch's fused encoder layer would read the weights around NNI's wrappers."""
    model, differences = ENCODER.build(), []

    def evaluating(wrapped: nn.Module, *arguments: Any, loader: Any) -> None:
        plain_loop(wrapped, *arguments, loader=loader)
        wrapped.eval()
        inputs = loader[0][0]
        with torch.no_grad():
            quick = wrapped(inputs)
        differences.append((quick - wrapped(inputs)).abs().max().item())

    evaluators = evaluators_of(ENCODER, model, training_func=evaluating)
    pruner_of(ENCODER, model, LEVEL, evaluators=evaluators, schedule=SCHEDULE).compress()
    assert len(differences) == 6
    assert max(differences) < 1e-5
