"""Losses that retrain cannot go on with, and that a failure leaves the last finished epoch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin.errors import (
    InvalidLoss,
    MaskBypassed,
    TrainingDiverged,
)
from tests.discovery.setups import (
    CONV,
    MLP,
    NotFinite,
    built,
    cross_entropy,
    files_of,
    named_groups,
    random_tickets,
    same_bits,
    tensors_of,
    ticket_tensors,
)
from tests.joint_training.setups import trained
from tests.models import ZOO, Network


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_a_loss_that_is_not_finite_leaves_the_last_finished_epoch(
    network: Network, value: float
) -> None:
    expected = built(network)
    good = random_tickets(expected)
    trained(expected, good, named_groups(network), epochs=1)
    model = built(network)
    tickets = random_tickets(model)
    message = r"retrain, group 'b', epoch 2, step 2: the loss is -?(nan|inf)\. Lower the learning"
    with pytest.raises(TrainingDiverged, match=message):
        trained(model, tickets, named_groups(network), NotFinite(value, "b", 4), epochs=3)
    assert same_bits(tensors_of(model), tensors_of(expected))
    assert same_bits(ticket_tensors(tickets), ticket_tensors(good))


def test_weights_that_the_last_step_made_infinite() -> None:
    model = built(MLP)
    tickets, before = random_tickets(model, "a"), tensors_of(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        return cross_entropy(view, batch) * 1e3

    message = r"retrain, epoch 1: '0\.weight' holds NaN or infinity after a step, although the loss"
    with pytest.raises(TrainingDiverged, match=message):
        trained(model, tickets, named_groups(MLP, a=1), loss,
                optimizer=lambda p: torch.optim.SGD(p, 1e38))  # fmt: skip
    assert same_bits(tensors_of(model), before)


def test_statistics_that_one_batch_made_infinite() -> None:
    model = built(CONV)
    tickets, before = random_tickets(model), tensors_of(model)
    state = ticket_tensors(tickets)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            view(batch[0] * 1e30)
        return cross_entropy(view, batch)

    with pytest.raises(TrainingDiverged, match=r"epoch 1, ticket 'a': '1\.running_var' holds NaN"):
        trained(model, tickets, named_groups(CONV), loss)
    assert same_bits(tensors_of(model), before)
    assert same_bits(ticket_tensors(tickets), state)


def test_a_loss_that_runs_the_original_model_too_is_found_out() -> None:
    """Without a gradient only the model's own statistics tell."""
    model = built(CONV)
    tickets, before = random_tickets(model), tensors_of(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            teacher = model(batch[0])
        return cross_entropy(view, batch) + (view(batch[0]) - teacher).square().mean()

    message = r"retrain, epoch 1: the loss ran the model itself \(its own '1\.running_mean' changed"
    with pytest.raises(MaskBypassed, match=message):
        trained(model, tickets, named_groups(CONV), loss)
    assert same_bits(tensors_of(model), before)


def test_after_a_nan_the_same_folder_goes_on_from_the_last_good_epoch(tmp_path: Path) -> None:
    def run(folder: str, loss: Any) -> nn.Module:
        model = built(CONV)
        trained(model, random_tickets(model), named_groups(CONV), loss, epochs=3,
                run_folder=tmp_path / folder)  # fmt: skip
        return model

    expected = run("whole", NotFinite(1, "a", 99))
    with pytest.raises(TrainingDiverged, match="group 'a', epoch 3, step 1"):
        run("bad", NotFinite(math.nan, "a", 5))
    model = run("bad", NotFinite(1, "a", 99))
    assert same_bits(tensors_of(model), tensors_of(expected))
    assert files_of(tmp_path / "bad") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda view, batch: view(batch[0]), r"must return a scalar tensor, got \(4, 3\): reduce"),
        (lambda view, batch: 1.0, "must return a scalar tensor, got float"),
        (lambda view, batch: torch.ones(()), "does not depend on the model it was given"),
    ],
)
def test_losses_that_cannot_be_trained_on(loss: Any, message: str) -> None:
    model = built(MLP)
    with pytest.raises(InvalidLoss, match=f"retrain, group 'a', epoch 1: .*{message}"):
        trained(model, random_tickets(model), named_groups(MLP), loss)
