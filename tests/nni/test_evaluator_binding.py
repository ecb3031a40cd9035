"""Evaluators that would train something else, or nothing, are refused before anything runs."""

import copy
from typing import Any

import nni
import pytest
import torch
from nni.compression.pruning import (
    L1NormPruner,
    LevelPruner,
    LinearPruner,
    MovementPruner,
    TaylorPruner,
)
from nni.compression.utils.evaluator import TorchEvaluator
from torch import nn

from rtl_nni import IdenticalTickets, RTLPruner
from rtl_nni.group_evaluators import train_on
from rtl_nni.optimizer_names import optimized_names
from rtl_plugin.errors import InvalidArgument, PruningFailed, UnknownTicket
from tests.nni.networks import (
    CNN,
    FPGM,
    L1,
    LEVEL,
    MLP,
    SLIM,
    TAYLOR,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
    sgd,
)
from tests.nni.traits import Before, used


def evaluator_over(parameters: Any, training_func: Any = None) -> TorchEvaluator:
    def loop(*arguments: Any) -> None:
        train_on(*arguments, loader=batches(MLP, "a"))

    return TorchEvaluator(training_func or loop, sgd(parameters), cross_entropy)


def of(model: nn.Module, **evaluators: Any) -> RTLPruner:
    return pruner_of(MLP, model, LEVEL, evaluators=evaluators)


def test_an_evaluator_made_for_a_copy() -> None:
    model = MLP.build()
    message = r"evaluator of 'b': 6 of the 6 parameters of its \w+ are not this model's"
    with pytest.raises(InvalidArgument, match=message):
        of(
            model,
            a=evaluator_over(model.parameters()),
            b=evaluator_over(copy.deepcopy(model).parameters()),
        )


def test_an_evaluator_made_while_the_model_was_wrapped() -> None:
    model = MLP.build()
    pruner = LevelPruner(model, MLP.config())
    evaluator = evaluator_over(model.parameters())
    pruner.unwrap_model()
    with pytest.raises(InvalidArgument, match=r"4 of the 6 parameters .* make the optimizer of"):
        of(model, a=evaluator)


def test_an_evaluator_that_nni_has_tied_after_a_wrap() -> None:
    """NNI drops in silence what a wrapper has replaced: the trap of three evaluators in a row."""
    model = MLP.build()
    evaluator = evaluator_over(model.parameters())
    LevelPruner(model, MLP.config()).unwrap_model()
    evaluator._init_optimizer_helpers(model)
    assert len(optimized_names(evaluator)) == 2
    with pytest.raises(InvalidArgument, match="4 of 6 trainable parameters are in no optimizer"):
        of(model, a=evaluator)


def test_an_optimizer_of_some_parameters() -> None:
    model = MLP.build()
    some = [p for name, p in model.named_parameters() if not name.startswith("0")]
    with pytest.raises(InvalidArgument, match=r"2 of 6 trainable .* \('0.weight', '0.bias'\)"):
        of(model, a=evaluator_over(some))


def test_frozen_parameters_need_no_optimizer() -> None:
    model = MLP.build()
    model[0].requires_grad_(False)  # type: ignore[index]
    some = [p for name, p in model.named_parameters() if not name.startswith("0")]
    before = Before(model)
    _, masks = of(model, a=evaluator_over(some)).compress()
    assert bool((masks["a"]["0"]["weight"] == 0).any())
    before.check()


def test_several_optimizers_and_parameter_groups() -> None:
    model = MLP.build()
    first, rest = list(model[0].parameters()), list(model[2:].parameters())  # type: ignore[index]
    optimizers = [
        nni.trace(torch.optim.SGD)([{"params": first, "lr": 0.1}], lr=0.2),
        nni.trace(torch.optim.Adam)(rest, lr=0.01),
    ]

    def loop(*arguments: Any) -> None:
        train_on(*arguments, loader=batches(MLP, "a"))

    evaluator = TorchEvaluator(loop, optimizers, cross_entropy)
    assert set(of(model, a=evaluator).compress()[1]) == {"a"}


def test_an_evaluator_that_is_bound() -> None:
    model = MLP.build()
    evaluator = evaluators_of(MLP, model, ["a"])["a"]
    evaluator.bind_model(model)
    with pytest.raises(InvalidArgument, match=r"'a' is bound to a model: call its unbind_model"):
        of(model, a=evaluator)


def test_one_evaluator_for_two_groups() -> None:
    model = MLP.build()
    evaluator = evaluator_over(model.parameters())
    with pytest.raises(InvalidArgument, match="two groups share one evaluator"):
        of(model, a=evaluator, b=evaluator)


