"""The slow twin of a masked forward pass, and a check that a model was left as it was."""

import copy

import torch
from torch import nn

from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters
from rtl_plugin.prunable import select_prunable


def random_masks(model: nn.Module, names: list[str] | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    parameters = dict(model.named_parameters())
    return {
        name: torch.rand(parameters[name].shape, generator=generator) > 0.5
        for name in names or select_prunable(model)
    }


def multiplied(model: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            reference.get_parameter(name).mul_(mask)
    return reference


def leaves_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}


def view_of(
    model: nn.Module,
    masks: dict[str, torch.Tensor],
    leaves: dict[str, torch.Tensor] | None = None,
    buffers: dict[str, torch.Tensor] | None = None,
) -> MaskedModel:
    own = leaves_of(model) if leaves is None else leaves
    mine = {n: b.clone() for n, b in model.named_buffers()} if buffers is None else buffers
    return MaskedModel(model, TensorSlots(model), mask_parameters(own, masks), mine)


def trace(model: nn.Module) -> dict[str, tuple[int, torch.Tensor]]:
    return {
        key: (id(tensor), tensor.detach().clone())
        for key, tensor in model.state_dict(keep_vars=True).items()
    }


def assert_no_trace(model: nn.Module, before: dict[str, tuple[int, torch.Tensor]]) -> None:
    after = trace(model)
    assert list(after) == list(before)
    for key, (identity, value) in before.items():
        assert after[key][0] == identity, key
        assert torch.equal(after[key][1], value), key
    for parameter in model.parameters():
        assert isinstance(parameter, nn.Parameter)
        assert parameter.grad is None
