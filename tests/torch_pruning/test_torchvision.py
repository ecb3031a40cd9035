"""Parity with the host on torchvision's networks."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from rtl_plugin.randomness import forked
from tests.torch_pruning.setups import assert_parity

LOCAL: dict[str, Any] = {"pruning_ratio": 0.5}
GLOBAL: dict[str, Any] = {"pruning_ratio": 0.4, "global_pruning": True, "max_pruning_ratio": 0.7}
ISOMORPHIC: dict[str, Any] = {**GLOBAL, "isomorphic": True}
ROUNDED: dict[str, Any] = {"pruning_ratio": 0.3, "round_to": 8}

CASES = [
    ("resnet18", 32, LOCAL, 3),
    ("resnet18", 32, GLOBAL, 1),
    ("resnet18", 32, ISOMORPHIC, 1),
    ("mobilenet_v2", 32, GLOBAL, 3),
    ("mobilenet_v2", 32, ROUNDED, 1),
    ("resnext50_32x4d", 32, LOCAL, 1),
    ("convnext_tiny", 32, LOCAL, 1),
    ("squeezenet1_1", 64, GLOBAL, 3),
    ("squeezenet1_1", 64, LOCAL, 1),
    ("regnet_y_400mf", 32, LOCAL, 1),
    ("mobilenet_v3_small", 32, LOCAL, 3),
    ("mobilenet_v3_small", 32, GLOBAL, 1),
]


def built(name: str) -> nn.Module:
    settings = {"num_classes": 8, "weights": None}
    with forked(0):
        return getattr(torchvision.models, name)(**settings)


def outputs(model: nn.Module) -> list[nn.Module]:
    """The layers that give the classes."""
    found = [
        module
        for module in model.modules()
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == 8
        and isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return found[-1:]


@pytest.mark.parametrize(
    ("name", "size", "keywords", "rounds"),
    CASES,
    ids=[f"{name}-{list(given)[-1]}-{rounds}" for name, _, given, rounds in CASES],
)
def test_torchvision(name: str, size: int, keywords: dict[str, Any], rounds: int) -> None:
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert_parity(built(name), inputs, lambda m: {"ignored_layers": outputs(m), **keywords}, rounds)
