"""What a group's small network is trained with, and the gradients that importances read."""

import copy
from typing import Any

import pytest
import torch
import torch_pruning as tp
from torch import nn

from rtl_plugin.errors import (
    InvalidArgument,
    InvalidLoss,
    MaskBypassed,
    StructureMismatch,
    TrainingDiverged,
)
from rtl_plugin.fingerprint import bit_equal
from tests.discovery.setups import adam, same_bits, sgd, tensors_of
from tests.torch_pruning.setups import (
    batches,
    cross_entropy,
    groups_of,
    magnitude,
    pruner_of,
    run_all,
    trained_pruner,
)
from tests.torch_pruning.zoo import CONV_BN, LAYER_NORM, UNWRAPPED, Net


def with_schedule(parameters: Any) -> Any:
    optimizer = torch.optim.SGD(parameters, 0.5)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)


class Recording:
    """Magnitudes, and the weights and gradients that they were asked about."""

    def __init__(self, needs_gradients: bool = False) -> None:
        self.needs_gradients = needs_gradients
        self.weights: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor | None] = []

    def __call__(self, group: Any) -> torch.Tensor:
        layer = group[0].dep.target.module
        self.weights.append(layer.weight.detach().clone())
        self.gradients.append(None if layer.weight.grad is None else layer.weight.grad.clone())
        return torch.Tensor(magnitude()(group))


@pytest.mark.parametrize("factory", [sgd, adam, with_schedule])
def test_optimizers(factory: Any) -> None:
    """The weights that are ranked are those of a plain loop over the group's own batches."""
    model, recording = LAYER_NORM.build(), Recording()
    pruner = trained_pruner(LAYER_NORM, model, recording, optimizer=factory, steps=2)
    pruner.step()
    ranked = []
    for name in "ab":
        network = copy.deepcopy(model).train()
        made = factory(list(network.parameters()))
        optimizer, schedule = made if isinstance(made, tuple) else (made, None)
        for batch in batches(LAYER_NORM, name):
            optimizer.zero_grad()
            cross_entropy(network, batch).backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        ranked += [network.parts[0].weight.detach(), network.parts[3].weight.detach()]
    found = {tuple(weight.flatten().tolist()) for weight in recording.weights}
    assert found == {tuple(weight.flatten().tolist()) for weight in ranked}


def test_the_loss_receives_the_small_network_and_its_own_groups_batches() -> None:
    model, seen = UNWRAPPED.build(), []

    def loss(network: Any, batch: Any) -> torch.Tensor:
        assert type(network) is type(model)
        assert network is not model
        assert network.training
        seen.append((batch[2], network.conv.out_channels, tuple(network.scale.shape)))
        return cross_entropy(network, batch)

    run_all(trained_pruner(UNWRAPPED, model, loss=loss, steps=1, iterative_steps=2))
    dense, half = (8, (1, 8, 1, 1)), (6, (1, 6, 1, 1))
    assert seen == [(name, *width) for width in (dense, half) for name in "ab"]


def test_frozen_parameters_stay_and_are_cut() -> None:
    model, recording = CONV_BN.build(), Recording()
    model.parts[0].weight.requires_grad_(False)
    whole = model.parts[0].weight.detach().clone()
    pruner = trained_pruner(CONV_BN, model, recording)
    pruner.step()
    last, first = recording.weights[:2]
    assert bit_equal(first, whole)
    assert not bit_equal(last, model.parts[3].weight)
    small = pruner.compact("a")
    assert small.parts[0].weight.shape[0] == 4
    assert not small.parts[0].weight.requires_grad
    assert small.parts[3].weight.requires_grad


def moving(network: Any, group: Any, round: int) -> None:
    with torch.no_grad():
        network.head.bias += round


def doing_nothing(network: Any, group: Any, round: int) -> None:
    network(torch.rand(2, 2, 5, 5))  # moves the statistics, but no parameter


def replacing(network: Any, group: Any, round: int) -> None:
    network.head = nn.Linear(12, 4)


def adding(network: Any, group: Any, round: int) -> None:
    moving(network, group, round)
    network.extra = nn.Linear(1, 1)


def diverging(network: Any, group: Any, round: int) -> None:
    network.head.weight.data[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (doing_nothing, InvalidArgument, r"left every parameter as it was.*steps=0"),
        (replacing, StructureMismatch, "train= changed names or shapes"),
        (adding, StructureMismatch, "train= changed names or shapes"),
        (diverging, TrainingDiverged, "'head.weight' holds NaN"),
    ],
)
def test_own_loops_that_are_refused(train: Any, error: Any, message: str) -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), train=train)
    with pytest.raises(error, match=f"group 'a', round 1: .*{message}"):
        pruner.step()