@pytest.mark.parametrize(
    ("evaluators", "groups", "message"),
    [
        ({}, None, "evaluators= is empty"),
        (None, None, "mapping group -> NNI evaluator"),
        ([1], None, "mapping group -> NNI evaluator"),
        (lambda name: None, None, r"together with groups=\[...\]"),
        (lambda name: None, "ab", "mapping group"),
        (lambda name: None, [], "evaluators= is empty"),
        (lambda name: None, ["a"], "must be an NNI evaluator .* got NoneType"),
        ({"a": 1}, None, "must be an NNI evaluator .* got int"),
        ({"a": 1}, ["b"], "name different groups"),
        ({"": 1}, None, "a group's name must be a non-empty string, got ''"),
        ({3: 1}, None, "a group's name must be a non-empty string, got 3"),
    ],
)
def test_what_are_no_evaluators(evaluators: Any, groups: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        pruner_of(MLP, MLP.build(), evaluators=evaluators, groups=groups)


def test_a_function_of_the_groups_name() -> None:
    model = MLP.build()
    made = evaluators_of(MLP, model)
    by_function = pruner_of(MLP, model, LEVEL, evaluators=made.__getitem__, groups=["c", "a"])
    _, masks = by_function.compress()
    assert list(masks) == ["c", "a"]
    by_mapping = pruner_of(MLP, model, LEVEL, evaluators=evaluators_of(MLP, model)).compress()[1]
    assert same_masks(masks["c"], by_mapping["c"])


def not_stepping(model: nn.Module, *_: Any) -> None:
    """Trains nothing."""


def copying(model: nn.Module, optimizer: Any, step: Any, *rest: Any) -> None:
    train_on(copy.deepcopy(model), optimizer, step, *rest, loader=batches(MLP, "a"))


def own_optimizer(model: nn.Module, optimizer: Any, step: Any, *rest: Any) -> None:
    own = torch.optim.SGD(model[4].parameters(), 0.1)  # type: ignore[index]
    train_on(model, own, step, *rest, loader=batches(MLP, "a"))


@pytest.mark.parametrize("training", [not_stepping, copying, own_optimizer])
def test_weights_that_did_not_move(training: Any) -> None:
    model = used(MLP)
    before = Before(model)
    pruner = of(model, a=evaluator_over(model.parameters(), training))
    with pytest.raises(PruningFailed, match=r"group 'a', round 1: \d weights did not move.*'0\.w"):
        pruner.compress()
    before.check()


def test_identical_tickets_are_told_with_their_causes() -> None:
    model = MLP.build()
    loaders = {name: batches(MLP, "same") for name in "ab"}
    pruner = pruner_of(MLP, model, LEVEL, evaluators=evaluators_of(MLP, model, loaders=loaders))
    with pytest.warns(IdenticalTickets, match="'a', 'b' are identical. Likely causes.*same data"):
        _, masks = pruner.compress()
    assert same_masks(masks["a"], masks["b"])
    assert "Likely causes" in str(pruner.report)


def test_without_training_they_are_identical_for_another_reason() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL, steps=0)
    with pytest.warns(IdenticalTickets, match="with steps=0 all rank the same weights"):
        pruner.compress()


def test_two_of_three_alike_are_no_reason_to_warn() -> None:
    model = MLP.build()
    loaders = {"a": batches(MLP, "x"), "b": batches(MLP, "x"), "c": batches(MLP, "c")}
    pruner = pruner_of(MLP, model, LEVEL, evaluators=evaluators_of(MLP, model, loaders=loaders))
    pruner.compress()
    assert not pruner.report.notes


def ignoring(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LevelPruner(model, MLP.config(0.25), evaluator)


def elsewhere(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LevelPruner(copy.deepcopy(model), config, evaluator)


def some_layers(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LevelPruner(model, config[:1], evaluator)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (ignoring, r"sparse_ratio 0\.25 for '0\.weight', and this round asks for 0\.5"),
        (elsewhere, "must bind the model that it is given: .*elsewhere bound another one"),
        (some_layers, r"sparse_ratio None for '2\.weight'"),
        (lambda *_: None, "must return an NNI pruner, .* returned NoneType"),
    ],
)
def test_a_function_that_ignores_its_arguments(factory: Any, message: str) -> None:
    model = used(MLP)
    before = Before(model)
    pruner = pruner_of(MLP, model, pruner=factory, pruner_options=None)
    with pytest.raises(InvalidArgument, match=message):
        pruner.compress()
    before.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pruner": "level"}, "pruner= takes a pruner class .* got 'level'"),
        ({"pruner": LinearPruner}, "LinearPruner wraps another pruner: pass a function"),
        ({"pruner": LevelPruner, "pruner_options": {"p": 2}}, "'p' is no argument of LevelPruner"),
        (
            {"pruner": ignoring, "pruner_options": {"p": 2}},
            "pruner_options= go with a pruner class",
        ),
        ({"pruner": TaylorPruner, "steps": None}, "TaylorPruner needs training_steps.*or steps="),
        ({"pruner": MovementPruner}, "MovementPruner needs warmup_step, cooldown_begin_step"),
        ({"steps": 3, "epochs": 1}, "give steps= or epochs=, not both: got 3 and 1"),
        ({"steps": -1}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"steps": None, "epochs": 0}, "epochs"),
        ({"schedule": 0.5}, "schedule= takes a schedule of rtl_plugin"),
    ],
)
def test_arguments_that_contradict_each_other(arguments: dict[str, Any], message: str) -> None:
    model = MLP.build()
    evaluators = evaluators_of(MLP, model)
    settings = {"pruner": L1NormPruner, "steps": 4, "progress": False, **arguments}
    with pytest.raises(InvalidArgument, match=message):
        RTLPruner(model, MLP.config(), evaluators=evaluators, **settings)


