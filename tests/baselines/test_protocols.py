"""Scoring a trained method: figures worked out by hand, and one-vs-rest from end to end."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.baselines.methods import TrainedMethod
from rtl_plugin.errors import InvalidGroups

Batch = tuple[torch.Tensor, torch.Tensor]


class Given(nn.Module):
    """The input is the output, so that a test writes logits down where images would be."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.sign


def method(predictors: Mapping[str, nn.Module], single: bool = False) -> TrainedMethod:
    return TrainedMethod("made up", predictors, 1, 1, single, ())


def batch(labels: list[int], logits: list[list[float]]) -> Batch:
    return torch.tensor(logits), torch.tensor(labels)


def loaders(test: Mapping[str, list[Batch]], validation: Any = None) -> rtl.DataGroups:
    return rtl.DataGroups.from_loaders(test, validation=validation or test, test=test)


A = [batch([0, 1], [[2.0, 0.0], [3.0, 0.0]]), batch([0], [[1.0, 0.5]])]  # right, wrong, right
B = [batch([1, 0, 1, 0], [[0.0, 9.0], [0.0, 1.0], [0.0, 1.0], [4.0, 0.0]])]  # r, w, r, r


def test_grouped_classification_by_hand() -> None:
    protocol = rtl.protocols.GroupedClassification()
    groups = loaders({"a": A, "b": B})
    metrics = protocol.score(method({"a": Given(), "b": Given()}), groups, "test")
    assert tuple(metrics) == protocol.metrics(groups)
    assert metrics["accuracy in a"] == pytest.approx(2 / 3)
    assert metrics["accuracy in b"] == pytest.approx(3 / 4)
    assert metrics["accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert metrics["worst group"] == pytest.approx(2 / 3)
    # All seven: class 0 has 4 samples, 3 found, 1 false alarm; class 1 has 3, 2 found, 1 false.
    assert metrics["recall"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert metrics["precision"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert metrics["balanced accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_every_group_is_scored_by_its_own_predictor() -> None:
    groups = loaders({"a": A, "b": B})
    metrics = rtl.protocols.GroupedClassification().score(
        method({"a": Given(-1.0), "b": Given()}), groups, "test"
    )
    assert metrics["accuracy in a"] == pytest.approx(1 / 3)
    assert metrics["accuracy in b"] == pytest.approx(3 / 4)


def test_thresholds_come_from_validation_and_the_figures_from_the_split_asked_for() -> None:
    # At its own threshold class 1 separates perfectly, though argmax never chooses it.
    shy = [batch([0, 0, 1, 1], [[5.0, 0.0], [6.0, 0.0], [2.0, 1.0], [2.5, 1.0]])]
    # Here the best threshold tells the third sample from all others: 1 of 3 found, no false alarm.
    flipped = [batch([1, 1, 1, 0], [[5.0, 0.0], [6.0, 0.0], [2.0, 1.0], [2.5, 1.0]])]
    protocol, trained = rtl.protocols.GroupedClassification(), method({"a": Given()})
    right = protocol.score(trained, loaders({"a": shy}), "test")
    assert right["accuracy"] == 0.5
    assert right["balanced accuracy"] == 0.5
    assert right["calibrated balanced accuracy"] == 1.0
    wrong = protocol.score(trained, loaders({"a": shy}, {"a": flipped}), "test")
    assert wrong["calibrated balanced accuracy"] == 0.75  # which finds 1 of 2 there
    assert wrong["accuracy"] == 0.5
    tuned = protocol.score(trained, loaders({"a": shy}, {"a": flipped}), "validation")
    assert tuned["calibrated balanced accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert tuned["accuracy"] == 0.25


def test_a_prediction_of_the_users_own() -> None:
    protocol = rtl.protocols.GroupedClassification(predict=lambda model, batch: -model(batch[0]))
    metrics = protocol.score(method({"a": Given()}), loaders({"a": A}), "test")
    assert metrics["accuracy"] == pytest.approx(1 / 3)


def detectors(
    outputs: list[list[float]], labels: list[int], validation_shift: float = 0.0
) -> rtl.DataGroups:
    """Groups 0..K-1, each against all, whose inputs are the detectors' logits [N, K]."""

    def split(shift: float) -> dict[str, list[Batch]]:
        columns = (torch.tensor(outputs) + shift).T
        return {
            str(k): [(column[:, None], torch.tensor([float(label == k) for label in labels]))]
            for k, column in enumerate(columns)
        }

    groups = loaders(split(0.0), split(validation_shift))
    pooled = [(torch.tensor(outputs), torch.tensor(labels))]
    both = rtl.DataGroup("all", train=pooled, validation=pooled, test=pooled)
    return rtl.DataGroups(groups.values(), pooled=both)


OUTPUTS = [[2.0, 1.0, -1.0], [-1.0, -2.0, -3.0], [1.0, 3.0, -1.0], [-1.0, -2.0, 5.0]]
LABELS = [0, 0, 1, 2]


def test_detectors_count_as_positive_above_zero() -> None:
    groups = detectors(OUTPUTS, LABELS)
    protocol = rtl.protocols.OneVsRest()
    metrics = protocol.score(method({name: Given() for name in groups}), groups, "test")
    assert tuple(metrics) == protocol.metrics(groups)
    # Class 0: found 1 of 2, false alarm 1 of 2. Class 1: 1 of 1, 1 of 3. Class 2: 1 of 1, none.
    assert metrics["recall"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert metrics["precision"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    balanced = [(1 / 2 + 1 / 2) / 2, (1 + 2 / 3) / 2, 1]
    assert metrics["balanced accuracy"] == pytest.approx(sum(balanced) / 3)
    assert metrics["accuracy"] == 1.0  # the highest logit is always the right one


def test_thresholds_of_detectors_come_from_validation_too() -> None:
    protocol = rtl.protocols.OneVsRest()
    found = {}
    for shift in (0.0, 100.0, -100.0):
        groups = detectors(OUTPUTS, LABELS, validation_shift=shift)
        trained = method({name: Given() for name in groups})
        found[shift] = protocol.score(trained, groups, "test")
    assert found[0.0]["calibrated balanced accuracy"] > 0.8
    # Thresholds near 100 call nothing positive, thresholds near -100 everything.
    assert found[100.0]["calibrated balanced accuracy"] == 0.5
    assert found[-100.0]["calibrated balanced accuracy"] == 0.5
    assert found[100.0]["balanced accuracy"] == found[0.0]["balanced accuracy"]


def test_the_single_model_counts_by_its_argmax() -> None:
    groups = detectors(OUTPUTS, LABELS)
    model = Given()
    trained = method(dict.fromkeys(groups, model), single=True)
    metrics = rtl.protocols.OneVsRest().score(trained, groups, "test")
    assert metrics["recall"] == metrics["precision"] == metrics["balanced accuracy"] == 1.0
    assert metrics["accuracy"] == 1.0


def test_detectors_on_different_samples_are_refused() -> None:
    x, ones, zeros = torch.zeros(2, 1), torch.ones(2), torch.zeros(2)
    trained = method({"a": Given(), "b": Given()})
    for split in (
        {"a": [(x, ones)], "b": [(x, ones)]},  # in both groups
        {"a": [(x, zeros)], "b": [(x, zeros)]},  # in none
        {"a": [(x, ones)], "b": [(x[:1], zeros[:1])]},  # of different length
    ):
        with pytest.raises(InvalidGroups, match=r"same samples in the same order, each in exactly"):
            rtl.protocols.OneVsRest().score(trained, loaders(split), "test")


def error(model: Any, data: Any) -> torch.Tensor:
    return (model(data[0]) - data[1]).abs()


def test_a_metric_is_a_mean_over_samples_then_over_groups() -> None:
    a = [(torch.tensor([1.0, 3.0]), torch.zeros(2)), (torch.tensor([8.0]), torch.zeros(1))]
    b = [(torch.tensor([2.0]), torch.zeros(1))]
    groups, trained = loaders({"a": a, "b": b}), method({"a": Given(), "b": Given()})
    lower = rtl.protocols.MeanOfMetric(error, "error in K", higher_is_better=False)
    metrics = lower.score(trained, groups, "test")
    assert metrics == {"error in K": (4.0 + 2.0) / 2, "worst group": 4.0}
    assert tuple(metrics) == lower.metrics(groups)
    higher = rtl.protocols.MeanOfMetric(error, "gain")
    assert higher.score(trained, groups, "test") == {"gain": 3.0, "worst group": 2.0}
    assert higher.headline == "gain"


def test_a_metric_may_return_integers_and_any_shape() -> None:
    metric = rtl.protocols.MeanOfMetric(lambda model, data: data[1][:, None], "label")
    metrics = metric.score(method({"a": Given()}), loaders({"a": A}), "test")
    assert metrics["label"] == pytest.approx(1 / 3)