def test_an_own_loop() -> None:
    calls = []

    def train(network: Any, group: Any, round: int) -> None:
        calls.append((group.name, round, len(list(group.train))))
        moving(network, group, round)

    run_all(pruner_of(CONV_BN, CONV_BN.build(), train=train, iterative_steps=2))
    assert calls == [("a", 1, 2), ("b", 1, 2), ("a", 2, 2), ("b", 2, 2)]


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda model, batch: model(batch[0]), InvalidLoss, r"a scalar tensor, got \(4, 3\)"),
        (lambda model, batch: torch.zeros(()), InvalidLoss, "does not depend on the model"),
        (lambda model, batch: cross_entropy(model, batch) / 0, TrainingDiverged, "loss is inf"),
    ],
)
def test_losses_that_are_refused(loss: Any, error: Any, message: str) -> None:
    pruner = trained_pruner(CONV_BN, CONV_BN.build(), loss=loss)
    with pytest.raises(error, match=message):
        pruner.step()


def test_a_loss_of_another_model_is_refused() -> None:
    model = CONV_BN.build()
    pruner = trained_pruner(CONV_BN, model, loss=lambda _, batch: cross_entropy(model, batch))
    with pytest.raises(MaskBypassed, match=r"used the model's own 'parts\.0\.weight'"):
        pruner.step()
    assert all(parameter.grad is None for parameter in model.parameters())


def by_hand(net: Net, model: nn.Module, name: str, squared: bool) -> dict[str, torch.Tensor]:
    """Mean over the group's batches of every gradient, or of its square."""
    network = copy.deepcopy(model).train()
    sums = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    for batch in batches(net, name, 3):
        network.zero_grad()
        cross_entropy(network, batch).backward()
        for n, parameter in network.named_parameters():
            assert parameter.grad is not None
            sums[n] += parameter.grad.square() if squared else parameter.grad
    return {n: total / 3 for n, total in sums.items()}


def spying(kind: type, seen: list[Any]) -> Any:
    class Spy(kind):  # type: ignore[misc]
        def __call__(self, group: Any) -> Any:
            layer = group[0].dep.target.module
            seen.append((tuple(layer.weight.shape), layer.weight.grad.clone()))
            return super().__call__(group)

    return Spy()


@pytest.mark.parametrize(
    ("kind", "squared"),
    [
        (tp.importance.GroupTaylorImportance, False),
        (tp.importance.GroupHessianImportance, True),
        (tp.importance.TaylorImportance, False),
    ],
)
def test_gradients_are_means_over_the_groups_batches(kind: type, squared: bool) -> None:
    model, seen = CONV_BN.build(), []
    groups = groups_of(CONV_BN, "ab", 3)
    pruner = pruner_of(
        CONV_BN, model, spying(kind, seen), loss=cross_entropy, steps=0, groups=groups
    )
    traces = tensors_of(model)
    report = pruner.step()
    assert [row.batches for row in report.rows] == [3, 3]
    assert same_bits(tensors_of(model), traces)
    expected = [
        by_hand(CONV_BN, model, name, squared)[f"parts.{layer}.weight"]
        for name in "ab"
        for layer in (3, 0)  # the host goes through the graph from the output
    ]
    shapes = [gradient.shape for _, gradient in seen]
    assert shapes == [gradient.shape for gradient in expected]
    for (_, gradient), mean in zip(seen, expected, strict=True):
        torch.testing.assert_close(gradient, mean, rtol=1e-5, atol=1e-8)
    assert not torch.equal(seen[0][1], seen[2][1])


def test_the_hosts_hessian_keeps_its_last_batch_only() -> None:
    """Why mean squares are made here; if the host mends it, ours may go."""
    host, model = tp.importance.GroupHessianImportance(), CONV_BN.build()
    squares = []
    for batch in batches(CONV_BN, "a", 3):
        model.zero_grad()
        cross_entropy(model, batch).backward()
        host.accumulate_grad(model)
        squares.append(model.head.weight.grad.square())
    assert torch.equal(host._accu_grad[model.head.weight], squares[-1])


def test_gradients_after_training_and_cutting() -> None:
    seen: list[Any] = []
    spy = spying(tp.importance.GroupTaylorImportance, seen)
    pruner = trained_pruner(CONV_BN, CONV_BN.build(), spy, iterative_steps=2)
    run_all(pruner)
    assert [shape for shape, _ in seen[4:6]] == [(9, 6, 3, 3), (6, 2, 3, 3)]
    assert all(gradient.abs().sum() > 0 for _, gradient in seen)
    assert pruner.reports[1]["a"].batches == 2


@pytest.mark.parametrize("needs", [True, False])
def test_an_own_importance_says_whether_it_needs_gradients(needs: bool) -> None:
    recording = Recording(needs)
    pruner = pruner_of(CONV_BN, CONV_BN.build(), recording, loss=cross_entropy)
    pruner.step()
    assert [gradient is None for gradient in recording.gradients] == [not needs] * 4
    if needs:
        with pytest.raises(InvalidArgument, match="reads gradients over the group's batches"):
            pruner_of(CONV_BN, CONV_BN.build(), recording)


def test_frozen_parameters_have_zero_gradients() -> None:
    recording, model = Recording(True), CONV_BN.build()
    model.parts[0].weight.requires_grad_(False)
    pruner_of(CONV_BN, model, recording, loss=cross_entropy).step()
    last, first = recording.gradients[:2]
    assert last is not None
    assert first is not None
    assert last.any()
    assert not first.any()