def compressing(**arguments: Any) -> str:
    """What compress() says against a training that does not fit the pruner."""
    model = used(MLP)
    before = Before(model)
    settings = {"pruner_options": None, "progress": False, **arguments}
    pruner = RTLPruner(model, MLP.config(), evaluators=evaluators_of(MLP, model), **settings)
    with pytest.raises(InvalidArgument) as caught:
        pruner.compress()
    before.check()
    return str(caught.value)


def test_taylor_with_other_training_steps() -> None:
    options = {"training_steps": 3}
    said = compressing(steps=5, pruner=TaylorPruner, pruner_options=options)
    assert "training_steps=3, and steps= is 5" in said


def test_taylor_with_epochs() -> None:
    said = compressing(epochs=2, pruner=TaylorPruner, pruner_options={"training_steps": 3})
    assert "TaylorPruner counts steps: give steps=, not epochs=" in said


def test_taylor_with_steps_of_its_own() -> None:
    model = MLP.build()
    own = pruner_of(
        MLP, model, pruner=TaylorPruner, pruner_options={"training_steps": 6}, steps=None
    ).compress()[1]
    ours = pruner_of(MLP, model, TAYLOR, 6).compress()[1]
    assert all(same_masks(own[name], ours[name]) for name in own)


@pytest.mark.parametrize("kind", [L1, FPGM], ids=lambda k: k.name)
def test_no_length_at_all(kind: Any) -> None:
    said = compressing(pruner=kind.source)
    assert "does not train by itself: give steps= or epochs=" in said


def test_taylor_inside_a_schedule_that_is_too_quick() -> None:
    def factory(model: nn.Module, config: Any, evaluator: Any) -> Any:
        return LinearPruner(TaylorPruner(model, config, evaluator, training_steps=5), 2, 2)

    said = compressing(steps=8, pruner=factory)
    assert "training_steps=5, and the LinearPruner around it has interval_steps=2" in said
    assert "never make masks" in said


def test_taylor_inside_a_schedule_that_asks_for_the_last_ratio_too_late() -> None:
    """NNI alone ends at half of the ratio here, in silence."""

    def factory(model: nn.Module, config: Any, evaluator: Any) -> Any:
        return LinearPruner(TaylorPruner(model, config, evaluator, training_steps=2), 3, 2)

    said = compressing(steps=6, pruner=factory)
    assert "make its last masks before the last sparsity is asked for" in said


def test_the_length_given_twice() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL, 4)
    with pytest.raises(InvalidArgument, match="give it once"):
        pruner.compress(max_steps=4)
    with pytest.raises(InvalidArgument, match="not both"):
        pruner_of(MLP, MLP.build(), LEVEL, steps=None).compress(3, 1)


def test_asking_for_a_group_that_is_not_there() -> None:
    pruner = pruner_of(MLP, MLP.build(), LEVEL)
    with pytest.raises(InvalidArgument, match="has not finished"):
        pruner.get_masks("a")
    pruner.compress()
    with pytest.raises(UnknownTicket, match="unknown group 'z'; there are 'a', 'b', 'c'"):
        pruner.get_masks("z")


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.wrap_model(),
        lambda p: p.update_masks({}),
        lambda p: p.generate_masks(),
        lambda p: p.from_compressor(p, []),
    ],
    ids=["wrap_model", "update_masks", "generate_masks", "from_compressor"],
)
def test_what_nni_pruners_do_and_this_one_cannot(call: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"rtl_nni\.RTLPruner has no"):
        call(pruner_of(MLP, MLP.build(), LEVEL))


def test_unwrapping_is_never_needed() -> None:
    model = MLP.build()
    pruner = pruner_of(MLP, model, LEVEL)
    pruner.compress()
    before = Before(model)
    pruner.unwrap_model()
    before.check()


def test_norm_layers_of_slim_need_no_bias_gradient() -> None:
    """Biases before a norm may well stand still; weights may not."""
    config = [{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5}]
    pruner = pruner_of(CNN, CNN.build(), SLIM, 20, config=config)
    _, masks = pruner.compress()
    assert int(masks["a"]["1"]["weight"].sum()) == 4
