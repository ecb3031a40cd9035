"""compact: a smaller module of the user's class that computes what the masked network does."""

import copy

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, compact
from rtl_plugin.errors import InvalidArgument, StructureMismatch
from tests.channels.zoo import (
    CHANNEL_ZOO,
    CONV_BN,
    LAYER_NORM,
    MASKABLE,
    MLP_FLATTEN,
    RESIDUAL,
    ChannelNet,
    Cutter,
    channel_tickets,
    every_second,
    made,
    masked,
)
from tests.discovery.setups import same_bits, tensors_of, ticket_tensors
from tests.mixture.plain_loop import plain_copy


@pytest.fixture(params=CHANNEL_ZOO, ids=str)
def net(request: pytest.FixtureRequest) -> ChannelNet:
    return request.param


@pytest.mark.parametrize("net", MASKABLE, ids=str)
def test_it_computes_what_the_masked_network_computes(net: ChannelNet) -> None:
    model = made(net)
    tickets = channel_tickets(net, model)
    x = net.inputs(6).double()
    outputs = {name: compact(model, ticket)(x) for name, ticket in tickets.items()}
    for name, ticket in tickets.items():
        expected = plain_copy(model, ticket)(x)
        torch.testing.assert_close(outputs[name], expected, atol=1e-10, rtol=1e-10)
    assert (outputs["a"] - outputs["b"]).abs().max() > 1e-3
    assert (outputs["a"] - copy.deepcopy(model).eval()(x)).abs().max() > 1e-3


def test_a_norm_across_channels_is_the_small_one() -> None:
    """What masks cannot do: the mean is over the kept channels alone."""
    model = made(LAYER_NORM)
    ticket = channel_tickets(LAYER_NORM, model)["a"]
    kept = ticket.masks["1.weight"]
    x = LAYER_NORM.inputs(3).double()
    first, norm, last = model[0], model[1], model[3]
    hidden = torch.nn.functional.linear(x, first.weight[kept], first.bias[kept])
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    scaled = centred / (hidden.var(dim=1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    normed = torch.relu(scaled * norm.weight[kept] + norm.bias[kept])
    expected = model[4](normed @ last.weight[:, kept].t() + last.bias)
    torch.testing.assert_close(compact(model, ticket)(x), expected, atol=1e-10, rtol=1e-10)


def test_it_is_smaller_and_of_the_users_class(net: ChannelNet) -> None:
    model = made(net)
    ticket = channel_tickets(net, model)["a"]
    small = compact(model, ticket)
    assert type(small) is type(model)
    assert list(small.state_dict()) == list(model.state_dict())
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert not any(module.training for module in small.modules())
    assert all(module.training for module in model.modules())
    for name, parameter in small.named_parameters():
        whole = model.get_parameter(name)
        kept = int(ticket.masks[name].sum()) if name in ticket.masks else whole.numel()
        assert parameter.numel() == kept, name
        assert parameter.dtype == whole.dtype
        assert parameter.is_leaf
        assert parameter.grad is None
    assert ticket.channels is not None
    modules = dict(small.named_modules())
    for module, values in ticket.channels.attributes.items():
        assert {name: getattr(modules[module], name) for name in values} == dict(values)


def test_it_shares_nothing(net: ChannelNet) -> None:
    model = made(net)
    tickets = channel_tickets(net, model)
    ticket = tickets["a"]
    plan = ticket.channels
    assert plan is not None
    before, own = tensors_of(model), ticket_tensors(tickets)
    small = compact(model, ticket)
    theirs = [*model.state_dict().values(), *ticket.state.values(), *ticket.masks.values()]
    held = {tensor.untyped_storage().data_ptr() for tensor in theirs}
    ours = {t.untyped_storage().data_ptr() for t in tensors_and_buffers(small)}
    assert held.isdisjoint(ours)
    small.train()(net.inputs(4).double()).sum().backward()
    with torch.no_grad():
        for tensor in tensors_and_buffers(small):
            tensor.zero_()
    assert same_bits(tensors_of(model), before)
    assert same_bits(ticket_tensors(tickets), own)
    assert all(p.grad is None for p in model.parameters())


def tensors_and_buffers(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def test_the_tickets_own_state_stands_in_for_the_models() -> None:
    model = made(RESIDUAL)
    ticket = channel_tickets(RESIDUAL, model)["a"]
    kept = ticket.masks["inner.weight"]
    ticket.state["fc.bias"] = torch.full((3,), 5.0, dtype=torch.float64)
    ticket.state["bn.running_mean"] = torch.arange(4.0)  # of another dtype than the model
    small = compact(model, ticket)
    assert small.fc.bias.tolist() == [5.0] * 3
    assert torch.equal(small.inner.running_var, ticket.state["inner.running_var"][kept])
    assert small.bn.running_mean.dtype == torch.float64
    assert small.bn.running_mean.tolist() == [0.0, 1.0, 2.0, 3.0]
    del ticket.state["inner.running_var"]
    assert torch.equal(compact(model, ticket).inner.running_var, model.inner.running_var[kept])


def test_requires_grad_is_kept(net: ChannelNet) -> None:
    model = made(net)
    frozen = [name for name, _ in model.named_parameters()][::2]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    small = compact(model, channel_tickets(net, model)["a"])
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == frozen


def test_it_can_be_made_without_gradients_and_trained_later(net: ChannelNet) -> None:
    model = made(net)
    with torch.no_grad():
        small = compact(model, channel_tickets(net, model)["a"])
    small(net.inputs(3).double()).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(5, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)
        self.kept_by_hand = [self.first.weight]
        self.register_buffer("scale", torch.ones(6), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x) + self.second(x)) * self.scale)


def cut_tied(cutter: Cutter) -> None:
    kept = cutter.choose(6)
    cutter.outputs("first", kept, "out_features")
    cutter.outputs("second", kept, "out_features")
    cutter.tensor("scale", 0, kept)
    cutter.inputs("head", kept, "in_features")


TIED = ChannelNet("tied", Tied, LAYER_NORM.inputs, False, cut_tied)


def test_tied_parameters_and_second_references_stay_tied() -> None:
    model = made(TIED)
    ticket = channel_tickets(TIED, model)["a"]
    assert "second.weight" not in ticket.masks
    small = compact(model, ticket)
    assert small.first.weight.shape == (3, 5)
    assert small.second.weight is small.first.weight
    assert small.kept_by_hand[0] is small.first.weight
    x = TIED.inputs(3).double()
    torch.testing.assert_close(small(x), plain_copy(model, ticket)(x), atol=1e-10, rtol=1e-10)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.rnn = kind(5, 4, batch_first=True)
        self.inner, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.inner(self.rnn(x[:, None])[0][:, -1])))


