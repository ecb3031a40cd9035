"""Losses that cannot be trained on: what is said, and that nothing finished is lost."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import OneShotSchedule, retrain
from rtl_plugin.errors import InvalidLoss, MaskBypassed, TrainingDiverged, UnmaskedAccess
from tests.discovery.setups import (
    MLP,
    Interrupting,
    NotFinite,
    built,
    cross_entropy,
    files_of,
    found,
    named_groups,
    random_states,
    same_bits,
    sgd,
    tensors_of,
)
from tests.models import ZOO, Network


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_a_loss_that_is_not_finite_stops_and_says_where(network: Network, value: float) -> None:
    model = built(network)
    before, states = tensors_of(model), random_states()
    loss = NotFinite(value, "b", 4)  # two steps a round
    message = r"discover, group 'b', round 2, step 2: the loss is -?(nan|inf)\. Lower the"
    with pytest.raises(TrainingDiverged, match=message) as caught:
        found(model, named_groups(network), loss)
    assert isinstance(caught.value, FloatingPointError)
    assert same_bits(tensors_of(model), before)
    assert random_states() == states


def test_finished_rounds_stay_and_a_good_call_resumes(tmp_path: Path) -> None:
    whole = found(built(MLP), named_groups(MLP), Interrupting(), run_folder=tmp_path / "whole")
    bad, folder = Interrupting(at=6, error=FloatingPointError), tmp_path / "bad"
    with pytest.raises(FloatingPointError):
        found(built(MLP), named_groups(MLP), bad, run_folder=folder)
    assert sorted(files_of(folder)) == [
        "discover/arguments.json",
        "discover/round-0001-group-0000.safetensors",
        "discover/round-0001-group-0001.safetensors",
    ]
    good = Interrupting()
    resumed = found(built(MLP), named_groups(MLP), good, run_folder=folder)
    assert good.calls == 4
    assert files_of(folder) == files_of(tmp_path / "whole")
    assert resumed.history == whole.history


def test_after_a_nan_the_same_folder_goes_on_with_a_repaired_loss(tmp_path: Path) -> None:
    loss = NotFinite(math.nan, "a", 4)
    with pytest.raises(TrainingDiverged, match="group 'a', round 2, step 2: the loss is nan"):
        found(built(MLP), named_groups(MLP), loss, run_folder=tmp_path)
    assert len(files_of(tmp_path)) == 3
    tickets = found(built(MLP), named_groups(MLP), NotFinite(1, "a", 99), run_folder=tmp_path)
    assert same_bits(tickets["a"].masks, found(built(MLP), named_groups(MLP))["a"].masks)


@pytest.mark.parametrize(
    ("loss", "came"),
    [
        (lambda model, batch: model(batch[0]), r"\(4, 3\)"),
        (lambda model, batch: cross_entropy(model, batch).item(), "float"),
        (lambda model, batch: None, "NoneType"),
        (lambda model, batch: (cross_entropy(model, batch), 1), "tuple"),
        (lambda model, batch: model(batch[0])[:0].sum(dim=0)[:0], r"\(0,\)"),
    ],
)
def test_a_loss_that_is_not_a_scalar_tensor(loss: Any, came: str) -> None:
    message = rf"discover, group 'a', round 1: loss must return a scalar tensor, got {came}"
    with pytest.raises(InvalidLoss, match=message):
        found(built(MLP), named_groups(MLP), loss)


def test_one_value_in_any_shape_is_a_scalar() -> None:
    plain = found(built(MLP), named_groups(MLP))
    shaped = found(built(MLP), named_groups(MLP), lambda m, b: cross_entropy(m, b).reshape(1, 1))
    assert same_bits(plain["a"].masks, shaped["a"].masks)


def without_grad(model: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return cross_entropy(model, batch)


@pytest.mark.parametrize("loss", [without_grad, lambda model, batch: torch.tensor(1.0)])
def test_a_loss_that_does_not_depend_on_the_model(loss: Any) -> None:
    message = "discover, group 'a', round 1: the loss does not depend on the model it was given"
    with pytest.raises(InvalidLoss, match=message):
        found(built(MLP), named_groups(MLP), loss)


def test_a_loss_on_another_model() -> None:
    other = built(MLP)
    with pytest.raises(
        InvalidLoss, match=r"no prunable parameter received a gradient.*must depend on 0\.weight"
    ):
        found(built(MLP), named_groups(MLP), lambda _, batch: cross_entropy(other, batch))


@pytest.mark.parametrize("use", ["forward", "weight"])
def test_a_loss_on_the_original_model(use: str) -> None:
    model = built(MLP)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        if use == "forward":
            return cross_entropy(model, batch)
        return cross_entropy(view, batch) + model[2].weight.square().sum()

    message = r"group 'a', round 1: the loss used the model's own '[02]\.weight' instead of the tic"
    with pytest.raises(MaskBypassed, match=message):
        found(model, named_groups(MLP), loss)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_on_dense_parameters_alone() -> None:
    def loss(view: Any, batch: Any) -> torch.Tensor:
        return dict(view.named_parameters())["4.bias"].square().sum()

    with pytest.raises(InvalidLoss, match=r"no prunable parameter received a gradient"):
        found(built(MLP), named_groups(MLP), loss)


def test_a_finite_loss_with_a_gradient_that_is_not() -> None:
    """It must not be blamed on the mask: NaN times zero is NaN."""

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) + (view(batch[0]) * 0).sum().sqrt()

    message = r"group 'a', round 1: the loss is finite, but its gradient for '0\.weight' is not"
    with pytest.raises(TrainingDiverged, match=message):
        found(built(MLP), named_groups(MLP), loss)


class Masking(nn.Module):
    """Holds infinities on purpose: an attention mask, and a frozen bound."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf, 0.0]))
        self.bound = nn.Parameter(torch.tensor(math.inf), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.head(torch.relu(self.inner(x)))
        return logits + torch.softmax(self.mask, dim=0) + torch.minimum(logits, self.bound)


def test_infinities_that_were_there_before_are_fine() -> None:
    torch.manual_seed(0)
    model, groups = Masking(), named_groups(MLP)
    tickets = found(model, groups, rewind_to=1)
    retrain(model, tickets, groups, cross_entropy, epochs=1, optimizer=sgd, progress=False)
    assert bool(torch.isfinite(model.inner.weight).all())


def runaway(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, 1e38)


@pytest.mark.parametrize("rewind_to", [0, 1])
def test_weights_that_the_last_step_made_infinite(rewind_to: int, tmp_path: Path) -> None:
    """No later loss would tell: such weights must not be ranked, nor become the rewind point."""
    where = "late rewinding" if rewind_to else "discover, group 'a', round 1, step 1"

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) * 1e3

    message = rf"{where}: '0\.weight' holds NaN or infinity after a step, although the loss was fin"
    with pytest.raises(TrainingDiverged, match=message):
        found(
            built(MLP), named_groups(MLP), loss, optimizer=runaway, steps=1, rewind_to=rewind_to,
            run_folder=tmp_path,
        )  # fmt: skip
    assert list(files_of(tmp_path)) == ["discover/arguments.json"]


def test_a_layer_that_the_loss_leaves_out_is_fine() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.head = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.used(x)))

    torch.manual_seed(0)
    tickets = found(Branches(), named_groups(MLP), schedule=OneShotSchedule(0.5))
    assert tickets["a"].kept == 40


def test_calling_a_submodule_would_bypass_the_masks() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(x))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encode(x))

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return view.encode(batch[0]).sum()

    with pytest.raises(UnmaskedAccess, match=r"'encode'.*call the model"):
        found(Encoder(), named_groups(MLP), loss)
