"""NNI's mask dictionaries as tickets and back; NNI itself is not needed for it."""

from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import InvalidTicket, StructureMismatch, UnknownTicket
from rtl_plugin.fingerprint import bit_equal, model_structure
from rtl_plugin.randomness import forked
from tests.models import conv_net, mlp


def masks_of(model: nn.Module, layers: str = "03", seed: int = 0) -> dict[str, Any]:
    with forked(seed):
        return {
            layer: {
                target: (torch.rand_like(value) < 0.5).float()
                for target, value in model.get_submodule(layer).named_parameters()
            }
            for layer in layers
        }


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(
        targets.keys() == second[module].keys()
        and all(torch.equal(mask, second[module][target]) for target, mask in targets.items())
        for module, targets in first.items()
    )


def test_round_trip() -> None:
    model = conv_net()
    masks = masks_of(model)
    tickets = TicketSet.from_nni(masks, model)
    assert tickets.names == ("pruned",)
    assert same(tickets.to_nni("pruned"), masks)
    assert all(
        m.dtype == torch.float32 for t in tickets.to_nni("pruned").values() for m in t.values()
    )
    again = TicketSet.from_nni(tickets.to_nni("pruned"), model)
    assert all(torch.equal(m, again["pruned"].masks[n]) for n, m in tickets["pruned"].masks.items())


def test_masks_in_the_models_order_whatever_the_dictionarys() -> None:
    model = conv_net()
    masks = masks_of(model)
    backwards = {name: dict(reversed(masks[name].items())) for name in reversed(masks)}
    assert list(TicketSet.from_nni(backwards, model).shapes) == [
        "0.weight", "0.bias", "3.weight", "3.bias",
    ]  # fmt: skip


def test_what_is_handed_out_is_a_copy() -> None:
    model = conv_net()
    masks = masks_of(model)
    tickets = TicketSet.from_nni(masks, model)
    kept = tickets["pruned"].kept
    masks["0"]["weight"].zero_()
    tickets.to_nni("pruned")["3"]["weight"].zero_()
    assert tickets["pruned"].kept == kept


def test_own_state_and_structure_are_the_models() -> None:
    model = conv_net()
    tickets = TicketSet.from_nni(masks_of(model), model)
    assert tickets.structure == model_structure(model)
    assert tickets.theta_0 is None
    state = tickets["pruned"].state
    assert set(state) == {name for name, _ in model.named_buffers()}
    with torch.no_grad():
        model[1].running_mean.add_(1)  # type: ignore[index,union-attr,operator]
    assert not bit_equal(state["1.running_mean"], model.get_buffer("1.running_mean"))


def test_a_name_of_its_own() -> None:
    model = conv_net()
    assert TicketSet.from_nni(masks_of(model), model, name="indoor").names == ("indoor",)


def test_several_tickets() -> None:
    model = conv_net()
    masks = {name: masks_of(model, seed=ord(name)) for name in "ba"}
    tickets = TicketSet.from_nni(masks, model)
    assert tickets.names == ("b", "a")
    assert all(same(tickets.to_nni(name), masks[name]) for name in "ab")
    with pytest.raises(UnknownTicket):
        tickets.to_nni("c")


def test_several_tickets_over_different_layers() -> None:
    model = conv_net()
    with pytest.raises(InvalidTicket):
        TicketSet.from_nni({"a": masks_of(model, "0"), "b": masks_of(model, "3")}, model)


def test_a_leading_module_is_understood() -> None:
    model = conv_net()
    masks = masks_of(model)
    parallel = {f"module.{name}": targets for name, targets in masks.items()}
    assert same(TicketSet.from_nni(parallel, model).to_nni("pruned"), masks)


def test_a_module_that_is_really_called_module() -> None:
    inner = nn.Sequential()
    inner.add_module("module", nn.Linear(2, 2))
    masks = {"module": {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}}
    assert list(TicketSet.from_nni(masks, inner).shapes) == ["module.weight"]


def test_the_model_itself_as_the_masked_module() -> None:
    model = nn.Linear(2, 2)
    masks = {"": {"weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}}
    tickets = TicketSet.from_nni(masks, model)
    assert list(tickets.shapes) == ["weight"]
    assert same(tickets.to_nni("pruned"), masks)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float64, torch.bfloat16])
def test_masks_of_any_kind_of_number(dtype: torch.dtype) -> None:
    model = conv_net()
    masks = masks_of(model)
    other = {m: {t: v.to(dtype) for t, v in targets.items()} for m, targets in masks.items()}
    assert same(TicketSet.from_nni(other, model).to_nni("pruned"), masks)


