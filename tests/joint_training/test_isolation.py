"""A step of ticket k moves nothing outside its masks: no weight, no moment, under any optimizer."""

import itertools
from typing import Any

import pytest
import torch

from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.joint_training.masked_update import MaskedUpdate
from tests.discovery.setups import (
    CONV,
    MLP,
    built,
    copied,
    cross_entropy,
    named_groups,
    random_tickets,
    same_bits,
    shuffled_groups,
    ticket_tensors,
)
from tests.joint_training.setups import (
    MAIN,
    OPTIMIZERS,
    Observed,
    clipped,
    trained,
    with_scheduler,
)
from tests.models import ZOO, Network


def observe(network: Network, factory: Any, names: str = "ab", **others: Any) -> Observed:
    model = built(network)
    tickets = random_tickets(model, names)
    observed = Observed(model, tickets, factory)
    masks = {name: copied(ticket.masks) for name, ticket in tickets.items()}
    groups = named_groups(network, **dict.fromkeys(names, 2))
    trained(model, tickets, groups, observed.loss, optimizer=observed.factory, **others)
    observed.check()
    assert "".join(observed.steps) == names * 4, "in turn, so every step was looked at"
    assert observed.moved_inside > 0, "nothing moved, so this saw nothing"
    assert observed.gradients_seen > 0
    for name, ticket in tickets.items():
        assert same_bits(ticket.masks, masks[name]), "retraining never changes a mask"
    return observed


@pytest.mark.parametrize("optimizer", MAIN)
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_every_architecture(network: Network, optimizer: str) -> None:
    assert observe(network, OPTIMIZERS[optimizer]).filled_outside > 0


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in MAIN])
def test_every_optimizer(optimizer: str) -> None:
    observed = observe(CONV, OPTIMIZERS[optimizer], names="abc")
    assert (observed.filled_outside > 0) == (optimizer != "SGD"), "plain SGD alone has no moments"


@pytest.mark.parametrize("optimizer", MAIN)
def test_in_float64(optimizer: str) -> None:
    model = built(CONV).double()
    tickets = random_tickets(model)
    observed = Observed(model, tickets, OPTIMIZERS[optimizer])
    groups = named_groups(CONV, dtype=torch.float64)
    trained(model, tickets, groups, observed.loss, optimizer=observed.factory)
    observed.check()
    assert observed.moved_inside > 0


def test_with_a_learning_rate_schedule_and_clipping() -> None:
    norms: list[float] = []
    factory = with_scheduler(
        clipped(OPTIMIZERS["AdamW"], 0.1, norms),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5),
    )
    observed = observe(CONV, factory)
    assert observed.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**2), "8 steps"
    assert len(norms) == 8
    assert max(norms) > 0.1


def test_clipping_sees_and_shortens_one_tickets_gradient() -> None:
    model = built(MLP)
    tickets = random_tickets(model)
    norms: list[float] = []

    def factory(parameters: Any) -> Any:
        optimizer = clipped(lambda p: torch.optim.SGD(p, 1.0), 0.01, norms)(parameters)
        optimizer.register_step_pre_hook(lambda *_: after.append(norm_of(parameters)))
        return optimizer

    def norm_of(parameters: Any) -> float:
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
        return torch.cat(gradients).norm().item()

    after: list[float] = []
    trained(model, tickets, named_groups(MLP), optimizer=factory, epochs=1)
    assert min(norms) > 0.01
    assert after == pytest.approx([0.01] * 4, rel=1e-3)


def test_a_hook_that_moves_all_weights_after_the_step_is_contained() -> None:
    def factory(parameters: Any) -> Any:
        optimizer = OPTIMIZERS["SGD momentum"](parameters)

        def shrink(*_: Any) -> None:
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(0.9)

        optimizer.register_step_post_hook(shrink)
        return optimizer

    observe(MLP, factory)


def test_a_masked_weight_that_a_ticket_does_not_use_stays() -> None:
    """No gradient, so the optimizer skips it; its state must survive the other tickets' steps."""
    used, idle = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    masks = {
        "a": {"used": torch.tensor([1, 1, 0, 0]).bool(), "idle": torch.ones(4).bool()},
        "b": {"used": torch.tensor([0, 1, 1, 0]).bool(), "idle": torch.ones(4).bool()},
    }
    optimizer = torch.optim.AdamW([used, idle], 0.1, weight_decay=0.5)
    update = MaskedUpdate(optimizer, {"used": used, "idle": idle}, masks)
    for ticket in "abab":
        used.grad = torch.ones(4) * masks[ticket]["used"]
        update.step(ticket)
    assert torch.equal(idle.detach(), torch.ones(4))
    assert used[3].item() == 1.0
    assert used[1] < used[0] < 1, "four steps moved it further than two"


def test_channels_last_weights_are_isolated() -> None:
    model = built(CONV).to(memory_format=torch.channels_last)
    tickets = random_tickets(model)
    observed = Observed(model, tickets, OPTIMIZERS["AdamW"])
    trained(model, tickets, named_groups(CONV), observed.loss, optimizer=observed.factory)
    observed.check()
    assert observed.moved_inside > 0
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_dense_shared_parameters_are_moved_by_every_ticket() -> None:
    model, moved = built(MLP), []
    tickets = random_tickets(model)
    bias = model[4].bias

    def loss(view: Any, batch: Any) -> torch.Tensor:
        moved.append(bias.detach().clone())
        return cross_entropy(view, batch)

    trained(model, tickets, named_groups(MLP), loss, epochs=1)
    values = [*moved, bias.detach()]
    assert not any(bit_equal(x, y) for x, y in itertools.pairwise(values))


def test_autocast_in_the_loss() -> None:
    model = built(MLP)
    tickets = random_tickets(model)

    def loss(view: Any, batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return observed.loss(view, batch)

    observed = Observed(model, tickets, OPTIMIZERS["AdamW"])
    trained(model, tickets, named_groups(MLP), loss, optimizer=observed.factory)
    observed.check()
    assert model[0].weight.dtype == torch.float32


def test_the_same_call_gives_the_same_weights_and_another_seed_others() -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        model = built(CONV)
        tickets = random_tickets(model)
        trained(model, tickets, shuffled_groups(CONV), seed=seed)
        return {**copied(dict(model.named_parameters())), **ticket_tensors(tickets)}

    first = run(0)
    torch.rand(5)
    assert same_bits(first, run(0))
    assert not same_bits(first, run(1))
