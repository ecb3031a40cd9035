"""Small networks with their couplings written down by hand, and masking by plain loops.

The couplings are what the tests hold the dependency graph to, so nothing here asks it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from rtl_plugin.randomness import forked

Masks = dict[str, dict[str, torch.Tensor | None]]


@dataclass(frozen=True)
class Coupling:
    """Layers whose output channel c is one channel, and the norms that it passes.

    Args:
        producers: names of layers.
        norms: name -> the norm's number of channel 0.
        exact: it can be cut without changing more than the norms explain.
    """

    producers: tuple[str, ...]
    norms: dict[str, int]
    exact: bool = True


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    couplings: tuple[Coupling, ...]

    def __str__(self) -> str:
        return self.name

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
        """With affine parameters and statistics of norms that are not those of a new network."""
        with forked(seed):
            model = self.make()
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                        module.weight.uniform_(0.5, 1.5)
                        module.bias.normal_()
                        assert module.running_mean is not None
                        assert module.running_var is not None
                        module.running_mean.normal_()
                        module.running_var.uniform_(0.5, 1.5)
        return model.to(dtype)

    def inputs(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        with forked(7):
            return torch.randn(self.shape).to(dtype)


def random_masks(case: Case, model: nn.Module, seed: int = 0, disagree: float = 0.0) -> Masks:
    """Whole channels masked alike in coupled layers, a few of them not in the first one."""
    masks: Masks = {}
    with forked(seed + 100):
        for coupling in case.couplings:
            width = channels_of(model.get_submodule(coupling.producers[0]))
            gone = torch.rand(width) < 0.5
            gone[int(torch.randint(width, (1,)))] = True
            gone[int(torch.randint(width, (1,)))] = False
            for place, name in enumerate(coupling.producers):
                back = (torch.rand(width) < disagree) & torch.tensor(place == 0)
                masks[name] = masked_layer(model.get_submodule(name), gone & ~back)
    return masks


def masked_layer(layer: nn.Module, gone: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """An NNI mask of one layer without some output channels."""
    weight, bias = torch.ones_like(layer.weight), None
    weight[gone] = 0
    if getattr(layer, "bias", None) is not None:
        bias = torch.ones_like(layer.bias)
        bias[gone] = 0
    return {"weight": weight, "bias": bias}


def channels_of(layer: nn.Module) -> int:
    return int(layer.weight.shape[0])


def dead_by_loops(model: nn.Module, masks: Masks, coupling: Coupling) -> list[int]:
    dead = []
    for channel in range(channels_of(model.get_submodule(coupling.producers[0]))):
        everywhere = True
        for name in coupling.producers:
            layer, targets = model.get_submodule(name), masks.get(name, {})
            weight, bias = targets.get("weight"), targets.get("bias")
            if weight is None or bool((weight.expand_as(layer.weight)[channel] != 0).any()):
                everywhere = False
            if getattr(layer, "bias", None) is not None and (bias is None or bias[channel] != 0):
                everywhere = False
        if everywhere:
            dead.append(channel)
    return dead


def completed_by_loops(case: Case, model: nn.Module, masks: Masks) -> dict[str, tuple[int, ...]]:
    """Norm -> channels that have to be masked for the cut to be exact."""
    norms: dict[str, set[int]] = {}
    for coupling in case.couplings:
        if coupling.exact:
            for channel in dead_by_loops(model, masks, coupling):
                for name, first in coupling.norms.items():
                    norms.setdefault(name, set()).add(first + channel)
    return {name: tuple(sorted(channels)) for name, channels in norms.items()}


def masked_by_loops(
    model: nn.Module, masks: Masks, completed: dict[str, tuple[int, ...]]
) -> nn.Module:
    masked = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, targets in masks.items():
            for target, mask in targets.items():
                if mask is not None:
                    parameter = getattr(masked.get_submodule(name), target)
                    parameter.copy_(torch.where(mask != 0, parameter, torch.zeros_like(parameter)))
        for name, channels in completed.items():
            norm = masked.get_submodule(name)
            for channel in channels:
                norm.weight[channel] = 0
                norm.bias[channel] = 0
    return masked


class Tail(nn.Module):
    """Parts in a row, averaged over space where there is any, and a head."""

    def __init__(self, *parts: nn.Module, width: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.parts(x)
        return self.head(x.mean(dim=(2, 3)) if x.dim() == 4 else x)


def cnn() -> nn.Module:
    first = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return Tail(*first, nn.Conv2d(8, 10, 3, bias=False), nn.BatchNorm2d(10), nn.GELU(), width=10)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.up, self.inner = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.down, self.outer = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(x + self.outer(self.down(torch.relu(self.inner(self.up(x))))))
        return self.head(x.mean(dim=(2, 3)))


def depthwise() -> nn.Module:
    first = [nn.Conv2d(2, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    middle = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish()]
    return Tail(*first, *middle, nn.Conv2d(8, 6, 1), nn.ReLU(), width=6)


class Concatenated(nn.Module):
    """A norm over a concatenation, and its output concatenated again."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 5, 1)
        self.bn = nn.BatchNorm2d(11)
        self.after = nn.Conv2d(11, 7, 1)
        self.head = nn.Linear(18, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(torch.cat([self.left(x), self.right(x)], dim=1)))
        return self.head(torch.cat([x, self.after(x)], dim=1).mean(dim=(2, 3)))


