"""What a loss receives where channel tickets are retrained, and the losses that are refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin import DataGroups, RetrainReport, TicketSet, compact
from rtl_plugin.errors import InvalidLoss, MaskBypassed, TrainingDiverged
from tests.channels.zoo import (
    CHANNEL_ZOO,
    CONV_BN,
    GROUPED,
    LAYER_NORM,
    MLP_FLATTEN,
    RESIDUAL,
    ChannelNet,
    Residual,
    channel_tickets,
    made,
)
from tests.discovery.setups import (
    Interrupting,
    NotFinite,
    cross_entropy,
    files_of,
    named_groups,
    same_bits,
    shuffled_groups,
    tensors_of,
    ticket_tensors,
)
from tests.joint_training.setups import OPTIMIZERS, clipped, trained, with_scheduler

F32 = torch.float32


def started(net: ChannelNet, dtype: torch.dtype = F32) -> tuple[nn.Module, TicketSet, DataGroups]:
    model = made(net, dtype)
    return model, channel_tickets(net, model), named_groups(net, dtype)


def test_the_loss_receives_the_small_network_of_the_users_class() -> None:
    model, tickets, groups = started(RESIDUAL)
    seen: list[nn.Module] = []

    def loss(view: Residual, batch: Any) -> torch.Tensor:
        seen.append(view)
        assert type(view) is Residual
        assert all(module.training for module in view.modules())
        assert view.up.weight.shape == (4, 4, 3, 3)
        assert view.inner.num_features == 4
        features = view.features(batch[0])  # a method, and submodules
        outputs = view.fc(features.mean(dim=(2, 3)))
        assert outputs.requires_grad
        return F.cross_entropy(outputs, batch[1])

    trained(model, tickets, groups, loss)
    assert seen[0] is not seen[1]
    assert all(view is not model for view in seen)
    other, others, _ = started(RESIDUAL)
    trained(other, others, groups, cross_entropy)
    assert same_bits(tensors_of(model), tensors_of(other))


def test_penalties_see_the_kept_weights_alone() -> None:
    model, tickets, groups = started(CONV_BN)
    kept = []

    def loss(view: nn.Module, batch: Any) -> torch.Tensor:
        name = batch[2]
        assert torch.equal(view[0].weight, model[0].weight[tickets[name].masks["1.weight"]])
        kept.append(sum(p.numel() for p in view.parameters()))
        return cross_entropy(view, batch) + 0.1 * sum(p.square().sum() for p in view.parameters())

    trained(model, tickets, groups, loss)
    assert set(kept) == {tickets["a"].kept + 3}  # and the head's bias


def test_a_loss_that_sets_eval_mode_does_so_for_itself_alone() -> None:
    model, tickets, groups = started(CONV_BN)
    flags = []

    def loss(view: nn.Module, batch: Any) -> torch.Tensor:
        flags.append(all(module.training for module in view.modules()))
        view.eval()
        return cross_entropy(view, batch)

    trained(model, tickets, groups, loss)
    assert flags == [True] * 8


def test_the_users_model_keeps_its_flags_gradients_and_buffers() -> None:
    model, tickets, groups = started(CONV_BN)
    model[1].eval()
    flags = [module.training for module in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    gradients = [parameter.grad for parameter in model.parameters()]
    identities = [id(parameter) for parameter in model.parameters()]
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    trained(model, tickets, groups)
    assert [module.training for module in model.modules()] == flags
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(bool((g == 7.0).all()) for g in gradients)
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert same_bits(dict(model.named_buffers()), buffers)


def test_autocast_in_the_loss() -> None:
    model, tickets, groups = started(RESIDUAL)
    before = tensors_of(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return cross_entropy(view, batch)

    trained(model, tickets, groups, loss)
    assert not torch.equal(model.up.weight, before["up.weight"])
    assert model.up.weight.dtype == F32


@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_a_loss_on_the_users_model_is_found_out(net: ChannelNet) -> None:
    model, tickets, groups = started(net)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    state = ticket_tensors(tickets)
    name = next(iter(weights))
    message = rf"'a', epoch 1: the loss used the model's own '{name}' instead of the ticket's: call"
    for loss in (
        lambda _, batch: cross_entropy(model, batch),
        lambda view, batch: cross_entropy(view, batch) + cross_entropy(model, batch),
        lambda view, batch: cross_entropy(view, batch) + model.get_parameter(name).square().sum(),
    ):
        with pytest.raises(MaskBypassed, match=message):
            trained(model, tickets, groups, loss)
        assert same_bits(dict(model.named_parameters()), weights)
        assert same_bits(ticket_tensors(tickets), state)
        assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_uses_the_users_model_later_or_without_gradients_is_found_out() -> None:
    model, tickets, groups = started(MLP_FLATTEN)
    calls = []

    def late(view: Any, batch: Any) -> torch.Tensor:
        calls.append(1)
        return cross_entropy(model if len(calls) == 4 else view, batch)

    with pytest.raises(MaskBypassed, match=r"group 'b', epoch 1: the loss used the model's own"):
        trained(model, tickets, groups, late)
    model, tickets, groups = started(CONV_BN)

    def unseen(view: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            target = model(batch[0])
        return (view(batch[0]) - target).square().mean()

    with pytest.raises(MaskBypassed, match=r"ran the model itself \(its own '1\.running_mean'"):
        trained(model, tickets, groups, unseen)


def test_a_loss_that_ignores_the_model() -> None:
    model, tickets, groups = started(LAYER_NORM)
    other = made(LAYER_NORM)
    before = tensors_of(model)
    for loss, message in (
        (lambda view, batch: torch.zeros((), requires_grad=False), "does not depend on the model"),
        (lambda view, batch: cross_entropy(view, batch).detach(), "does not depend on the model"),
        (lambda view, batch: other(batch[0].double()).sum(), "no parameter that was cut received"),
        (lambda view, batch: view[4].weight.sum(), "no parameter that was cut received a gradient"),
        (lambda view, batch: view(batch[0]), "loss must return a scalar tensor, got"),
    ):
        with pytest.raises(InvalidLoss, match=rf"retrain, group 'a', epoch 1: .*{message}"):
            trained(model, tickets, groups, loss)
        assert same_bits(tensors_of(model), before)


def test_a_gradient_that_is_not_finite() -> None:
    model, tickets, groups = started(MLP_FLATTEN)
    with pytest.raises(TrainingDiverged, match="the loss is finite, but its gradient for"):
        trained(model, tickets, groups,
                lambda v, b: cross_entropy(v, b) + (v(b[0]) * 0).sum().sqrt())  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_a_loss_that_is_not_finite_leaves_the_last_finished_epoch(
    net: ChannelNet, value: float
) -> None:
    expected, good, groups = started(net)
    trained(expected, good, groups, epochs=1)
    model, tickets, _ = started(net)
    message = r"retrain, group 'b', epoch 2, step 2: the loss is (nan|inf)\. Lower the learning"
    with pytest.raises(TrainingDiverged, match=message):
        trained(model, tickets, groups, NotFinite(value, "b", 4), epochs=3)
    assert same_bits(tensors_of(model), tensors_of(expected))
    assert same_bits(ticket_tensors(tickets), ticket_tensors(good))


def test_weights_and_statistics_that_became_infinite() -> None:
    model, tickets, groups = started(MLP_FLATTEN)
    before = tensors_of(model)
    with pytest.raises(TrainingDiverged, match="holds NaN or infinity after a step"):
        trained(model, TicketSet([tickets["a"]]), groups.only("a"),
                lambda v, b: cross_entropy(v, b) * 1e3, batches_per_epoch=1,
                optimizer=lambda p: torch.optim.SGD(p, 1e38))  # fmt: skip
    assert same_bits(tensors_of(model), before)
    model, tickets, groups = started(CONV_BN)
    state = ticket_tensors(tickets)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            view(batch[0] * 1e30)
        return cross_entropy(view, batch)

    with pytest.raises(TrainingDiverged, match=r"epoch 1, ticket 'a': '1\.running_var' holds NaN"):
        trained(model, tickets, groups, loss)
    assert same_bits(ticket_tensors(tickets), state)


def test_frozen_parameters_that_were_cut_keep_every_bit() -> None:
    model, tickets, groups = started(CONV_BN)
    frozen = ["0.weight", "1.weight", "1.bias"]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    before = tensors_of(model)
    trained(model, tickets, groups, optimizer=OPTIMIZERS["AdamW"])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name
    small = compact(model, tickets["a"])
    assert torch.equal(small[0].weight, before["0.weight"][tickets["a"].masks["1.weight"]])


class Result:
    """What a retraining from a fresh model and fresh tickets leaves."""

    def __init__(self, net: ChannelNet, folder: Path | None, loss: Any, **others: Any) -> None:
        self.model, self.tickets, _ = started(net)
        settings = {"epochs": 3, "run_folder": folder, **others}
        groups = shuffled_groups(net)
        self.report: RetrainReport = trained(self.model, self.tickets, groups, loss, **settings)

    def check_equals(self, other: "Result") -> None:
        assert same_bits(tensors_of(self.model), tensors_of(other.model))
        assert same_bits(ticket_tensors(self.tickets), ticket_tensors(other.tickets))
        assert self.report == other.report


SETTINGS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "momentum": {"optimizer": OPTIMIZERS["SGD momentum"]},
    "shared statistics": {"own_statistics": False},
    "scheduler": {
        "optimizer": with_scheduler(
            clipped(OPTIMIZERS["RMSprop"], 0.5),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12),
        )
    },
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("net", [CONV_BN, GROUPED, LAYER_NORM, RESIDUAL], ids=str)
def test_killed_in_every_epoch_and_resumed(net: ChannelNet, setting: str, tmp_path: Path) -> None:
    others = {**SETTINGS[setting], "private_parameters": net.private}
    whole = Result(net, tmp_path / "whole", Interrupting(), **others)
    whole.check_equals(Result(net, None, Interrupting(), **others))
    for at in (1, 4, 5, 8, 10):
        folder = tmp_path / f"cut-{at}"
        with pytest.raises(KeyboardInterrupt):
            Result(net, folder, Interrupting(at), **others)
        loss = Interrupting()
        Result(net, folder, loss, **others).check_equals(whole)
        assert loss.calls == 12 - (at - 1) // 4 * 4, "finished epochs are kept"
        assert files_of(folder) == files_of(tmp_path / "whole")
    loaded = TicketSet.load(tmp_path / "whole" / "retrain" / "tickets.safetensors")
    assert loaded.structured
    for name in "ab":
        mine, theirs = compact(whole.model, whole.tickets[name]), compact(whole.model, loaded[name])
        assert same_bits(tensors_of(mine), tensors_of(theirs))
