"""recalibrate on a channel ticket: what it is on the same masks, at the kept channels."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet, recalibrate
from rtl_plugin.errors import InvalidArgument, InvalidGroups, StructureMismatch, TrainingDiverged
from tests.channels.zoo import (
    BN_NETS,
    CONV_BN,
    LAYER_NORM,
    MLP_FLATTEN,
    RESIDUAL,
    ChannelNet,
    Residual,
    channel_tickets,
    made,
    masked,
)
from tests.discovery.setups import copied, random_states, same_bits, tensors_of


@pytest.fixture(params=BN_NETS, ids=str)
def net(request: pytest.FixtureRequest) -> ChannelNet:
    return request.param


def batches(net: ChannelNet, count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(5)
    return [net.inputs(4).double() * (k + 1) for k in range(count)]


def test_it_equals_recalibrating_the_masked_network(net: ChannelNet) -> None:
    model = made(net)
    tickets = channel_tickets(net, model)
    whole = masked(tickets)
    for name, ticket in tickets.items():
        assert ticket.channels is not None
        before = copied(ticket.state)
        recalibrate(model, ticket, batches(net))
        recalibrate(model, whole[name], batches(net))
        assert ticket.state.keys() == before.keys()
        for key, value in ticket.state.items():
            expected = whole[name].state[key]
            if key in ticket.channels.maps:
                kept = ticket.channels.maps[key].mask()
                assert torch.equal(value[~kept], before[key][~kept]), "not the ticket's to move"
                value, expected = value[kept], expected[kept]
            torch.testing.assert_close(value, expected, atol=1e-10, rtol=1e-10)
        assert int(ticket.state[next(k for k in before if "num" in k)]) == 3
        assert not same_bits(ticket.state, before)


def test_what_the_statistics_were_before_does_not_matter(net: ChannelNet) -> None:
    model = made(net)
    ticket = channel_tickets(net, model)["a"]
    other = Ticket("a", ticket.masks, {}, ticket.channels)
    for name, value in ticket.state.items():
        if name.endswith("num_batches_tracked"):
            value.fill_(100)  # a plain average over the batches must not start from there
    for one in (ticket, other):
        recalibrate(model, one, batches(net))
    x = batches(net, 1)[0]
    assert ticket.channels is not None
    for key, value in other.state.items():
        kept = ticket.channels.maps[key].mask() if key in ticket.channels.maps else ...
        assert torch.equal(value[kept], ticket.state[key][kept])
    for strategy in ("reference", "compact"):
        outputs = [
            MixtureOfMasks(model, TicketSet([one]), strategy=strategy)(x, tickets="a")
            for one in (ticket, other)
        ]
        torch.testing.assert_close(outputs[0], outputs[1])


def test_nothing_else_changes(net: ChannelNet) -> None:
    model = made(net)
    next(model.children()).eval()
    tickets = channel_tickets(net, model)
    before, masks, other = tensors_of(model), copied(tickets["a"].masks), copied(tickets["b"].state)
    flags = [module.training for module in model.modules()]
    data = [batch.clone() for batch in batches(net)]
    states = random_states()
    recalibrate(model, tickets["a"], data)
    assert same_bits(tensors_of(model), before)
    assert same_bits(copied(tickets["a"].masks), masks)
    assert same_bits(tickets["b"].state, other)
    assert random_states() == states
    assert [module.training for module in model.modules()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_forward_given_receives_the_small_network() -> None:
    model = made(RESIDUAL)
    tickets, again = channel_tickets(RESIDUAL, model), channel_tickets(RESIDUAL, model)

    def forward(view: Residual, batch: dict[str, torch.Tensor]) -> Any:
        assert type(view) is Residual
        assert view.inner.num_features == 4
        return view(batch["image"])

    data = batches(RESIDUAL)
    recalibrate(model, tickets["a"], [{"image": x} for x in data], forward=forward)
    recalibrate(model, again["a"], [(x, "label") for x in data])
    assert same_bits(tickets["a"].state, again["a"].state)


def test_dropout_is_off() -> None:
    class Dropping(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.dropout(x, 0.9, self.training))

    model = made(ChannelNet("dropping", Dropping, RESIDUAL.inputs, True, RESIDUAL.cut))
    plain = made(RESIDUAL)
    plain.load_state_dict(model.state_dict())
    tickets, expected = channel_tickets(RESIDUAL, model), channel_tickets(RESIDUAL, plain)
    recalibrate(model, tickets["a"], batches(RESIDUAL))
    recalibrate(plain, expected["a"], batches(RESIDUAL))
    assert same_bits(tickets["a"].state, expected["a"].state)


def test_state_of_another_dtype_than_the_model() -> None:
    model = made(CONV_BN, torch.float32)
    ticket = channel_tickets(CONV_BN, model)["a"]
    recalibrate(model.double(), ticket, batches(CONV_BN))
    assert ticket.state["1.running_var"].dtype == torch.float64


def test_refusals_keep_the_old_statistics() -> None:
    model = made(CONV_BN)
    ticket = channel_tickets(CONV_BN, model)["a"]
    before = copied(ticket.state)
    with pytest.raises(InvalidGroups, match="the loader given for ticket 'a' is empty"):
        recalibrate(model, ticket, [])
    with pytest.raises(TrainingDiverged, match="statistics that are not finite"):
        recalibrate(model, ticket, [batches(CONV_BN)[0] * math.inf])
    with pytest.raises(StructureMismatch, match=r"'0\.weight' has shape"):
        recalibrate(made(MLP_FLATTEN), ticket, batches(CONV_BN))
    assert same_bits(ticket.state, before)
    model = made(LAYER_NORM)
    with pytest.raises(InvalidArgument, match="nothing to recalibrate"):
        recalibrate(model, channel_tickets(LAYER_NORM, model)["a"], [])
