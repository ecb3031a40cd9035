"""A task so small that the command line can compare it in a second."""

import torch
from torch import nn

from rtl_plugin import DataGroups
from rtl_plugin.tasks import ComparisonTask


def build_model(seed: int = 0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def batches(shift: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(int(shift)))
    return [(part + shift, (part.sum(dim=1) > 0).long()) for part in x]


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, 0.02)


def task() -> ComparisonTask:
    data = {"low": batches(0), "high": batches(3)}
    groups = DataGroups.from_loaders(data, validation=data, test=data)
    return ComparisonTask("toy", build_model, groups, loss, adam)


READY = task()
NO_TASK = 3


def needs_a_seed(seed: int) -> ComparisonTask:
    return task()


def fails() -> ComparisonTask:
    raise TypeError("a fault in the task itself")
