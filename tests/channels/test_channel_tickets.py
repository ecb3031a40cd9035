"""Tickets and sets with channel plans: what they refuse, and what survives a copy."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.channel_plan import ChannelPlan, is_plain
from rtl_plugin.errors import CompactOnly, InvalidTicket, StructureMismatch
from rtl_plugin.index_map import IndexMap
from tests.channels.zoo import (
    CHANNEL_ZOO,
    CONV_BN,
    GROUPED,
    LAYER_NORM,
    MASKABLE,
    ChannelNet,
    channel_tickets,
    made,
    masked,
)


@pytest.fixture(params=CHANNEL_ZOO, ids=str)
def net(request: pytest.FixtureRequest) -> ChannelNet:
    return request.param


def same_plan(first: ChannelPlan | None, second: ChannelPlan | None) -> bool:
    """Whether two plans say the same, attribute types included."""
    assert first is not None
    assert second is not None
    alike = list(first.maps) == list(second.maps)
    for one, other in zip(first.maps.values(), second.maps.values(), strict=True):
        probe = torch.arange(torch.Size(one.shape).numel()).reshape(one.shape)
        alike &= one.shape == other.shape
        alike &= (one.entries is None) == (other.entries is None)
        alike &= [a is None for a in one.axes] == [a is None for a in other.axes]
        alike &= torch.equal(one.gather(probe), other.gather(probe))
    attributes = [
        {module: repr(sorted(values.items())) for module, values in plan.attributes.items()}
        for plan in (first, second)
    ]
    return alike and attributes[0] == attributes[1] and first.compact_only == second.compact_only


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "to": lambda thing: thing.to("cpu"),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_keep_the_plan(net: ChannelNet, copied: Callable[[Any], Any]) -> None:
    tickets = channel_tickets(net, made(net))
    for other in (copied(tickets), TicketSet([copied(t) for t in tickets.values()])):
        assert other.structured
        assert other.compact_only == net.compact_only
        for name, ticket in tickets.items():
            assert same_plan(ticket.channels, other[name].channels)
            assert all(torch.equal(ticket.masks[n], m) for n, m in other[name].masks.items())
    assert same_plan(tickets["a"].channels, copied(tickets["a"].channels))
    assert not same_plan(tickets["a"].channels, tickets["b"].channels)


def test_a_plan_is_read_only_and_apart_from_what_it_was_made_of(net: ChannelNet) -> None:
    plan = channel_tickets(net, made(net))["a"].channels
    assert plan is not None
    maps, attributes = dict(plan.maps), {m: dict(v) for m, v in plan.attributes.items()}
    other = ChannelPlan(maps, attributes)
    maps.clear()
    module = next(iter(attributes))
    attributes[module].clear()
    assert other.maps.keys() == plan.maps.keys()
    assert other.attributes[module] == plan.attributes[module]
    with pytest.raises(TypeError):
        other.maps["x"] = None  # type: ignore[index]
    with pytest.raises(TypeError):
        other.attributes[module]["x"] = 1  # type: ignore[index]


def test_which_channels_a_layer_has() -> None:
    plan = channel_tickets(GROUPED, made(GROUPED))["a"].channels
    assert plan is not None
    for layer, dim, same in (("0", 0, "1.bias"), ("8", 1, "4.bias")):
        channels = plan.channels(layer, dim)
        assert channels is not None
        assert channels.tolist() == plan.maps[same].mask().nonzero().flatten().tolist()
    assert plan.channels("8") is None
    assert plan.channels("nowhere") is None
    with pytest.raises(InvalidTicket, match="'3' was cut by single entries, not by channels"):
        plan.channels("3")


def test_a_mask_that_disagrees_with_the_plan(net: ChannelNet) -> None:
    ticket = channel_tickets(net, made(net))["a"]
    for name, mask in ticket.masks.items():
        less, more = mask.clone(), mask.clone()
        less[tuple(mask.nonzero()[-1])] = False
        more[tuple((~mask).nonzero()[0])] = True
        for wrong in (less, more, ~mask, mask[None]):
            with pytest.raises(
                InvalidTicket, match=rf"'a': mask and channel plan of '{name}' keep different"
            ):
                Ticket("a", {**ticket.masks, name: wrong}, ticket.state, ticket.channels)


def test_a_masked_parameter_that_the_plan_keeps_whole() -> None:
    ticket = channel_tickets(CONV_BN, made(CONV_BN))["a"]
    whole = torch.ones(3, dtype=torch.bool)
    assert Ticket("a", {**ticket.masks, "7.bias": whole}, {}, ticket.channels).kept
    whole[1] = False
    with pytest.raises(InvalidTicket, match=r"plan of '7\.bias' keep different weights"):
        Ticket("a", {**ticket.masks, "7.bias": whole}, {}, ticket.channels)


def test_plans_that_are_none() -> None:
    index_map = IndexMap((4,), (torch.tensor([1]),))
    with pytest.raises(InvalidTicket, match="needs at least one tensor that was cut"):
        ChannelPlan({})
    for value in ([1], {1: 2}, torch.zeros(1), object(), (1, [2]), 1j):
        assert not is_plain(value)
        with pytest.raises(InvalidTicket, match=r"attribute 'width' of 'layer' is .*; a channel"):
            ChannelPlan({"w": index_map}, {"layer": {"width": value}})
    for value in (1, True, 0.5, "same", None, (), (1, (2.0, None), "x")):
        assert is_plain(value)


def test_sets_of_both_kinds_are_refused(net: ChannelNet) -> None:
    tickets = channel_tickets(net, made(net))
    for order in ([tickets["a"], masked(tickets)["b"]], [masked(tickets)["b"], tickets["a"]]):
        with pytest.raises(InvalidTicket, match="has a channel plan, the other none: keep channel"):
            TicketSet(order)
    assert not masked(tickets).structured
    assert masked(tickets).compact_only == ()


def other_networks() -> dict[str, tuple[nn.Module, str]]:
    def changed(**layers: nn.Module) -> nn.Module:
        model = made(CONV_BN)
        for position, layer in layers.items():
            model[int(position[1:])] = layer
        return model

    return {
        "another width": (changed(_0=nn.Conv2d(2, 7, 3)), "'0.weight' has shape"),
        "no affine": (
            changed(_1=nn.BatchNorm2d(6, affine=False)),
            "'1.weight' is not in the model",
        ),
        "no statistics": (
            changed(_1=nn.BatchNorm2d(6, track_running_stats=False)),
            "the channel plan cuts '1.running_mean' of shape (6,), which is not in the model",
        ),
        "another kind of layer": (
            changed(_1=nn.GroupNorm(2, 6)),
            "the channel plan cuts '1.running_mean' of shape (6,), which is not in the model",
        ),
        "an empty one": (nn.Sequential(), "'0.weight' is not in the model"),
    }


@pytest.mark.parametrize("case", other_networks())
def test_other_networks_are_refused(case: str) -> None:
    model, message = other_networks()[case]
    ticket = channel_tickets(CONV_BN, made(CONV_BN))["a"]
    stateless = TicketSet([Ticket("a", ticket.masks, {}, ticket.channels)])
    with pytest.raises(StructureMismatch) as caught:
        stateless.check_fits(model)
    assert message in str(caught.value)


def test_a_buffer_of_another_shape_is_refused() -> None:
    model = made(CONV_BN)
    ticket = channel_tickets(CONV_BN, model)["a"]
    model[1].running_var = torch.ones(5)
    with pytest.raises(StructureMismatch, match=r"cuts '1\.running_var' of shape \(6,\), which is"):
        TicketSet([Ticket("a", ticket.masks, {}, ticket.channels)]).check_fits(model)


@pytest.mark.parametrize(
    "attributes",
    [
        {"9": {"out_features": 2}},
        {"7": {"out_chanels": 2}},
        {"9": {"__doc__": "Linear"}},
        {"7": {"__class__": "Linear"}},
        {"7": {"weight": 3}},
        {"7": {"forward": None}},
        {"": {"_modules": 1}},
        {"3": {"_parameters": None}},
    ],
)
def test_attributes_that_the_model_has_not(attributes: dict[str, dict[str, Any]]) -> None:
    """Nor what holds something else than plain data: no pruner sets that."""
    model = made(CONV_BN)
    ticket = channel_tickets(CONV_BN, model)["a"]
    assert ticket.channels is not None
    plan = ChannelPlan(ticket.channels.maps, attributes)
    (module, values), = attributes.items()  # fmt: skip
    message = f"sets '{next(iter(values))}' of '{module}', which the model has not"
    with pytest.raises(StructureMismatch, match=message):
        TicketSet([Ticket("a", ticket.masks, {}, plan)]).check_fits(model)


def test_a_cut_parameter_without_a_mask_is_refused() -> None:
    model = made(CONV_BN)
    ticket = channel_tickets(CONV_BN, model)["a"]
    masks = {name: mask for name, mask in ticket.masks.items() if name != "1.bias"}
    with pytest.raises(StructureMismatch, match=r"cuts '1\.bias', which has no mask"):
        TicketSet([Ticket("a", masks, {}, ticket.channels)]).check_fits(model)


def test_what_masks_cannot_do_is_refused_by_layer(net: ChannelNet) -> None:
    model = made(net)
    tickets = channel_tickets(net, model)
    if net in MASKABLE:
        tickets.check_maskable("this")
        tickets.to_torch_prune("a", model)
        assert "small network only" not in tickets.summary()
        return
    message = "would compute something else than the small networks do, because of layer '1' .Layer"
    with pytest.raises(CompactOnly, match=f"^this {message}"):
        tickets.check_maskable("this")
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(CompactOnly, match=rf"^torch\.nn\.utils\.prune {message}"):
        tickets.to_torch_prune("a", model)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert "runs as a small network only: layer '1' (LayerNorm)" in tickets.summary()


def test_reasons_of_several_tickets_are_named_once() -> None:
    tickets = channel_tickets(LAYER_NORM, made(LAYER_NORM), "abc")
    assert tickets.compact_only == ("layer '1' (LayerNorm)",)
