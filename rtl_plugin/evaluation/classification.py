"""One-vs-rest metrics as the paper counts them, calibrated thresholds, and top-1."""

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require

Rule: TypeAlias = Literal["argmax", "positive"]
FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


def one_vs_rest_metrics(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    rule: Rule | None = None,
    thresholds: npt.ArrayLike | None = None,
) -> dict[str, float]:
    """Balanced accuracy, precision and recall of each class against the rest, averaged.

    Source: Stefański et al., arXiv 2601.22141, protocol of the vision experiments. Binary
    classifiers trained on balanced data gain balanced accuracy under this protocol and lose
    precision; for a matched comparison give every method thresholds of its own from
    `calibrate_thresholds`, and report `top1_accuracy` beside it.

    Args:
        scores: [N, C] finite floats or integers, one column a class, higher means more likely.
        labels: [N] integers in 0..C-1; every class must occur.
        rule: when a sample counts as positive for a class. "argmax" (default without
            thresholds): for the class of its highest score alone, the lowest index among equals.
            "positive" (default with thresholds): for every class whose score is > 0, or
            > thresholds[c]; so for none, one or several classes.
        thresholds: [C] finite floats in the unit of the scores; contradicts rule="argmax".

    Returns:
        "balanced_accuracy", "precision" and "recall", each in 0..1. A class that nothing was
        predicted for has precision 0 (zero_division=0), which pulls the mean down.

    Raises:
        InvalidArgument: scores or thresholds of wrong shape or not finite, labels out of range,
            a class without a sample (its recall is undefined), an unknown or contradictory rule.
        MissingExtra: scikit-learn is not installed.

    Example:
        >>> scores = [[2.0, 1.0], [3.0, -1.0], [-2.0, 0.5]]
        >>> one_vs_rest_metrics(scores, [0, 0, 1])
        {'balanced_accuracy': 1.0, 'precision': 1.0, 'recall': 1.0}
        >>> one_vs_rest_metrics(scores, [0, 0, 1], rule="positive")
        {'balanced_accuracy': 0.875, 'precision': 0.75, 'recall': 1.0}
    """
    values, targets = _checked_samples(scores, labels)
    truth = _one_hot(values, targets)
    predicted = _predictions(values, rule, thresholds)
    metrics = require("sklearn.metrics", "report", "evaluation metrics")
    balanced = [
        metrics.balanced_accuracy_score(truth[:, c], predicted[:, c]) for c in range(truth.shape[1])
    ]
    macro = {"average": "macro", "zero_division": 0}
    return {
        "balanced_accuracy": float(np.mean(balanced)),
        "precision": float(metrics.precision_score(truth, predicted, **macro)),
        "recall": float(metrics.recall_score(truth, predicted, **macro)),
    }


