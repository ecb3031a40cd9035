"""A loss may ask what a layer is, and walk over the modules: it sees masked weights."""

import pytest
import torch
from torch import nn

from rtl_plugin.errors import UnmaskedAccess
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters


def masked(model: nn.Module, masks: dict[str, torch.Tensor]) -> MaskedModel:
    parameters = mask_parameters(dict(model.named_parameters()), masks)
    return MaskedModel(model, TensorSlots(model), parameters, {})


def penalty(model: nn.Sequential) -> torch.Tensor:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return torch.stack([layer.weight.abs().sum() for layer in layers]).sum()


def test_a_penalty_on_the_linear_layers_sees_their_masks() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1)))
    mask = torch.tensor([[True, False], [False, False], [True, True]])
    view = masked(model, {"0.weight": mask})
    expected = (model[0].weight * mask).abs().sum() + model[2][0].weight.abs().sum()
    torch.testing.assert_close(penalty(view), expected)
    assert bool(penalty(view) < penalty(model))


def test_the_model_and_its_children_are_of_their_classes() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    view = masked(model, {})
    assert isinstance(view, nn.Sequential)
    assert [type(child).__name__ for child in model.children()] == ["Linear", "ReLU"]
    assert [isinstance(child, nn.ReLU) for child in view.children()] == [False, True]
    assert [name for name, _ in view.named_modules()] == ["", "0", "1"]


def test_a_module_that_was_walked_to_may_not_run() -> None:
    view = masked(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), {})
    for child in (*view.children(), *(module for name, module in view.named_modules() if name)):
        with pytest.raises(UnmaskedAccess, match="would run weights without their masks"):
            child(torch.ones(1, 2))
