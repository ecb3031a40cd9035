"""Masks of torch.nn.utils.prune become tickets and tickets become such masks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from rtl_plugin.errors import InvalidTicket, NothingPrunable, StructureMismatch, UnknownTicket
from rtl_plugin.prunable import select_prunable
from rtl_plugin.structure import persistent_buffers
from rtl_plugin.ticket import Ticket
from rtl_plugin.tickets import TicketSet
from tests.models import ZOO, Network, conv_net, conv_net_input, mlp


def pruned_copy(model: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    result = copy.deepcopy(model)
    for name in select_prunable(model):
        module, _, local = name.rpartition(".")
        prune.random_unstructured(result.get_submodule(module), local, amount=0.5)
    return result


def spread_statistics(model: nn.Module) -> None:
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_in_and_out_again_computes_the_same(network: Network) -> None:
    torch.manual_seed(0)
    model = network.build()
    originals = {name: pruned_copy(model, seed) for seed, name in enumerate("ab")}
    for pruned in originals.values():
        spread_statistics(pruned)
    tickets = TicketSet.from_torch_prune(originals)
    assert tickets.names == ("a", "b")
    assert list(tickets.shapes) == list(select_prunable(model))
    x = network.inputs()
    for name, original in originals.items():
        rebuilt = tickets.to_torch_prune(name, copy.deepcopy(model))
        with torch.no_grad():
            torch.testing.assert_close(
                rebuilt.eval()(x), original.eval()(x), rtol=0, atol=0, msg=name
            )
        assert rebuilt.state_dict().keys() == original.state_dict().keys()
        for key, value in original.state_dict().items():
            assert torch.equal(rebuilt.state_dict()[key], value), key


def test_state_is_each_model_s_batch_norm_buffers() -> None:
    model = conv_net()
    spread_statistics(model)
    expected = {name: buffer.clone() for name, buffer in persistent_buffers(model).items()}
    ticket = TicketSet.from_torch_prune(pruned_copy(model, 0), name="indoor")["indoor"]
    assert ticket.state.keys() == expected.keys()
    assert len(expected) == 6
    torch.testing.assert_close(ticket.state, expected, rtol=0, atol=0)


def test_out_and_in_again_is_the_same_ticket() -> None:
    torch.manual_seed(0)
    model = conv_net()
    masks = {n: torch.rand_like(p) > 0.4 for n, p in select_prunable(model).items()}
    state = {n: torch.full_like(b, 2) for n, b in model.named_buffers()}
    tickets = TicketSet([Ticket("a", masks, state)])
    pruned = tickets.to_torch_prune("a", model)
    assert pruned is model
    back = TicketSet.from_torch_prune(pruned, name="a")["a"]
    assert back.masks.keys() == masks.keys()
    for name, mask in masks.items():
        assert torch.equal(back.masks[name], mask), name
    torch.testing.assert_close(back.state, state, rtol=0, atol=0)


def test_the_imported_masks_name_the_bare_model_s_parameters() -> None:
    model = mlp()
    tickets = TicketSet.from_torch_prune(pruned_copy(model, 0))
    assert tickets.names == ("pruned",)
    tickets.check_fits(model)


def test_import_copies() -> None:
    pruned = pruned_copy(mlp(), 0)
    tickets = TicketSet.from_torch_prune(pruned)
    before = tickets["pruned"].masks["0.weight"].clone()
    pruned[0].weight_mask.fill_(1)
    assert torch.equal(tickets["pruned"].masks["0.weight"], before)


def test_a_parameter_of_the_model_itself() -> None:
    layer = prune.l1_unstructured(nn.Linear(4, 1), "weight", amount=2)
    assert list(TicketSet.from_torch_prune(layer).shapes) == ["weight"]


def test_a_buffer_that_merely_ends_in_mask_is_state() -> None:
    model = mlp()
    model.register_buffer("attention_mask", torch.full((2,), 0.5))
    ticket = TicketSet.from_torch_prune(pruned_copy(model, 0))["pruned"]
    torch.testing.assert_close(ticket.state, {"attention_mask": torch.full((2,), 0.5)})


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, float("nan")])
def test_masks_with_other_values_are_refused(value: float) -> None:
    model = pruned_copy(mlp(), 0)
    model[2].weight_mask[0, 0] = value
    with pytest.raises(InvalidTicket, match=r"'b': '2.weight_mask' holds values other than 0 and"):
        TicketSet.from_torch_prune({"a": pruned_copy(mlp(), 0), "b": model})


def test_no_masks_is_an_error_with_the_remedy() -> None:
    with pytest.raises(NothingPrunable, match=r"'pruned' carries no .*before prune.remove"):
        TicketSet.from_torch_prune(mlp())
    folded = pruned_copy(mlp(), 0)
    prune.remove(folded[0], "weight")
    prune.remove(folded[2], "weight")
    with pytest.raises(NothingPrunable, match=r"model 'b' carries no torch.nn.utils.prune mask"):
        TicketSet.from_torch_prune({"a": pruned_copy(mlp(), 0), "b": folded})


@pytest.mark.parametrize("models", [[mlp()], {"a": [mlp()]}, None])
def test_something_else_than_modules_is_refused(models: object) -> None:
    with pytest.raises(InvalidTicket, match="takes a module, or ticket name -> module, got"):
        TicketSet.from_torch_prune(models)


def test_models_that_disagree_are_refused() -> None:
    other = copy.deepcopy(mlp())
    prune.l1_unstructured(other[0], "weight", amount=1)
    with pytest.raises(InvalidTicket, match=r"tickets 'a' and 'b' disagree about '2.weight'"):
        TicketSet.from_torch_prune({"a": pruned_copy(mlp(), 0), "b": other})


def test_export_refuses_unknown_names_and_other_models() -> None:
    tickets = TicketSet.from_torch_prune(pruned_copy(mlp(), 0))
    with pytest.raises(UnknownTicket, match="unknown ticket 'x'; this set has 'pruned'"):
        tickets.to_torch_prune("x", mlp())
    other = conv_net()
    with pytest.raises(StructureMismatch, match=r"'0.weight' has shape"):
        tickets.to_torch_prune("pruned", other)
    assert "weight_mask" not in dict(other.named_buffers())
    once = tickets.to_torch_prune("pruned", mlp())
    with pytest.raises(StructureMismatch, match=r"'0.weight' is not in the model"):
        tickets.to_torch_prune("pruned", once)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3, 3, bias=False)
        self.decode = nn.Linear(3, 3, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


def test_a_tied_parameter_is_masked_at_every_use_and_comes_back_as_one() -> None:
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(2, 3)
    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1]]).bool()
    weight = model.encode.weight.detach() * mask
    tickets = TicketSet([Ticket("a", {"encode.weight": mask})])
    pruned = tickets.to_torch_prune("a", model)
    torch.testing.assert_close(pruned(x), x @ weight.T @ weight.T)
    back = TicketSet.from_torch_prune(pruned, name="a")["a"]
    assert list(back.masks) == ["encode.weight"]
    assert torch.equal(back.masks["encode.weight"], mask)
    assert back.state == {}


def test_a_tied_parameter_under_two_masks_is_refused() -> None:
    model = TicketSet([Ticket("a", {"encode.weight": torch.eye(3).bool()})]).to_torch_prune(
        "a", Tied()
    )
    model.decode.weight_mask.fill_(1)
    with pytest.raises(InvalidTicket, match=r"'encode.weight' and 'decode.weight' are one tied"):
        TicketSet.from_torch_prune(model)


def test_a_tied_parameter_that_is_pruned_at_one_use_only_is_refused() -> None:
    model = Tied()
    prune.custom_from_mask(model.decode, "weight", torch.eye(3))
    with pytest.raises(InvalidTicket, match=r"'decode.weight' is pruned, but not .* 'encode"):
        TicketSet.from_torch_prune(model)


def test_a_layer_used_twice_is_masked_once() -> None:
    layer = nn.Linear(3, 3, bias=False)
    weight = layer.weight.detach() * torch.eye(3)
    tickets = TicketSet([Ticket("a", {"0.weight": torch.eye(3).bool()})])
    pruned = tickets.to_torch_prune("a", nn.Sequential(layer, layer))
    x = torch.randn(2, 3)
    torch.testing.assert_close(pruned(x), x @ weight.T @ weight.T)
    assert list(TicketSet.from_torch_prune(pruned).shapes) == ["0.weight"]


def test_private_parameters_are_installed() -> None:
    masks = {"0.weight": torch.ones(8, 5, dtype=torch.bool)}
    tickets = TicketSet([Ticket("a", masks, {"4.bias": torch.full((3,), 7.0)})])
    torch.testing.assert_close(
        tickets.to_torch_prune("a", mlp())[4].bias.detach(), torch.full((3,), 7.0)
    )


def test_training_the_exported_model_moves_only_kept_weights() -> None:
    torch.manual_seed(0)
    tickets = TicketSet.from_torch_prune(pruned_copy(conv_net(), 3))
    model = tickets.to_torch_prune("pruned", conv_net())
    before = model[0].weight_orig.detach().clone()
    model(conv_net_input()).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    moved = model[0].weight_orig.detach() != before
    assert torch.equal(moved, tickets["pruned"].masks["0.weight"])
