"""One evaluator a group from one training step, or one training function."""

import functools
from typing import Any

import nni
import pytest
import torch
from torch import nn

from rtl_nni import torch_evaluators
from rtl_nni.group_evaluators import train_on
from rtl_nni.optimizer_names import optimized_names
from rtl_plugin.errors import InvalidArgument
from tests.nni.networks import (
    CNN,
    LEVEL,
    MLP,
    adam,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
    sgd,
)

LOADERS = {name: batches(MLP, name) for name in "ab"}


def made(model: nn.Module, **others: Any) -> dict[str, Any]:
    settings = {
        "loaders": LOADERS, "training_step": cross_entropy, "optimizer": sgd, **others,
    }  # fmt: skip
    return torch_evaluators(model, **settings)


def test_one_a_group_tied_to_all_parameters() -> None:
    model = CNN.build()
    evaluators = made(model)
    assert list(evaluators) == ["a", "b"]
    names = {name for name, _ in model.named_parameters()}
    for evaluator in evaluators.values():
        assert evaluator._initialization_complete
        assert optimized_names(evaluator) == names


def test_they_may_be_made_for_many_prunings_in_a_row() -> None:
    """Evaluators that NNI ties when it first uses them would lose the wrapped layers."""
    model = MLP.build()
    evaluators = made(model)
    first = pruner_of(MLP, model, LEVEL, evaluators=evaluators).compress()[1]
    second = pruner_of(MLP, model, LEVEL, evaluators=evaluators).compress()[1]
    assert all(same_masks(first[name], second[name]) for name in "ab")


def loss_alone(batch: Any, model: nn.Module) -> Any:
    return cross_entropy(batch, model)


def loss_first(batch: Any, model: nn.Module) -> Any:
    return cross_entropy(batch, model), "something"


def loss_named(batch: Any, model: nn.Module) -> Any:
    return {"loss": cross_entropy(batch, model), "other": 1}


def test_every_form_of_a_loss_trains_alike() -> None:
    model = MLP.build()
    found = [
        pruner_of(MLP, model, LEVEL, evaluators=made(model, training_step=step)).compress()[1]
        for step in (loss_alone, loss_first, loss_named)
    ]
    for other in found[1:]:
        assert all(same_masks(found[0][name], other[name]) for name in "ab")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda batch, model: 1.0,
        lambda batch, model: model(batch[0]),
        lambda batch, model: cross_entropy(batch, model).detach(),
        lambda batch, model: None,
        lambda batch, model: ("loss", cross_entropy(batch, model)),
    ],
)
def test_what_is_no_loss(wrong: Any) -> None:
    model = MLP.build()
    evaluators = made(model, training_step=wrong)
    with pytest.raises(InvalidArgument, match="must return a scalar loss that depends on the"):
        pruner_of(MLP, model, LEVEL, evaluators=evaluators).compress()


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ({}, "mapping group -> batches"),
        ([LOADERS["a"]], "mapping group -> batches, got list"),
        ({"a": []}, "'a' has no batches"),
        ({"a": iter(LOADERS["a"])}, "'a' can be walked once at most"),
        ({"a": (b for b in LOADERS["a"])}, "'a' can be walked once at most"),
        ({"a": zip(LOADERS["a"], LOADERS["a"], strict=True)}, "'a' can be walked once at most"),
        ({"a": 3}, "'a' can be walked once at most"),
    ],
)
def test_what_are_no_loaders(loaders: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        made(MLP.build(), loaders=loaders)


def test_classes_that_are_not_traced() -> None:
    with pytest.raises(InvalidArgument, match=r"optimizer= made an untraced SGD.*nni\.trace"):
        made(MLP.build(), optimizer=lambda ps: torch.optim.SGD(ps, 0.1))
    with pytest.raises(InvalidArgument, match="lr_scheduler= made an untraced StepLR"):
        made(MLP.build(), lr_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 1))


