"""Pruners of NNI and networks for benchmarks/nni_matrix.py, and what must hold of every pair."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import nni
import torch
import torchvision
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
from nni.compression.utils.evaluator import TorchEvaluator
from torch import nn

import rtl_plugin as rtl
from rtl_nni import RTLPruner, torch_evaluators
from rtl_nni.group_evaluators import train_on
from rtl_plugin.errors import RtlError

GROUPS = ("a", "b", "c")
RATIO, ROUNDS, STEPS, BATCH, CLASSES = 0.5, 2, 4, 8, 4
CHECKS = ("ratios", "unchanged", "accepted", "as NNI")
Masks = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Network:
    """A network, the shape of a sample, and what its NNI configuration selects."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of pruner: ``make(model, config, evaluator)``, and whether it trains by itself."""

    make: Callable[..., Any]
    trains: bool = True
    norms_only: bool = False


class Encoder(nn.Module):
    """Two transformer encoder layers between an embedding of tokens and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def small_cnn() -> nn.Module:
    """Three convolutions with batch norm."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * 4, CLASSES))


def mlp() -> nn.Module:
    """Three linear layers, no norm."""
    return nn.Sequential(
        nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, CLASSES)
    )


def zoo(name: str) -> nn.Module:
    """A network of torchvision with random weights."""
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)


CONVOLUTIONS = {"op_types": ["Conv2d"]}
NETWORKS = {
    "small CNN": Network(small_cnn, (3, 32, 32), CONVOLUTIONS),
    "resnet18": Network(partial(zoo, "resnet18"), (3, 32, 32), CONVOLUTIONS),
    "mobilenet_v2": Network(partial(zoo, "mobilenet_v2"), (3, 32, 32), CONVOLUTIONS),
    "MLP": Network(mlp, (12,), {"op_types": ["Linear"], "exclude_op_names": ["4"]}),
    "transformer encoder": Network(
        Encoder, (6, 8), {"op_names_re": [r"embed", r"encoder\.layers\.\d\.linear\d"]}
    ),
}


def _taylor(steps: int, model: nn.Module, config: Any, evaluator: Any) -> Any:
    return TaylorPruner(model, config, evaluator, training_steps=steps)


