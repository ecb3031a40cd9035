"""A task so small that the command line can compare it in a second."""

import dataclasses

import torch
from torch import nn

from rtl_plugin import DataGroups, SingleModel
from rtl_plugin.baselines.scoring import GroupedClassification
from rtl_plugin.tasks import ComparisonTask


def build_model(seed: int = 0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def wider(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


def batches(shift: float, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(seed))
    return [(part + shift, (part.sum(dim=1) > 0).long()) for part in x]


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, 0.02)


def task() -> ComparisonTask:
    splits = [{"low": batches(0, seed), "high": batches(3, seed)} for seed in range(3)]
    groups = DataGroups.from_loaders(splits[0], validation=splits[1], test=splits[2])
    return ComparisonTask("toy", build_model, groups, loss, adam)


def special() -> ComparisonTask:
    """With everything that a task may leave out."""
    protocol = GroupedClassification(predict=lambda model, batch: -model(batch[0]))
    single = SingleModel(wider, loss)
    return dataclasses.replace(task(), protocol=protocol, single=single, prunable=["0.weight"])


READY = task()
NO_TASK = 3


def needs_a_seed(seed: int) -> ComparisonTask:
    return task()


def fails() -> ComparisonTask:
    raise TypeError("a fault in the task itself")