def test_an_optimizer_of_other_parameters() -> None:
    other = MLP.build()
    with pytest.raises(InvalidArgument, match="evaluator of 'a': 6 of the 6 parameters"):
        made(MLP.build(), optimizer=lambda _: sgd(other.parameters()))
    model = MLP.build()
    with pytest.raises(InvalidArgument, match="evaluator of 'a': 4 of 6 trainable"):
        made(model, optimizer=lambda _: sgd(model[0].parameters()))  # type: ignore[index]


def test_a_training_function_gets_its_groups_loader() -> None:
    model, seen = MLP.build(), []

    def training(wrapped: nn.Module, *arguments: Any, loader: Any) -> None:
        seen.append(loader)
        train_on(wrapped, *arguments, loader=loader)

    pruner_of(MLP, model, LEVEL, evaluators=made(model, training_func=training)).compress()
    assert seen[0] is LOADERS["a"]
    assert seen[1] is LOADERS["b"]


def test_schedulers_step_after_every_optimizer_step() -> None:
    model, rates = MLP.build(), []

    def noting(wrapped: nn.Module, optimizer: Any, step: Any, *rest: Any, loader: Any) -> None:
        def noted(batch: Any, inner: nn.Module) -> Any:
            rates.append(optimizer.param_groups[0]["lr"])
            return step(batch, inner)

        train_on(wrapped, optimizer, noted, *rest, loader=loader)

    evaluators = made(
        model,
        training_func=noting,
        lr_scheduler=lambda o: nni.trace(torch.optim.lr_scheduler.StepLR)(
            o, step_size=1, gamma=0.5
        ),
    )
    pruner_of(MLP, model, LEVEL, 3, evaluators=evaluators).compress()
    assert rates == [0.2, 0.1, 0.05] * 2


def test_an_evaluating_function() -> None:
    model = MLP.build()
    evaluator = made(model, evaluating_func=lambda m: {"default": 0.5})["a"]
    evaluator.bind_model(model)
    assert evaluator.evaluate() == (0.5, {"default": 0.5})
    evaluator.unbind_model()


@pytest.mark.parametrize(
    ("steps", "epochs", "expected"),
    [(5, None, 5), (None, 2, 6), (4, 2, 4), (9, 2, 6), (0, None, 0)],
)
def test_the_length_of_the_default_training(
    steps: int | None, epochs: int | None, expected: int
) -> None:
    model, calls = MLP.build(), []

    def counting(batch: Any, inner: nn.Module) -> Any:
        calls.append(1)
        return cross_entropy(batch, inner)

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    train_on(model, optimizer, counting, None, steps, epochs, loader=LOADERS["a"])
    assert len(calls) == expected


def test_the_default_training_without_a_length() -> None:
    model = MLP.build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InvalidArgument, match="max_steps or max_epochs"):
        train_on(model, optimizer, cross_entropy, loader=LOADERS["a"])


def test_the_default_training_steps_several_optimizers() -> None:
    model = MLP.build().eval()
    optimizers = [
        torch.optim.SGD(layer.parameters(), 0.1) for layer in model if list(layer.parameters())
    ]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train_on(model, optimizers, cross_entropy, [], 1, loader=LOADERS["a"])
    assert model.training
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_adam_instead_of_sgd_gives_other_tickets() -> None:
    model = MLP.build()
    one = pruner_of(MLP, model, LEVEL, evaluators=made(model)).compress()[1]
    other = pruner_of(MLP, model, LEVEL, evaluators=made(model, optimizer=adam)).compress()[1]
    assert not same_masks(one["a"], other["a"])


def test_evaluators_made_by_hand_do_as_well() -> None:
    from nni.compression.utils.evaluator import TorchEvaluator

    model = MLP.build()
    by_hand = {
        name: TorchEvaluator(
            functools.partial(train_on, loader=loader), sgd(model.parameters()), cross_entropy
        )
        for name, loader in LOADERS.items()
    }
    one = pruner_of(MLP, model, LEVEL, evaluators=by_hand).compress()[1]
    other = pruner_of(MLP, model, LEVEL, evaluators=evaluators_of(MLP, model, "ab")).compress()[1]
    assert all(same_masks(one[name], other[name]) for name in "ab")