def calibrate_thresholds(scores: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """Per class, the threshold with the highest one-vs-rest balanced accuracy.

    Call it on a *validation* split and pass the result to `one_vs_rest_metrics` with the test
    scores. Scores of one class are compared between samples, so logits of a multi-class model,
    which are free up to a shift per sample, are best given as log-probabilities.

    A threshold lies midway between two neighbouring scores. If all samples of a class's column
    are best called alike (no split beats chance), it is the value closest to zero that does so.
    Among equally good thresholds the one with the smallest absolute value wins, then the
    lower one; equality is decided on counts, without rounding.

    Args:
        scores: [N, C] finite floats or integers of the validation samples.
        labels: [N] integers in 0..C-1; every class must occur.

    Returns:
        [C] float64, in the unit of the scores; a score is positive when it is > its threshold.

    Raises:
        InvalidArgument: as in `one_vs_rest_metrics`.
        MissingExtra: scikit-learn is not installed.

    Example:
        >>> scores = [[3.0, 0.0], [2.0, 4.0], [1.0, 5.0]]
        >>> calibrate_thresholds(scores, [0, 1, 1])
        array([2.5, 2. ])
    """
    values, targets = _checked_samples(scores, labels)
    truth = _one_hot(values, targets)
    metrics = require("sklearn.metrics", "report", "calibrated thresholds")
    found = [_best_threshold(metrics, values[:, c], truth[:, c]) for c in range(truth.shape[1])]
    return np.asarray(found, dtype=np.float64)


def top1_accuracy(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The share of samples whose highest score is that of their label.

    Args:
        scores: [N, C] finite floats or integers; among equal scores the lowest index counts.
        labels: [N] integers in 0..C-1; classes may be missing.

    Returns:
        Accuracy in 0..1.

    Raises:
        InvalidArgument: scores of wrong shape or not finite, labels of wrong shape or range.
        MissingExtra: scikit-learn is not installed.

    Example:
        >>> top1_accuracy([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], [0, 1, 1, 1])
        0.75
    """
    values, targets = _checked_samples(scores, labels)
    metrics = require("sklearn.metrics", "report", "evaluation metrics")
    return float(metrics.accuracy_score(targets, values.argmax(axis=1)))


def _predictions(
    values: FloatArray, rule: Rule | None, thresholds: npt.ArrayLike | None
) -> IntArray:
    """[N, C] zeros and ones: which classes a sample counts as positive for."""
    if rule is not None and rule not in get_args(Rule):
        raise InvalidArgument(
            f"rule: expected one of {list(get_args(Rule))}, got {rule!r}: "
            "use 'argmax' for a multi-class model, 'positive' for binary subnetworks"
        )
    if thresholds is not None and rule == "argmax":
        raise InvalidArgument(
            "rule: expected 'positive' (or none) together with thresholds, got 'argmax', which "
            "uses no thresholds: leave one of the two out"
        )
    n_classes = values.shape[1]
    if rule == "positive" or thresholds is not None:
        limits = np.zeros(n_classes) if thresholds is None else _limits(thresholds, n_classes)
        return (values > limits).astype(np.int64)
    predicted = np.zeros(values.shape, dtype=np.int64)
    predicted[np.arange(len(values)), values.argmax(axis=1)] = 1
    return predicted


def _limits(thresholds: npt.ArrayLike, n_classes: int) -> FloatArray:
    """Checked thresholds."""
    limits = _array(thresholds, "thresholds")
    if limits.shape != (n_classes,):
        raise InvalidArgument(
            f"thresholds: expected shape [{n_classes}], one a column of scores, got "
            f"{list(limits.shape)}: take them from calibrate_thresholds with the same classes"
        )
    return _finite_floats(limits, "thresholds")


def _best_threshold(metrics: Any, scores: FloatArray, truth: IntArray) -> float:
    """The threshold of one class; see `calibrate_thresholds` for the choice among equals."""
    fpr, tpr, cuts = metrics.roc_curve(truth, scores, drop_intermediate=False)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    # Whole numbers, because equal rates may differ in their last bit and ties must be exact.
    hits = np.rint(tpr * positives).astype(np.int64)
    false_alarms = np.rint(fpr * negatives).astype(np.int64)
    gain = hits * negatives - false_alarms * positives
    # cuts[0] stands for "none is positive"; cuts[i] for "positive from cuts[i] upwards".
    upper, lower = cuts[1:-1], cuts[2:]
    middle = upper / 2 + lower / 2  # halves first: the sum of two large scores may overflow
    # Between two adjacent floats the middle may round up to `upper`, which must stay positive.
    middle = np.where((lower <= middle) & (middle < upper), middle, lower)
    none_positive = max(0.0, float(cuts[1]))
    all_positive = min(0.0, float(np.nextafter(cuts[-1], -np.inf)))
    candidates = np.concatenate([[none_positive], middle, [all_positive]])
    best = candidates[gain == gain.max()]
    return float(min(best, key=lambda value: (abs(value), value)))


def _one_hot(values: FloatArray, targets: IntArray) -> IntArray:
    """[N, C] zeros and ones of the labels; every class must have a sample."""
    counts = np.bincount(targets, minlength=values.shape[1])
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        shown = ", ".join(map(str, absent[:10])) + (", ..." if absent.size > 10 else "")
        raise InvalidArgument(
            f"labels: expected at least one sample of each of the {values.shape[1]} classes, got "
            f"none of class {shown}: evaluate on a split that holds every class, or leave out "
            "the columns of absent classes"
        )
    one_hot: IntArray = (targets[:, None] == np.arange(values.shape[1])).astype(np.int64)
    return one_hot


def _checked_samples(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """Scores as float64 [N, C] and labels as int64 [N], or an error that names the fault."""
    values = _array(scores, "scores")
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2:
        raise InvalidArgument(
            f"scores: expected shape [N, C] with N >= 1 samples and C >= 2 classes, got "
            f"{list(values.shape)}: give one column a class"
        )
    return _finite_floats(values, "scores"), _checked_labels(labels, *values.shape)


def _checked_labels(labels: npt.ArrayLike, n_samples: int, n_classes: int) -> IntArray:
    """Labels as int64 [N] in 0..C-1."""
    targets = _array(labels, "labels")
    if targets.shape != (n_samples,):
        raise InvalidArgument(
            f"labels: expected shape [{n_samples}], one a row of scores, got "
            f"{list(targets.shape)}: give class indices, not one-hot rows"
        )
    if targets.dtype.kind not in "iu":
        raise InvalidArgument(
            f"labels: expected integers 0..{n_classes - 1}, got dtype {targets.dtype}: "
            "convert them to class indices"
        )
    wrong = np.flatnonzero((targets < 0) | (targets >= n_classes))
    if wrong.size:
        raise InvalidArgument(
            f"labels: expected integers 0..{n_classes - 1} (scores has {n_classes} columns), got "
            f"{targets[wrong[0]]} at index {wrong[0]} ({wrong.size} such): map them to columns"
        )
    return targets.astype(np.int64)


def _array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """`np.asarray`, with an error that names the argument."""
    try:
        return np.asarray(values)
    # A ragged list is a ValueError, a CUDA tensor a TypeError, one with gradient a RuntimeError.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgument(
            f"{name}: expected an array of numbers, got {type(values).__name__} ({error}): "
            "of a tensor, pass tensor.detach().float().cpu().numpy()"
        ) from error


def _finite_floats(values: npt.NDArray[Any], name: str) -> FloatArray:
    """Values as float64, refusing other kinds, NaN and infinity."""
    if values.dtype.kind not in "fiu":
        raise InvalidArgument(
            f"{name}: expected floats, got dtype {values.dtype}: pass raw scores, not decisions"
        )
    floats = values.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(floats))
    if wrong.size:
        raise InvalidArgument(
            f"{name}: expected finite numbers, got {floats[tuple(wrong[0])]} at index "
            f"{wrong[0].tolist()} ({len(wrong)} such): check that the model did not diverge"
        )
    return floats
