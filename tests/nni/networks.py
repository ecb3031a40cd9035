"""Networks, pruners and evaluators that the tests of the NNI integration share.

``SUPPORTED`` is the table of pairs (pruner, network) that NNI itself can run.
"""

import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nni
import torch
from nni.compression.pruning import (
    AGPPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    LinearPruner,
    MovementPruner,
    SlimPruner,
    TaylorPruner,
)
from nni.compression.pruning.basic_pruner import _NormPruner
from torch import nn
from torch.nn import functional as F

from rtl_nni import RTLPruner, torch_evaluators
from rtl_plugin.randomness import forked

CLASSES = 4
GROUPS = ("a", "b", "c")


def small_cnn() -> nn.Module:
    """Convolutions with batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES)
    )


def resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=CLASSES)


def mobilenet_v2() -> nn.Module:
    import torchvision

    return torchvision.models.mobilenet_v2(num_classes=CLASSES)


class Encoder(nn.Module):
    """A transformer encoder layer between an embedding of inputs and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


@dataclass(frozen=True)
class Network:
    """A network, inputs for it, and what its configuration selects."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: Mapping[str, Any]

    def build(self, seed: int = 0) -> nn.Module:
        with forked(seed):
            return self.make()

    def inputs(self, count: int) -> torch.Tensor:
        return torch.randn(count, *self.shape)

    def config(self, ratio: float = 0.5, **others: Any) -> list[dict[str, Any]]:
        return [{**copy.deepcopy(dict(self.layers)), "sparse_ratio": ratio, **others}]


CNN = Network("small_cnn", small_cnn, (1, 6, 6), {"op_types": ["Conv2d"]})
MLP = Network("mlp", mlp, (6,), {"op_types": ["Linear"], "exclude_op_names": ["4"]})
RESNET = Network("resnet18", resnet18, (3, 32, 32), {"op_types": ["Conv2d"]})
MOBILENET = Network("mobilenet_v2", mobilenet_v2, (3, 32, 32), {"op_types": ["Conv2d"]})
ENCODER = Network("encoder", Encoder, (5, 6), {"op_names": ["embed", "layer.linear1"]})


class MeanPruner(_NormPruner):  # type: ignore[misc]
    """A user's own metric: the distance of a channel's mean from zero."""

    def _calculate_metrics(self, data: Any) -> Any:
        return {
            module: {
                target: self._target_spaces[module][target]._scaler.shrink(
                    value, lambda block: block.mean(-1).abs(), keepdim=True
                )
                for target, value in targets.items()
            }
            for module, targets in data.items()
        }


@dataclass(frozen=True)
class Kind:
    """How to make one kind of pruner for a number of steps."""

    name: str
    source: Any
    options: Callable[[int], dict[str, Any]] = field(default=lambda steps: {})
    trains: bool = False  # by itself, inside compress()

    def made(self, model: nn.Module, config: Any, evaluator: Any, steps: int) -> Any:
        """The pruner as a user of NNI alone makes it."""
        options = self.options(steps)
        if isinstance(self.source, type):
            if self.name in ("slim", "taylor"):
                options["training_steps"] = steps
            return self.source(model, config, evaluator, **options)
        return self.factory(steps)(model, config, evaluator)

    def factory(self, steps: int) -> Any:
        return lambda model, config, evaluator: self.source(model, config, evaluator, steps)

    def arguments(self, steps: int) -> dict[str, Any]:
        """For RTLPruner."""
        if isinstance(self.source, type):
            return {"pruner": self.source, "pruner_options": self.options(steps), "steps": steps}
        return {"pruner": self.factory(steps), "steps": steps}


def _linear(model: nn.Module, config: Any, evaluator: Any, steps: int) -> Any:
    return LinearPruner(L1NormPruner(model, config, evaluator), max(1, steps // 2), 2)


def _agp_taylor(model: nn.Module, config: Any, evaluator: Any, steps: int) -> Any:
    interval = max(1, steps // 2)
    return AGPPruner(TaylorPruner(model, config, evaluator, training_steps=interval), interval, 2)


LEVEL = Kind("level", LevelPruner)
L1 = Kind("l1", L1NormPruner)
L2 = Kind("l2", L2NormPruner)
FPGM = Kind("fpgm", FPGMPruner)
SLIM = Kind("slim", SlimPruner, trains=True)
TAYLOR = Kind("taylor", TaylorPruner, trains=True)
MOVEMENT = Kind(
    "movement",
    MovementPruner,
    lambda steps: {"warmup_step": 0, "cooldown_begin_step": steps},
    trains=True,
)
LINEAR = Kind("linear_l1", _linear, trains=True)
AGP = Kind("agp_taylor", _agp_taylor, trains=True)
OWN = Kind("own", MeanPruner)
KINDS = (LEVEL, L1, L2, FPGM, SLIM, TAYLOR, MOVEMENT, LINEAR, AGP, OWN)


NETWORKS = (CNN, RESNET, MOBILENET, MLP, ENCODER)
_NORMALISED = (CNN, RESNET, MOBILENET)

# NNI runs every pruner on every network; Slim is documented for the scales of batch norm, so a
# network without any does not fit it.
SUPPORTED = {
    (kind.name, network.name): kind is not SLIM or network in _NORMALISED
    for kind in KINDS
    for network in NETWORKS
}


def config_of(kind: Kind, network: Network, ratio: float = 0.5) -> list[dict[str, Any]]:
    """What a user of this pruner would write for the network."""
    if kind is SLIM:
        return [{"op_types": ["BatchNorm2d"], "sparse_ratio": ratio}]
    return network.config(ratio)


def batches(network: Network, name: str, count: int = 3, size: int = 8) -> list[Any]:
    """Batches of (inputs, labels), always the same for a name."""
    with forked(zlib.crc32(name.encode())):
        return [(network.inputs(size), torch.randint(CLASSES, (size,))) for _ in range(count)]


def cross_entropy(batch: Any, model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def sgd(parameters: Any) -> Any:
    return nni.trace(torch.optim.SGD)(parameters, lr=0.2, momentum=0.9)


def adam(parameters: Any) -> Any:
    return nni.trace(torch.optim.Adam)(parameters, lr=0.02)


def evaluators_of(
    network: Network, model: nn.Module, groups: Sequence[str] = GROUPS, **others: Any
) -> dict[str, Any]:
    """One evaluator a group, over batches of its own."""
    settings: dict[str, Any] = {"training_step": cross_entropy, "optimizer": sgd, **others}
    loaders = settings.pop("loaders", None) or {name: batches(network, name) for name in groups}
    return torch_evaluators(model, loaders, **settings)


def pruner_of(
    network: Network, model: nn.Module, kind: Kind = L1, steps: int = 4, **others: Any
) -> RTLPruner:
    """An RTLPruner over three groups, unless told otherwise."""
    settings: dict[str, Any] = {**kind.arguments(steps), "progress": False, **others}
    config = settings.pop("config", None) or network.config()
    groups = settings.pop("names", GROUPS)
    if "epochs" in others:
        settings.pop("steps")
    if "evaluators" not in settings:
        settings["evaluators"] = evaluators_of(network, model, groups)
    return RTLPruner(model, config, **settings)


def same_masks(first: Any, second: Any) -> bool:
    """Bit for bit, and the same names."""
    return set(first) == set(second) and all(
        set(targets) == set(second[module])
        and all(_same(mask, second[module][target]) for target, mask in targets.items())
        for module, targets in first.items()
    )


def _same(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    return bool(torch.equal(first, second.expand_as(first)))
