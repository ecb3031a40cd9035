"""A comparison so small that its counts can be checked by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from rtl_plugin import DataGroups, GeometricSchedule
from rtl_plugin.baselines.seed_run import SeedRun
from rtl_plugin.baselines.settings import TrainingSettings

ROWS, WIDTH, HIDDEN, CLASSES = 8, 4, 6, 2
PRUNABLE = WIDTH * HIDDEN + HIDDEN * HIDDEN  # 24 + 36
RECIPE = {"schedule": GeometricSchedule(0.5, rounds=2), "steps": 3, "epochs": 2}


def build_model(seed: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )


def batches(count: int, shift: float, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, ROWS, WIDTH, generator=generator)
    return [(part + shift, (part.sum(dim=1) > 0).long()) for part in x]


def groups(**changed: Any) -> DataGroups:
    """Two groups of shifted inputs; the second has two batches against three."""
    train = {"a": batches(3, 0.0, 1), "b": batches(2, 3.0, 2), **changed}
    held_out = {"a": batches(2, 0.0, 3), "b": batches(3, 3.0, 4)}
    return DataGroups.from_loaders(train, validation=held_out, test=held_out)


def cross_entropy(model: Any, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, 0.02)


class Counting:
    """A loss that counts the samples and batches that go through it."""

    def __init__(self, loss: Callable[[Any, Any], torch.Tensor] = cross_entropy) -> None:
        self.loss = loss
        self.samples = 0
        self.batches = 0

    def __call__(self, model: Any, batch: Any) -> torch.Tensor:
        self.samples += len(batch[0])
        self.batches += 1
        return self.loss(model, batch)


def seed_run(seed: int = 0, data: DataGroups | None = None, **recipe: Any) -> SeedRun:
    settings = TrainingSettings(**{"optimizer": adam, **RECIPE, **recipe})
    return SeedRun(build_model, data or groups(), cross_entropy, settings, seed)
