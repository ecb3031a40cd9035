"""scatter_back: what a small network learnt returns to its places, and nothing else moves."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rtl_plugin import compact, scatter_back
from rtl_plugin.errors import InvalidArgument, StructureMismatch
from tests.channels.zoo import (
    CHANNEL_ZOO,
    CONV_BN,
    LAYER_NORM,
    RESIDUAL,
    ChannelNet,
    channel_tickets,
    made,
    masked,
)
from tests.discovery.setups import copied, same_bits, tensors_of, ticket_tensors


@pytest.fixture(params=CHANNEL_ZOO, ids=str)
def net(request: pytest.FixtureRequest) -> ChannelNet:
    return request.param


def trained(small: nn.Module, net: ChannelNet) -> nn.Module:
    """Every parameter and statistic moves."""
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    small.train()
    dtype = next(small.parameters()).dtype
    for _ in range(2):
        small(net.inputs(4).to(dtype)).square().sum().backward()
        optimizer.step()
    return small


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_unchanged_there_and_back(net: ChannelNet, dtype: torch.dtype) -> None:
    model = made(net, dtype)
    tickets = channel_tickets(net, model)
    before, own = tensors_of(model), ticket_tensors(tickets)
    for ticket in tickets.values():
        scatter_back(compact(model, ticket), model, ticket)
    assert same_bits(tensors_of(model), before)
    assert same_bits(ticket_tensors(tickets), own)


def test_trained_back_and_there(net: ChannelNet) -> None:
    model = made(net)
    ticket = channel_tickets(net, model)["a"]
    small = trained(compact(model, ticket), net)
    expected = tensors_of(small)
    scatter_back(small, model, ticket)
    assert same_bits(tensors_of(small), expected)
    again = compact(model, ticket)
    assert same_bits(tensors_of(again), expected)
    x = net.inputs(3).double()
    assert torch.equal(again(x), small.eval()(x))


def test_nothing_outside_the_ticket_moves(net: ChannelNet) -> None:
    model = made(net)
    tickets = channel_tickets(net, model)
    ticket, plan = tickets["a"], tickets["a"].channels
    assert plan is not None
    before, state, other = tensors_of(model), copied(ticket.state), copied(tickets["b"].state)
    scatter_back(trained(compact(model, ticket), net), model, ticket)
    for name, parameter in model.named_parameters():
        mask = ticket.masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[~mask], before[name][~mask]), name
        if parameter.dim() > 1:  # a norm cancels the bias before it
            assert not torch.equal(parameter[mask], before[name][mask]), name
    assert same_bits(copied(dict(model.named_buffers())),
                     {n: before[n] for n, _ in model.named_buffers()})  # fmt: skip
    assert same_bits(copied(tickets["b"].state), other)
    assert ticket.state.keys() == state.keys()
    for name, value in ticket.state.items():
        if name in plan.maps:
            mask = plan.maps[name].mask()
            assert torch.equal(value[~mask], state[name][~mask]), name
            assert not torch.equal(value[mask], state[name][mask]), name
        else:
            assert not torch.equal(value, state[name]), name


def test_statistics_go_to_a_ticket_that_had_none() -> None:
    model = made(RESIDUAL)
    ticket = channel_tickets(RESIDUAL, model)["a"]
    ticket.state.clear()
    small = trained(compact(model, ticket), RESIDUAL)
    scatter_back(small, model, ticket)
    assert ticket.state.keys() == dict(model.named_buffers()).keys()
    kept = ticket.masks["inner.weight"]
    assert torch.equal(ticket.state["inner.running_mean"][kept], small.inner.running_mean)
    assert not ticket.state["inner.running_mean"][~kept].any(), "the model's own value"
    assert not model.inner.running_mean.any()
    held = {value.data_ptr() for value in [*small.buffers(), *model.buffers()]}
    assert held.isdisjoint(value.data_ptr() for value in ticket.state.values())


def test_private_parameters_go_to_the_ticket() -> None:
    model = made(RESIDUAL)
    ticket = channel_tickets(RESIDUAL, model)["a"]
    ticket.state["fc.bias"] = torch.zeros(3, dtype=torch.float64)
    before = model.fc.bias.detach().clone()
    small = trained(compact(model, ticket), RESIDUAL)
    scatter_back(small, model, ticket)
    assert torch.equal(model.fc.bias, before)
    assert torch.equal(ticket.state["fc.bias"], small.fc.bias)


def test_parameters_and_gradients_of_the_model_stay_leaves(net: ChannelNet) -> None:
    model = made(net)
    tensors = [id(p) for p in model.parameters()]
    ticket = channel_tickets(net, model)["a"]
    scatter_back(trained(compact(model, ticket), net), model, ticket)
    assert [id(p) for p in model.parameters()] == tensors
    assert all(p.is_leaf and p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_small_network_of_another_dtype(net: ChannelNet, dtype: torch.dtype) -> None:
    """As after model.half() and the like: values are converted, as copy_ does."""
    model = made(net)
    ticket = channel_tickets(net, model)["a"]
    small = trained(compact(model, ticket).to(dtype), net)
    scatter_back(small, model, ticket)
    again = compact(model, ticket)
    assert same_bits(tensors_of(again), tensors_of(small.double()))
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_ticket_state_of_another_dtype_than_the_model() -> None:
    """As after model.double(), which tickets know nothing of."""
    model = made(RESIDUAL, torch.float32)
    ticket = channel_tickets(RESIDUAL, model)["a"]
    model.double()
    small = trained(compact(model, ticket), RESIDUAL)
    scatter_back(small, model, ticket)
    assert same_bits(tensors_of(compact(model, ticket)), tensors_of(small))


def wrong_ones() -> dict[str, Callable[[nn.Module], object]]:
    def another_shape(small: nn.Module) -> nn.Module:
        small[3] = nn.Conv2d(3, 5, 3, bias=False).double()
        return small

    def another_buffer(small: nn.Module) -> nn.Module:
        small[4].running_var = torch.ones(5)
        return small

    def renamed(small: nn.Module) -> nn.Module:
        small.register_parameter("more", nn.Parameter(torch.zeros(1)))
        return small

    def another_class(small: nn.Module) -> nn.Module:
        return nn.ModuleList(small)

    def part(small: nn.Module) -> nn.Module:
        return small[:4]

    return {
        "'3.weight' differs": another_shape,
        "'4.running_var' differs": another_buffer,
        "'more' differs": renamed,
        "it is a ModuleList": another_class,
        "'4.bias' differs": part,
    }


@pytest.mark.parametrize("what", wrong_ones())
def test_wrong_small_networks_are_refused_and_nothing_is_written(what: str) -> None:
    model = made(CONV_BN)
    tickets = channel_tickets(CONV_BN, model)
    before, own = tensors_of(model), ticket_tensors(tickets)
    small = trained(compact(model, tickets["a"]), CONV_BN)
    with pytest.raises(StructureMismatch, match=f"no.* small network of ticket 'a' \\({what}\\)"):
        scatter_back(wrong_ones()[what](small), model, tickets["a"])
    assert same_bits(tensors_of(model), before)
    assert same_bits(ticket_tensors(tickets), own)


def test_the_shared_network_itself_and_other_models_are_refused() -> None:
    model = made(CONV_BN)
    tickets = channel_tickets(CONV_BN, model)
    small = compact(model, tickets["a"])
    with pytest.raises(StructureMismatch, match="this is not a small network of ticket 'a'"):
        scatter_back(model, model, tickets["a"])
    with pytest.raises(StructureMismatch, match="in the model it is"):
        scatter_back(small, made(LAYER_NORM)[:3], tickets["a"])
    with pytest.raises(InvalidArgument, match="ticket 'a' has no channel plan"):
        scatter_back(small, model, masked(tickets)["a"])
