"""A masked forward pass is the pass of a network whose weights were multiplied, and no trace stays.

The reference is a deep copy of the network with ``weight * mask`` written into it.
"""

import copy

import pytest
import torch
from torch import nn

from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters
from tests.core.masking import (
    assert_no_trace,
    leaves_of,
    multiplied,
    random_masks,
    trace,
    view_of,
)
from tests.models import ZOO, Network


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("network", ZOO, ids=str)
def test_outputs_buffers_and_gradients_are_those_of_multiplied_weights(
    network: Network, training: bool
) -> None:
    torch.manual_seed(0)
    model = network.build().double().train(training)
    masks = random_masks(model)
    reference = multiplied(model, masks)
    leaves = leaves_of(model)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    before = trace(model)
    x = network.inputs().double()
    masked = mask_parameters(leaves, masks)
    view = MaskedModel(model, TensorSlots(model), masked, buffers)

    out, expected = view(x), reference(x)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    out.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in reference.named_parameters():
        dense = parameter.grad * masks[name] if name in masks else parameter.grad
        torch.testing.assert_close(leaves[name].grad, dense, rtol=0, atol=1e-10, msg=name)
        if name in masks:
            assert leaves[name].grad.abs().sum() > 0, name
    own = dict(reference.named_buffers())
    torch.testing.assert_close(buffers, own, rtol=0, atol=1e-10)
    assert_no_trace(model, before)


@pytest.mark.parametrize("network", [n for n in ZOO if n.has_norm_statistics], ids=str)
def test_training_statistics_land_in_the_ticket_and_not_in_the_model(network: Network) -> None:
    torch.manual_seed(0)
    model = network.build()
    before = trace(model)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    view = view_of(model, random_masks(model), buffers=buffers)
    view(network.inputs())
    view(network.inputs())
    assert_no_trace(model, before)
    counts = [b for n, b in buffers.items() if n.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [2] * len(counts)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            assert not torch.equal(buffers[name], buffer), name


class Stubborn(nn.Module):
    """A forward that does to its buffers what batch norm does not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("cache", None)

    def forward(self, x: torch.Tensor, then: str = "") -> torch.Tensor:
        out = self.fc(x)
        self.steps = self.steps + out.sum()
        if then == "raise":
            raise RuntimeError("in the middle")
        if then == "cache":
            self.cache = out.detach()
        if then == "none":
            self.steps = None
        if then == "delete":
            del self.steps
        if then == "register":
            self.register_buffer("late", out.detach())
        if then == "rebind":
            self.fc.weight = nn.Parameter(torch.ones(2, 2))
        return out


def test_an_out_of_place_update_lands_in_the_ticket_without_its_graph() -> None:
    model = Stubborn()
    buffers = {"steps": torch.tensor(10.0)}
    view = view_of(model, random_masks(model, ["fc.weight"]), buffers=buffers)
    first = view(torch.ones(1, 2)).sum().detach()
    second = view(torch.ones(1, 2)).sum().detach()
    torch.testing.assert_close(buffers["steps"], 10 + first + second)
    assert not buffers["steps"].requires_grad
    torch.testing.assert_close(model.steps, torch.zeros(()))


@pytest.mark.parametrize("then", ["raise", "cache", "none", "delete", "register", "rebind"])
def test_the_model_has_its_own_tensors_back_whatever_its_forward_does(then: str) -> None:
    model = Stubborn()
    before = trace(model)
    buffers = {"steps": torch.zeros(())}
    view = view_of(model, random_masks(model, ["fc.weight"]), buffers=buffers)
    if then == "raise":
        with pytest.raises(RuntimeError, match="in the middle"):
            view(torch.ones(1, 2), then=then)
    else:
        view(torch.ones(1, 2), then)
    assert_no_trace(model, before)
    assert list(model._buffers) == ["steps", "cache"]
    assert model.cache is None
    assert buffers.keys() == {"steps"}
    assert isinstance(buffers["steps"], torch.Tensor)


@pytest.mark.parametrize(
    ("parameters", "buffers"),
    [({"nope": torch.ones(1)}, {}), ({"fc.weight": torch.ones(2, 2)}, {"nope": torch.ones(1)})],
)
def test_an_unknown_name_leaves_the_model_whole(
    parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]
) -> None:
    model = Stubborn()
    before = trace(model)
    with pytest.raises(KeyError, match="nope"), TensorSlots(model).holding(parameters, buffers):
        pass
    assert_no_trace(model, before)


def test_holding_nests() -> None:
    model = nn.Linear(1, 1, bias=False)
    own, slots, x = model.weight, TensorSlots(model), torch.ones(1, 1)
    with slots.holding({"weight": torch.full((1, 1), 2.0)}, {}):
        with slots.holding({"weight": torch.full((1, 1), 3.0)}, {}):
            assert model(x).item() == 3.0
        assert model(x).item() == 2.0
    assert model.weight is own


def test_mask_parameters_multiplies_the_masked_and_passes_the_others() -> None:
    parameters = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor([3.0])}
    result = mask_parameters(parameters, {"w": torch.tensor([False, True])})
    torch.testing.assert_close(result["w"], torch.tensor([0.0, -2.0]))
    assert result["b"] is parameters["b"]


def test_strict_loading_copying_and_training_go_on_afterwards() -> None:
    torch.manual_seed(0)
    model = ZOO[0].build()
    view_of(model, random_masks(model))(ZOO[0].inputs())
    twin = ZOO[0].build()
    twin.load_state_dict(copy.deepcopy(model).state_dict(), strict=True)
    model(ZOO[0].inputs()).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert model[0].weight.grad is not None
    assert not torch.equal(model[0].weight, twin[0].weight)