def test_masks_that_broadcast() -> None:
    """As NNI's own generators make them, one value a channel."""
    model = conv_net()
    channels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    masks = {"0": {"weight": channels.reshape(4, 1, 1, 1), "bias": channels}}
    found = TicketSet.from_nni(masks, model).to_nni("pruned")["0"]
    assert found["weight"].shape == (4, 1, 3, 3)
    assert torch.equal(found["weight"].amax((1, 2, 3)), channels)
    assert torch.equal(found["weight"].amin((1, 2, 3)), channels)


def test_none_where_there_is_no_such_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    masks = {"0": {"weight": torch.eye(2), "bias": None}}
    assert list(TicketSet.from_nni(masks, model).shapes) == ["0.weight"]


def test_none_where_there_is_one_keeps_all_of_it() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    tickets = TicketSet.from_nni({"0": {"weight": torch.eye(2), "bias": None}}, model)
    assert bool(tickets["pruned"].masks["0.bias"].all())


def test_empty_targets_of_one_module() -> None:
    model = conv_net()
    masks: dict[str, Any] = {**masks_of(model, "0"), "3": {}}
    assert list(TicketSet.from_nni(masks, model).shapes) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"conv9": {"weight": torch.ones(1)}}, r"1 of 1 masked modules .* such as \['conv9'\]"),
        ({"0": {}, "x": {}, "module.y": {}}, r"2 of 3 masked modules .*\['x', 'module\.y'\]"),
        ({"0": {"kernel": torch.ones(1)}}, "'kernel', names no parameter .it does not exist"),
        ({"1": {"running_mean": torch.ones(4)}}, "names no parameter .it is a Tensor"),
        ({"0": {"_input_0": torch.ones(1)}}, "masks activations"),
        ({"0": {"_output_": None}}, None),
        ({"0": {"weight": torch.ones(4, 1, 3)}}, r"has shape \(4, 1, 3\), the parameter \(4, 1, 3"),
        ({"0": {"weight": torch.ones(5, 1, 3, 3)}}, "has shape"),
        ({"0": {"bias": torch.ones(())}}, "has shape"),
    ],
)
def test_masks_that_do_not_fit_the_model(masks: Any, message: str | None) -> None:
    model = conv_net()
    if message is None:
        with pytest.raises(InvalidTicket):  # nothing is left to mask
            TicketSet.from_nni(masks, model)
        return
    with pytest.raises(StructureMismatch, match=message):
        TicketSet.from_nni(masks, model)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan"), float("inf")])
def test_values_other_than_zero_and_one(value: float) -> None:
    model = conv_net()
    masks = masks_of(model)
    masks["3"]["weight"][0, 0, 0, 0] = value
    with pytest.raises(
        InvalidTicket, match="'3', target 'weight', holds values other than 0 and 1"
    ):
        TicketSet.from_nni(masks, model)


@pytest.mark.parametrize(
    "masks", [None, [], {}, {"a": 1}, {"a": {"b": 1}}, {"a": {"b": {"c": 1}}}, 3]
)
def test_what_is_no_mask_dictionary(masks: Any) -> None:
    with pytest.raises(InvalidTicket, match="from_nni takes NNI's masks"):
        TicketSet.from_nni(masks, conv_net())


def test_nothing_kept_at_all() -> None:
    with pytest.raises(InvalidTicket):
        TicketSet.from_nni({"0": {"weight": torch.zeros(4, 1, 3, 3)}}, conv_net())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight


def test_tied_parameters_have_one_mask_under_the_first_name() -> None:
    mask = torch.eye(2)
    for masks in (
        {"b": {"weight": mask}},
        {"a": {"weight": mask}, "b": {"weight": mask}},
    ):
        assert list(TicketSet.from_nni(masks, Tied()).shapes) == ["a.weight"]
    with pytest.raises(InvalidTicket, match="which is the same tied parameter"):
        TicketSet.from_nni({"a": {"weight": mask}, "b": {"weight": 1 - mask}}, Tied())


def test_tickets_of_the_core_become_masks_of_nni() -> None:
    model = mlp()
    mask = torch.rand(8, 5) < 0.5
    tickets = TicketSet([Ticket("x", {"0.weight": mask})], structure=model_structure(model))
    assert same(tickets.to_nni("x"), {"0": {"weight": mask.float()}})


def test_a_model_that_nni_has_wrapped_is_told_from_a_bare_one() -> None:
    """In a wrapped model the parameter has moved into the wrapper."""
    model = conv_net()
    masks = masks_of(model)
    weight = model[0].weight  # type: ignore[index,union-attr]
    del model[0].weight  # type: ignore[index,union-attr]
    model[0].register_buffer("weight", weight.detach())  # type: ignore[index,union-attr,operator]
    with pytest.raises(StructureMismatch, match="pass the model unwrapped"):
        TicketSet.from_nni(masks, model)