def mlp() -> nn.Module:
    return Tail(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8, bias=False), nn.SiLU(), width=8)


def mlp_norm() -> nn.Module:
    return Tail(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), width=9)


def flat() -> nn.Module:
    parts = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 7)]
    return Tail(*parts, nn.BatchNorm1d(7), nn.ReLU(), width=7)


def sigmoid() -> nn.Module:
    """Only behind the first layer a masked channel is not zero; the norm saves the second one."""
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.Sigmoid()]
    second = [nn.Conv2d(6, 8, 1), nn.Sigmoid(), nn.BatchNorm2d(8)]
    return Tail(*first, *second, nn.Conv2d(8, 5, 1), nn.ReLU(), width=5)


def layer_norm() -> nn.Module:
    return Tail(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), width=10)


def group_norm() -> nn.Module:
    first = [nn.Conv2d(2, 8, 1), nn.GroupNorm(2, 8), nn.ReLU()]
    return Tail(*first, nn.Conv2d(8, 10, 1), nn.ReLU(), width=10)


class Shared(nn.Module):
    """One layer used twice, so that its output is also its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.twice = nn.Linear(8, 8)
        self.last = nn.Linear(8, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.head(torch.relu(self.last(x)))


def frozen() -> nn.Module:
    model = cnn()
    for parameter in model.get_submodule("parts.0").parameters():
        parameter.requires_grad_(False)
    return model


IMAGE, ROW = (3, 2, 5, 5), (3, 6)
CNN = Case(
    "cnn",
    cnn,
    IMAGE,
    (Coupling(("parts.0",), {"parts.1": 0}), Coupling(("parts.3",), {"parts.4": 0})),
)
RESIDUAL = Case(
    "residual",
    Residual,
    IMAGE,
    (Coupling(("stem", "down"), {"bn": 0, "outer": 0}), Coupling(("up",), {"inner": 0})),
)
SIGMOID = Case(
    "sigmoid",
    sigmoid,
    IMAGE,
    (
        Coupling(("parts.0",), {}, exact=False),
        Coupling(("parts.2",), {"parts.4": 0}),
        Coupling(("parts.5",), {}),
    ),
)
LAYER_NORM = Case(
    "layer_norm",
    layer_norm,
    ROW,
    (Coupling(("parts.0",), {}, exact=False), Coupling(("parts.3",), {})),
)
GROUP_NORM = Case(
    "group_norm",
    group_norm,
    IMAGE,
    (Coupling(("parts.0",), {}, exact=False), Coupling(("parts.3",), {})),
)
CONCATENATED = Case(
    "concatenated",
    Concatenated,
    IMAGE,
    (Coupling(("left",), {"bn": 0}), Coupling(("right",), {"bn": 6}), Coupling(("after",), {})),
)
DEPTHWISE = Case(
    "depthwise",
    depthwise,
    IMAGE,
    (Coupling(("parts.0", "parts.3"), {"parts.1": 0, "parts.4": 0}), Coupling(("parts.6",), {})),
)
CASES = (
    CNN,
    RESIDUAL,
    DEPTHWISE,
    CONCATENATED,
    SIGMOID,
    LAYER_NORM,
    GROUP_NORM,
    Case("mlp", mlp, ROW, (Coupling(("parts.0",), {}), Coupling(("parts.2",), {}))),
    Case("mlp_norm", mlp_norm, ROW, (Coupling(("parts.0",), {"parts.1": 0}),)),
    Case(
        "flat",
        flat,
        IMAGE,
        (Coupling(("parts.0",), {"parts.1": 0}), Coupling(("parts.4",), {"parts.5": 0})),
    ),
    Case("shared", Shared, ROW, (Coupling(("first", "twice"), {}), Coupling(("last",), {}))),
    Case("frozen", frozen, IMAGE, CNN.couplings),
)
