"""How a trained method is scored: the paper's protocol and a matched one, or a user's metric."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rtl_plugin.baselines.methods import TrainedMethod
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.evaluation import (
    calibrate_thresholds,
    group_summary,
    one_vs_rest_metrics,
    top1_accuracy,
)
from rtl_plugin.joint_training.recalibration import call_on_input
from rtl_plugin.nested import tensors_in, to_device
from rtl_plugin.structure import device_of

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Predict = Callable[[Any, Any], torch.Tensor]
UserMetric = Callable[[Any, Any], Any]

GROUP_METRIC = "accuracy in "
_ONE_VS_REST = ("balanced accuracy", "precision", "recall", "calibrated balanced accuracy")


def _loader(groups: DataGroups, name: str, split: str) -> Iterable[Any]:
    loader: Iterable[Any] | None = getattr(groups[name], split)
    if loader is None:
        raise InvalidGroups(
            f"group {name!r} has no {split} split: give the groups a {split} fraction or loaders"
        )
    return loader


def _outputs(
    model: Any, loader: Iterable[Any], predict: Predict
) -> tuple[Scores, npt.NDArray[Any]]:
    device = device_of(model)
    outputs, targets = [], []
    with torch.no_grad():
        for batch in loader:
            outputs.append(predict(model, to_device(batch, device)).double().cpu().numpy())
            targets.append(batch[1].cpu().numpy())
    return np.concatenate(outputs), np.concatenate(targets)


@dataclass(frozen=True)
class GroupedClassification:
    """Every group solves the same classification; the group of a sample is known.

    Metrics: ``accuracy`` (mean over groups of routed top-1), ``worst group``, and one-vs-rest
    over the classes of all groups' samples: the paper's argmax rule (``balanced accuracy``,
    ``precision``, ``recall``) and the matched one with thresholds calibrated on the validation
    split (``calibrated balanced accuracy``).

    Args:
        predict: ``predict(model, batch) -> logits [B, C]``; labels are ``batch[1]``.

    Example:
        >>> GroupedClassification().headline
        'accuracy'
    """

    predict: Predict = call_on_input
    headline: str = "accuracy"

    def metrics(self, groups: DataGroups) -> tuple[str, ...]:
        """The metrics' names, in the order of tables."""
        of_groups = (f"{GROUP_METRIC}{name}" for name in groups)
        return ("accuracy", "worst group", *of_groups, *_ONE_VS_REST)

    def score(self, trained: TrainedMethod, groups: DataGroups, split: str) -> dict[str, float]:
        """Score a trained method on a split."""
        per_group = {
            name: _outputs(model, _loader(groups, name, split), self.predict)
            for name, model in trained.predictors.items()
        }
        accuracy = {name: top1_accuracy(*result) for name, result in per_group.items()}
        summary = group_summary(accuracy)
        validation = [
            _outputs(model, _loader(groups, name, "validation"), self.predict)
            for name, model in trained.predictors.items()
        ]
        scores, labels = _joined(list(per_group.values()))
        calibration = _joined(validation)
        return {
            "accuracy": float(summary["mean"]),
            "worst group": float(summary["worst"]),
            **{f"{GROUP_METRIC}{name}": float(value) for name, value in accuracy.items()},
            **_one_vs_rest(scores, labels, calibration, "argmax"),
        }


def _joined(results: list[tuple[Scores, npt.NDArray[Any]]]) -> tuple[Scores, Labels]:
    scores = np.concatenate([scores for scores, _ in results])
    labels = np.concatenate([labels for _, labels in results])
    # Logits are free up to a shift a sample; log-probabilities of different samples compare.
    return torch.from_numpy(scores).log_softmax(dim=1).numpy(), labels


def _one_vs_rest(
    scores: Scores, labels: Labels, calibration: tuple[Scores, Labels], rule: str
) -> dict[str, float]:
    paper = one_vs_rest_metrics(scores, labels, rule=rule)  # type: ignore[arg-type]
    matched = one_vs_rest_metrics(scores, labels, thresholds=calibrate_thresholds(*calibration))
    values = (paper["balanced_accuracy"], paper["precision"], paper["recall"])
    return dict(zip(_ONE_VS_REST, (*values, matched["balanced_accuracy"]), strict=True))


