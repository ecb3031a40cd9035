"""Regression and one-vs-rest through compare, on problems whose outcome is known."""

from typing import Any

import numpy as np
import torch
from torch import nn

import rtl_plugin as rtl
from tests.baselines.test_protocols import error, method
from tests.baselines.tiny import adam


def regression() -> rtl.DataGroups:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, 3, generator=generator)
    data = {
        "sum": [(part, part.sum(dim=1, keepdim=True)) for part in x],
        "first": [(part, part[:, :1]) for part in x],
    }
    return rtl.DataGroups.from_loaders(data, test=data)


def test_regression_from_end_to_end() -> None:
    comparison = rtl.compare(
        lambda seed: nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1)),
        regression(),
        lambda model, data: error(model, data).square().mean(),
        schedule=rtl.OneShotSchedule(0.25),
        steps=5,
        epochs=30,
        optimizer=adam,
        methods=["adaptive tickets", "IMP multiple", "dense"],
        seeds=[0],
        protocol=rtl.protocols.MeanOfMetric(error, "error in K", higher_is_better=False),
    )
    means = {r["method"]: r["mean"] for r in comparison.rows if r["metric"] == "error in K"}
    # One model that is not told the group cannot tell "sum" from "first".
    assert means["IMP multiple"] < means["adaptive tickets"] < means["dense"]
    assert "error in K" in comparison.table()
    assert comparison.headline == "error in K"


class Blobs(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Three classes around three corners."""

    def __init__(self, count: int = 240) -> None:
        generator = torch.Generator().manual_seed(0)
        self.targets = (torch.arange(count) % 3).tolist()
        corners = 3.0 * torch.eye(3)[torch.tensor(self.targets)]
        self.x = corners + torch.randn(count, 3, generator=generator)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], self.targets[index]


def detector(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 1))


def detector_loss(model: Any, data: Any) -> torch.Tensor:
    logits = model(data[0]).squeeze(1)
    return nn.functional.binary_cross_entropy_with_logits(logits, data[1])


def classifier(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 3))


def classifier_loss(model: Any, data: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(data[0]), data[1])


def test_one_vs_rest_from_labels_with_a_multi_class_rival() -> None:
    groups = rtl.DataGroups.from_labels(Blobs(), batch_size=16)
    comparison = rtl.compare(
        detector,
        groups,
        detector_loss,
        schedule=rtl.OneShotSchedule(0.3),
        steps=10,
        epochs=8,
        optimizer=adam,
        seeds=[0, 1],
        protocol=rtl.protocols.OneVsRest(),
        single=rtl.SingleModel(classifier, classifier_loss),
    )
    rows = {(row["method"], row["metric"]): row for row in comparison.rows}
    methods = list(dict.fromkeys(row["method"] for row in comparison.rows))
    assert methods == [
        *("adaptive tickets", "IMP single", "IMP multiple"),
        *("dense", "random tickets", "shared statistics"),
    ]
    assert comparison.headline == "balanced accuracy"
    for name in methods:
        assert rows[name, "accuracy"]["mean"] > 0.8, name
        assert rows[name, "balanced accuracy"]["mean"] > 0.8, name
    # 36 prunable weights at 30 %: 25 a ticket; the rival's are its own network's.
    assert rows["IMP single", "accuracy"]["parameters"] == 25
    assert rows["IMP multiple", "accuracy"]["parameters"] == 75
    assert rows["dense", "accuracy"]["parameters"] == 36


def test_labels_and_columns_of_one_vs_rest_agree() -> None:
    """A perfect detector of each class scores perfectly: columns are in the groups' order."""
    groups = rtl.DataGroups.from_labels(Blobs(), batch_size=16)

    class Corner(nn.Module):
        def __init__(self, k: int) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor(float(k)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, int(self.k)] - 1.5

    metrics = rtl.protocols.OneVsRest().score(
        method({name: Corner(k) for k, name in enumerate(groups)}), groups, "test"
    )
    shuffled = rtl.protocols.OneVsRest().score(
        method({name: Corner((k + 1) % 3) for k, name in enumerate(groups)}), groups, "test"
    )
    assert metrics["accuracy"] > 0.9
    assert shuffled["accuracy"] < 0.3
    assert not np.isnan(list(metrics.values())).any()
