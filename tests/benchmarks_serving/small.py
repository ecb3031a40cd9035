"""Networks that stand in for those of the serving benchmark, so that all of it runs in seconds."""

import pytest
from torch import nn

from benchmarks.serving_networks import MLP, NETWORKS, POINTWISE, RESNET, Network


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), head())


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(),
    )  # fmt: skip


def head() -> nn.Module:
    return nn.Linear(64, 10)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, MLP, Network(dense, (16,)))
    for name in (RESNET, POINTWISE):
        monkeypatch.setitem(NETWORKS, name, Network(convolutions, (3, 8, 8)))