@dataclass(frozen=True)
class OneVsRest:
    """Every group is a class; its ticket is a binary detector of it.

    For groups of ``DataGroups.from_labels(negatives="balanced")``. Detectors count as positive at
    logit > 0, the single model for its argmax class alone (the paper's rule, which gives detectors
    an edge in balanced accuracy and costs them precision); ``calibrated balanced accuracy`` puts
    every method at its own thresholds, and ``accuracy`` is top-1 over all classes.

    Args:
        predict: ``predict(model, batch)`` -> one logit a sample of a detector, or [B, C] of the
            single model; classes in the order of the groups.

    Example:
        >>> OneVsRest().headline
        'balanced accuracy'

    Source:
        Stefański, Presta, Byra, arXiv 2601.22141, appendix A.2 and the tables' captions.
    """

    predict: Predict = call_on_input
    headline: str = "balanced accuracy"

    def metrics(self, groups: DataGroups) -> tuple[str, ...]:
        """The metrics' names, in the order of tables."""
        return ("accuracy", *_ONE_VS_REST)

    def score(self, trained: TrainedMethod, groups: DataGroups, split: str) -> dict[str, float]:
        """Score a trained method on a split."""
        scores, labels = self._scores(trained, groups, split)
        calibration = self._scores(trained, groups, "validation")
        rule = "argmax" if trained.single else "positive"
        return {
            "accuracy": top1_accuracy(scores, labels),
            **_one_vs_rest(scores, labels, calibration, rule),
        }

    def _scores(
        self, trained: TrainedMethod, groups: DataGroups, split: str
    ) -> tuple[Scores, Labels]:
        if trained.single:
            model = next(iter(trained.predictors.values()))
            pooled = groups.pooled()
            scores, labels = _joined([_outputs(model, _loader(pooled, "all", split), self.predict)])
            check_one_class_each(scores, labels, len(groups))
            return scores, labels
        columns, members = [], []
        for name, model in trained.predictors.items():
            outputs, member = _outputs(model, _loader(groups, name, split), self.predict)
            columns.append(outputs.reshape(-1))
            members.append(member)
        labels = _one_group_each(members, split)
        return np.stack(columns, axis=1), labels


def check_one_class_each(scores: Scores, labels: Labels, groups: int) -> None:
    """Refuse a single model whose classes are not the groups, one for one.

    Args:
        scores: float [N, C] of the single model.
        labels: int [N], the dataset's own.
        groups: number of groups K.

    Raises:
        InvalidGroups: C is not K, or a label is not in 0..K-1.

    Example:
        >>> check_one_class_each(np.zeros((2, 3)), np.array([0, 2]), groups=3)
    """
    if scores.shape[1] != groups or labels.min() < 0 or labels.max() >= groups:
        raise InvalidGroups(
            f"one-vs-rest compares {groups} groups with a single model of {scores.shape[1]} "
            f"outputs and labels {labels.min()}..{labels.max()}: every group must be one class, "
            "labelled 0 to K-1 in the groups' order; leave single-model methods out otherwise"
        )


def _one_group_each(members: list[npt.NDArray[Any]], split: str) -> Labels:
    lengths = sorted({len(member) for member in members})
    if len(lengths) > 1 or not (np.stack(members, axis=1).sum(axis=1) == 1).all():
        raise InvalidGroups(
            f"one-vs-rest needs every group's {split} batches to hold the same samples in the same "
            f"order, each in exactly one group; got {lengths} samples: make the groups with "
            "DataGroups.from_labels"
        )
    labels: Labels = np.stack(members, axis=1).argmax(axis=1)
    return labels


@dataclass(frozen=True)
class MeanOfMetric:
    """A user's metric, averaged over samples of a group and then over groups.

    Args:
        metric: ``metric(model, batch) -> tensor [B]``, one value a sample.
        name: its name, for example ``"PSNR (dB)"``.
        higher_is_better: which end is the worst group's.

    Example:
        >>> MeanOfMetric(lambda model, batch: batch, "error", higher_is_better=False).headline
        'error'
    """

    metric: UserMetric
    name: str
    higher_is_better: bool = True

    @property
    def headline(self) -> str:
        """The metric's name."""
        return self.name

    def metrics(self, groups: DataGroups) -> tuple[str, ...]:
        """The metrics' names, in the order of tables."""
        return (self.name, "worst group")

    def score(self, trained: TrainedMethod, groups: DataGroups, split: str) -> dict[str, float]:
        """Score a trained method on a split."""
        means = {}
        for name, model in trained.predictors.items():
            device = device_of(model)
            with torch.no_grad():
                values = [
                    self._values(model, to_device(batch, device))
                    for batch in _loader(groups, name, split)
                ]
            means[name] = float(torch.cat(values).double().mean())
        summary = group_summary(means, higher_is_better=self.higher_is_better)
        return {self.name: float(summary["mean"]), "worst group": float(summary["worst"])}

    def _values(self, model: Any, batch: Any) -> torch.Tensor:
        values = torch.as_tensor(self.metric(model, batch)).reshape(-1)
        size = next(tensors_in(batch)).shape[0]
        if values.numel() != size:
            raise InvalidArgument(
                f"metric {self.name!r} must give one value a sample, it gave {values.numel()} for "
                f"a batch of {size}: do not average over the batch"
            )
        return values


Protocol = GroupedClassification | OneVsRest | MeanOfMetric
