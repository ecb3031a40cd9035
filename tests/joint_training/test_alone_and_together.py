"""Tickets that share nothing train bit-identically together and each alone."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups, TicketSet
from tests.discovery.setups import (
    MLP,
    built,
    cross_entropy,
    disjoint_tickets,
    draw_from_all,
    named_groups,
    only,
    same_bits,
    shuffled_groups,
)
from tests.joint_training.setups import MAIN, OPTIMIZERS, masked_weights, trained
from tests.models import ZOO, Network

DTYPES = [torch.float32, torch.float64]


def check(network: Network, groups: DataGroups, dtype: torch.dtype, **others: Any) -> None:
    """Retrain two disjoint tickets together, then each alone on a fresh model."""

    def fresh() -> tuple[nn.Module, TicketSet]:
        model = built(network).to(dtype)
        return model, disjoint_tickets(model)

    model, together = fresh()
    report = trained(model, together, groups, **others)
    assert len(report.rows) == 4
    for name in "ab":
        start, tickets = fresh()
        untrained = masked_weights(start, tickets[name].masks)
        alone = only(tickets, name)
        own = trained(start, alone, groups.only(name), **others)
        weights = masked_weights(model, together[name].masks)
        assert same_bits(weights, masked_weights(start, alone[name].masks))
        assert not same_bits(weights, untrained)
        assert same_bits(together[name].state, alone[name].state)
        losses = [row["loss"] for row in report.rows if row["group"] == name]
        assert losses == [row["loss"] for row in own.rows]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_under_every_optimizer(optimizer: str, dtype: torch.dtype) -> None:
    check(MLP, named_groups(MLP, dtype), dtype, optimizer=OPTIMIZERS[optimizer])


@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_on_every_architecture(network: Network, optimizer: str) -> None:
    groups = named_groups(network)
    check(network, groups, torch.float32, optimizer=OPTIMIZERS[optimizer])


def with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)
    )


DROPOUT = Network("dropout", with_dropout, MLP.inputs, True)


def careless(model: Any, batch: Any) -> torch.Tensor:
    draw_from_all()
    return cross_entropy(model, batch) * (1 + torch.rand(()))


@pytest.mark.parametrize("own_generators", [False, True], ids=["global", "own generators"])
@pytest.mark.parametrize("optimizer", MAIN)
def test_with_dropout_noise_and_shuffling_loaders(optimizer: str, own_generators: bool) -> None:
    groups = shuffled_groups(DROPOUT, own_generators)
    check(DROPOUT, groups, torch.float32, optimizer=OPTIMIZERS[optimizer], loss=careless)


class WholeState(torch.optim.Optimizer):
    """Assigns a parameter's state as one dict; element-wise."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    if not self.state[parameter]:
                        self.state[parameter] = {"n": 0, "mean": torch.zeros_like(parameter)}
                    state = self.state[parameter]
                    state["n"] += 1
                    state["mean"].mul_(0.9).add_(parameter.grad)
                    parameter.sub_(group["lr"] / state["n"] * state["mean"])


class Langevin(torch.optim.Optimizer):
    """Gradient steps with noise from the global generator."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(group["lr"] * (parameter.grad + torch.randn_like(parameter)))


def test_an_optimizer_that_assigns_its_state_as_one_dict() -> None:
    check(MLP, named_groups(MLP), torch.float32, optimizer=WholeState)


def test_an_optimizer_that_adds_noise_draws_it_from_its_tickets_stream() -> None:
    check(MLP, named_groups(MLP), torch.float32, optimizer=Langevin)


def test_a_smaller_group_is_cycled_and_still_trains_as_alone() -> None:
    groups = named_groups(MLP, a=3, b=2)
    check(MLP, groups, torch.float32, batches_per_epoch=4)


def test_tickets_that_overlap_do_influence_each_other() -> None:
    """Otherwise the tests above would hold for a retraining that shares nothing at all."""
    model = built(MLP)
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    both = TicketSet([type(disjoint_tickets(model)["a"])(name, masks) for name in "ab"])
    trained(model, both, named_groups(MLP))
    start = built(MLP)
    alone = only(both, "a")
    trained(start, alone, named_groups(MLP).only("a"))
    assert not same_bits(masked_weights(model, masks), masked_weights(start, masks))


def test_the_weights_after_one_step_are_those_of_ordinary_training_under_the_mask() -> None:
    """The whole machinery against the plain formula, for a ticket alone."""
    model = built(MLP)
    tickets = only(disjoint_tickets(model), "a")
    trained(model, tickets, named_groups(MLP).only("a"), epochs=1, batches_per_epoch=3)
    plain = built(MLP)
    masks = tickets["a"].masks
    optimizer = OPTIMIZERS["AdamW"](list(plain.parameters()))
    batches = list(named_groups(MLP)["a"].train)
    for step in range(3):
        values = {n: p * masks[n] for n, p in plain.named_parameters()}

        def view(x: torch.Tensor, values: Any = values) -> torch.Tensor:
            return torch.func.functional_call(plain, values, (x,))

        optimizer.zero_grad()
        cross_entropy(view, batches[step % 2]).backward()
        optimizer.step()
    assert same_bits(masked_weights(model, masks), masked_weights(plain, masks))
    for name, parameter in built(MLP).named_parameters():
        outside = ~masks[name]
        assert torch.equal(model.get_parameter(name)[outside], parameter[outside])
