"""Everything about a model that the NNI integration must leave as it was."""

from typing import Any

import torch
from torch import nn

from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.randomness import forked
from tests.nni.networks import Network


def hook(*_: Any) -> None:
    """Changes nothing."""


def used(network: Network) -> nn.Module:
    """A model with a past: gradients, hooks, one layer in eval mode, one frozen bias."""
    model = network.build()
    with forked(2):
        model(network.inputs(4)).sum().backward()
    model.train()
    leaves = [module for module in model.modules() if not list(module.children())]
    leaves[1].eval()
    leaves[0].register_forward_hook(hook)
    leaves[0].register_forward_pre_hook(hook)
    last = [p for p in model.parameters() if p.dim() == 1][-1]
    last.requires_grad_(False)
    last.grad = None
    return model


def traits_of(model: nn.Module) -> dict[str, Any]:
    """Objects, names, order, modes, gradients, hooks and attributes: all but values."""
    return {
        "parameters": {name: id(p) for name, p in model.named_parameters()},
        "order": [name for name, _ in model.named_parameters()],
        "state": list(model.state_dict()),
        "buffers": {name: id(b) for name, b in model.named_buffers()},
        "modules": [name for name, _ in model.named_modules()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": {name: id(p.grad) for name, p in model.named_parameters()},
        "hooks": [
            [list(getattr(module, table)) for table in ("_forward_hooks", "_forward_pre_hooks")]
            for module in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def values_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters, buffers and gradients."""
    gradients = {f"{n}.grad": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {n: v.detach().clone() for n, v in {**model.state_dict(), **gradients}.items()}


class Before:
    """A model's traits and values at a moment, to be held against later ones."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.traits, self.values = model, traits_of(model), values_of(model)

    def check(self) -> None:
        """Fail where anything differs now."""
        present = traits_of(self.model)
        for trait, value in self.traits.items():
            assert present[trait] == value, trait
        values = values_of(self.model)
        assert list(values) == list(self.values)
        for name, value in self.values.items():
            assert bit_equal(values[name], value), name