def cut_recurrent(cutter: Cutter) -> None:
    kept = cutter.choose(8)
    cutter.outputs("inner", kept, "out_features")
    cutter.inputs("head", kept, "in_features")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_beside_the_cut(kind: type[nn.RNNBase]) -> None:
    net = ChannelNet("rnn", lambda: Recurrent(kind), LAYER_NORM.inputs, False, cut_recurrent)
    model = made(net)
    ticket = channel_tickets(net, model)["a"]
    small = compact(model, ticket)
    x = net.inputs(3).double()
    torch.testing.assert_close(small(x), plain_copy(model, ticket)(x), atol=1e-10, rtol=1e-10)
    with torch.no_grad():
        small.rnn.weight_ih_l0.add_(1)
    assert (small(x) - plain_copy(model, ticket)(x)).abs().max() > 1e-3, (
        "it runs a weight of its own"
    )


def test_what_is_refused() -> None:
    model = made(CONV_BN)
    tickets = channel_tickets(CONV_BN, model)
    with pytest.raises(InvalidArgument, match=r"^ticket 'a' has no channel plan, so there is no"):
        compact(model, masked(tickets)["a"])
    with pytest.raises(InvalidArgument, match=r"has no channel plan"):
        compact(model, tickets)  # type: ignore[arg-type]
    with pytest.raises(StructureMismatch, match=r"'0\.weight' has shape"):
        compact(made(MLP_FLATTEN), tickets["a"])
    model.generator = (value for value in [1])
    with pytest.raises(InvalidArgument, match=r"Sequential cannot be deep-copied \(TypeError"):
        compact(model, tickets["a"])


def test_a_ticket_that_keeps_single_channels() -> None:
    model = made(CONV_BN)
    cutter = Cutter(model, lambda width: torch.tensor([width - 1]))
    CONV_BN.cut(cutter)
    plan = cutter.plan()
    ticket = Ticket("one", {n: plan.maps[n].mask() for n, _ in model.named_parameters()
                            if n in plan.maps}, {}, plan)  # fmt: skip
    x = CONV_BN.inputs(3).double()
    small = compact(model, ticket)
    assert small[3].weight.shape == (1, 1, 3, 3)
    torch.testing.assert_close(small(x), plain_copy(model, ticket)(x), atol=1e-10, rtol=1e-10)


def test_channels_last_weights() -> None:
    model = made(CONV_BN).to(memory_format=torch.channels_last)
    cutter = Cutter(model, every_second(0))
    CONV_BN.cut(cutter)
    ticket = channel_tickets(CONV_BN, model)["a"]
    x = CONV_BN.inputs(3).double()
    torch.testing.assert_close(compact(model, ticket)(x), plain_copy(model, ticket)(x))