def _slim(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return SlimPruner(model, config, evaluator, training_steps=STEPS)


def _movement(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return MovementPruner(model, config, evaluator, warmup_step=1, cooldown_begin_step=STEPS)


def _linear(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return LinearPruner(L1NormPruner(model, config, evaluator), STEPS // 2, 2)


def _agp(model: nn.Module, config: Any, evaluator: Any) -> Any:
    return AGPPruner(_taylor(STEPS // 2, model, config, evaluator), STEPS // 2, 2)


KINDS = {
    "Level": Kind(LevelPruner, trains=False),
    "L1Norm": Kind(L1NormPruner, trains=False),
    "L2Norm": Kind(L2NormPruner, trains=False),
    "FPGM": Kind(FPGMPruner, trains=False),
    "Slim": Kind(_slim, norms_only=True),
    "Taylor": Kind(partial(_taylor, STEPS)),
    "Movement": Kind(_movement),
    "Linear(L1Norm)": Kind(_linear),
    "AGP(Taylor)": Kind(_agp),
}


def config_of(kind: Kind, network: Network) -> list[dict[str, Any]]:
    """What a user writes for the pair."""
    layers = {"op_types": ["BatchNorm2d"]} if kind.norms_only else dict(network.layers)
    return [{**copy.deepcopy(layers), "sparse_ratio": RATIO}]


def loss(batch: Any, model: nn.Module) -> torch.Tensor:
    """A training step of NNI."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def sgd(params: Any) -> Any:
    """Traced, as NNI wants it."""
    return nni.trace(torch.optim.SGD)(params, lr=0.1, momentum=0.9)


def batches(network: Network, group: str) -> list[Any]:
    """Three batches, other ones for every group."""
    generator = torch.Generator().manual_seed(GROUPS.index(group))
    return [
        (
            torch.randn(BATCH, *network.shape, generator=generator),
            torch.randint(CLASSES, (BATCH,), generator=generator),
        )
        for _ in range(3)
    ]


def check_pair(pruner: str, name: str) -> dict[str, Any]:
    """One pair: what NNI alone does with it, and everything that must hold of our run."""
    kind, network = KINDS[pruner], NETWORKS[name]
    torch.manual_seed(0)
    model = network.build()
    row: dict[str, Any] = {"pruner": pruner, "network": name, "asked": RATIO, "achieved": None}
    row |= {"tickets": len(GROUPS), "distinct": None, "checks": dict.fromkeys(CHECKS)}
    alone = nni_alone(kind, network, copy.deepcopy(model))
    row |= {"supported": bool(alone), "error": "", "seconds": None}
    try:
        checks, found = _checked(kind, network, model, alone)
    except RtlError as error:
        row["error"] = f"{type(error).__name__}: {error}"
        return row
    return {**row, "checks": checks, **found}


def _checked(kind: Kind, network: Network, model: nn.Module, alone: Masks) -> Any:
    before = fingerprint(model)
    loaders = {group: batches(network, group) for group in GROUPS}
    schedule = rtl.GeometricSchedule(RATIO, rounds=ROUNDS)
    pruner = wrapped(kind, network, model, loaders, schedule)
    began = time.thread_time()
    _, masks = pruner.compress()
    found = {
        "seconds": round(time.thread_time() - began, 2),
        "achieved": [row.achieved for row in pruner.report.rows if row.round == ROUNDS],
        "distinct": distinct(list(masks.values())),
    }
    checks = {
        "ratios": all(map(as_asked, masks.values())),
        "unchanged": same_model(before, fingerprint(model)),
        "accepted": all(accepted(kind, network, model, one) for one in masks.values()),
        "as NNI": as_nni(kind, network, copy.deepcopy(model), alone),
    }
    return checks, found


def wrapped(kind: Kind, network: Network, model: nn.Module, loaders: Any, schedule: Any) -> Any:
    """Ours around a kind of pruner; classes are passed as they are."""
    evaluators = torch_evaluators(model, loaders, loss, sgd)
    return RTLPruner(
        model, config_of(kind, network), pruner=kind.make, evaluators=evaluators,
        schedule=schedule, steps=STEPS, progress=False,
    )  # fmt: skip


def nni_alone(kind: Kind, network: Network, model: nn.Module) -> Masks:
    """The masks of one pruner that nothing of ours has touched; none where it matches nothing."""
    loop = partial(train_on, loader=batches(network, "a"))
    evaluator = TorchEvaluator(loop, sgd(model.parameters()), loss)
    torch.manual_seed(1)
    pruner = kind.make(model.train(), config_of(kind, network), evaluator)
    if not kind.trains:
        evaluator.bind_model(model, pruner._get_param_names_map())
        evaluator.train(STEPS, None)
        evaluator.unbind_model()
    counts_itself = not kind.trains or hasattr(pruner, "training_steps")
    _, masks = pruner.compress(None, None) if counts_itself else pruner.compress(STEPS, None)
    return dict(masks)


def as_nni(kind: Kind, network: Network, model: nn.Module, alone: Masks) -> bool:
    """One group, one round: bit for bit the masks of NNI alone."""
    torch.manual_seed(1)
    pruner = wrapped(kind, network, model, {"a": batches(network, "a")}, None)
    return same_masks(pruner.compress()[1]["a"], alone)


def as_asked(masks: Masks) -> bool:
    """Whether every layer lost what NNI's rounding makes of the ratio: rows, or single weights."""
    for targets in masks.values():
        weight = targets["weight"]
        rows = weight.flatten(1) if weight.dim() > 1 else weight.reshape(-1, 1)
        whole = bool((rows == rows[:, :1]).all())
        blocks = rows[:, 0] if whole else rows.flatten()
        if int((blocks == 0).sum()) != int(blocks.numel() * RATIO):
            return False
    return True


def accepted(kind: Kind, network: Network, model: nn.Module, masks: Masks) -> bool:
    """A fresh NNI pruner takes the masks, and computes what the masked weights compute."""
    copied, plain = copy.deepcopy(model).eval(), copy.deepcopy(model).eval()
    evaluator = TorchEvaluator(train_on, sgd(copied.parameters()), loss)
    pruner = kind.make(copied, config_of(kind, network), evaluator)
    pruner.update_masks(masks)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            module, _, target = name.rpartition(".")
            mask = masks.get(module, {}).get(target)
            parameter.mul_(1 if mask is None else mask)
    x = batches(network, "a")[0][0]
    equal = torch.allclose(copied(x), plain(x), rtol=1e-4, atol=1e-5)
    return equal and same_masks(pruner.get_masks(), masks)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """What must not change: values, objects, modes, hooks."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "objects": {name: id(p) for name, p in model.named_parameters()},
        "modes": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def same_model(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two fingerprints are of a model that nothing happened to."""
    same = all(before[key] == after[key] for key in ("objects", "modes", "attributes"))
    values = before["values"]
    return (
        same
        and set(values) == set(after["values"])
        and all(torch.equal(value, after["values"][name]) for name, value in values.items())
    )


def distinct(masks: list[Masks]) -> int:
    """Number of different tickets."""
    return sum(
        not any(same_masks(one, other) for other in masks[:k]) for k, one in enumerate(masks)
    )


def same_masks(first: Masks, second: Masks) -> bool:
    """Bit for bit, and the same names."""
    return _names(first) == _names(second) and all(
        torch.equal(mask.bool(), second[module][target].bool())
        for module, targets in first.items()
        for target, mask in targets.items()
        if mask is not None
    )


def _names(masks: Masks) -> dict[str, set[str]]:
    return {m: {t for t, mask in own.items() if mask is not None} for m, own in masks.items()}
