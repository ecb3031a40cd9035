"""Estimators of the scikit-learn kind, known by their methods: nothing is imported here."""

import copy
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import tensors_in
from rtl_plugin.routing.feature_space import features_of, finite_features
from rtl_plugin.routing.group_keys import check_every_ticket

_ANSWERS = ("predict_proba", "decision_function", "predict")


def is_estimator(value: Any) -> bool:
    """Whether a value has ``fit`` and a way to answer.

    Args:
        value: anything.

    Returns:
        True for a scikit-learn classifier, fitted or not, and for what has its methods.

    Example:
        >>> is_estimator(object())
        False
    """
    return not isinstance(value, type) and hasattr(value, "fit") and hasattr(value, "predict")


def fitted_copy(
    estimator: Any, batches: Iterator[tuple[Any, torch.Tensor]], tickets: tuple[str, ...]
) -> Any:
    """Fit a copy of an estimator on samples and the positions of their tickets.

    Args:
        estimator: left as it is.
        batches: one pass over the samples.
        tickets: all names, in order.

    Returns:
        The fitted copy.

    Raises:
        InvalidArgument: features are not finite or of different width, or it is no classifier.
        InvalidGroups: a ticket has no sample.
    """
    pairs = [(features_of(None, x).cpu(), positions) for x, positions in batches]
    widths = {features.shape[1] for features, _ in pairs}
    if len(widths) > 1:
        raise InvalidArgument(f"batches have different numbers of features: {sorted(widths)}")
    labels = torch.cat([positions for _, positions in pairs] or [torch.zeros(0).long()])
    check_every_ticket(labels.bincount(minlength=len(tickets)), tickets)
    fitted = copy.deepcopy(estimator)
    fitted.fit(torch.cat([features for features, _ in pairs]).numpy(), labels.numpy())
    if not hasattr(fitted, "classes_"):
        raise InvalidArgument(
            f"{type(estimator).__name__} has no classes_ after its fit: it is no classifier"
        )
    return fitted


def class_columns(
    estimator: Any, tickets: tuple[str, ...], classes: Mapping[Hashable, str] | None
) -> list[int]:
    """The ticket of every class of a fitted estimator.

    Args:
        estimator: has ``classes_``.
        tickets: all names, in order.
        classes: class -> ticket name; None where the classes are names or positions.

    Returns:
        Position of the ticket for every entry of ``classes_``.

    Raises:
        InvalidArgument: the classes are not exactly the tickets.

    Example:
        >>> class Fitted:
        ...     classes_ = np.array(["street", "indoor"])
        >>> class_columns(Fitted(), ("indoor", "street"), None)
        [1, 0]
    """
    found = [c.item() if isinstance(c, np.generic) else c for c in estimator.classes_]
    names = {name: k for k, name in enumerate(tickets)}
    if classes is not None:
        known: dict[Any, int] = {c: names[n] for c, n in classes.items() if n in names}
    else:
        known = names | {k: k for k in range(len(tickets))}
    columns = [known.get(c, -1) if not isinstance(c, bool) else -1 for c in found]
    if sorted(columns) != list(range(len(tickets))):
        how = "under classes=" if classes is not None else "(as names or positions)"
        raise InvalidArgument(
            f"{type(estimator).__name__} was fitted on the classes {found[:8]}, which are not the "
            f"tickets {list(tickets)[:8]} {how}: give classes= a class -> ticket mapping that "
            "covers both, or fit it here with fit(x, groups)"
        )
    return columns


def estimator_scores(
    estimator: Any, x: Any, columns: list[int], strict: bool = True
) -> tuple[torch.Tensor, bool]:
    """What a fitted estimator thinks of every ticket.

    Args:
        estimator: fitted.
        x: the network's first input; its first tensor is flattened to [B, D].
        columns: from :func:`class_columns`.
        strict: refuse a batch with a sample that cannot be scored; else its scores are NaN.

    Returns:
        Floating tensor [B, K] on the input's device, and whether it is scores (log-probabilities
        or decision values) rather than one for the predicted class and zero elsewhere.

    Raises:
        InvalidArgument: features are not finite, or the answer is not one column a class.
    """
    if strict:
        features, unknown = features_of(None, x), None
    else:
        features, unknown = finite_features(None, x)
    device = next(tensors_in(x)).device
    answer = next(name for name in _ANSWERS if hasattr(estimator, name))
    if not len(features):  # scikit-learn refuses a batch of none
        return torch.zeros(0, len(columns), device=device), answer != "predict"
    given = np.asarray(getattr(estimator, answer)(features.cpu().numpy()))
    if answer == "predict":
        listed = [c.item() if isinstance(c, np.generic) else c for c in estimator.classes_]
        made = np.zeros((len(features), len(columns)), dtype=np.float32)
        made[np.arange(len(given)), [listed.index(c) for c in given.tolist()]] = 1
    else:
        made = _table(given, len(columns), answer)
    pairwise = answer == "decision_function" and len(columns) > 2
    pairwise &= getattr(estimator, "decision_function_shape", None) == "ovo"
    if pairwise or made.shape != (len(features), len(columns)) or (strict and np.isnan(made).any()):
        raise InvalidArgument(
            f"{type(estimator).__name__}.{answer} must give {(len(features), len(columns))} values "
            f"without NaN, got {given.shape}; of an SVC ask decision_function_shape='ovr'"
        )
    ordered = np.empty_like(made)
    ordered[:, columns] = made
    scores = torch.from_numpy(ordered).to(device)
    if unknown is not None:
        scores = scores.masked_fill(unknown.unsqueeze(1), float("nan"))
    return scores, answer != "predict"


def _table(given: Any, count: int, answer: str) -> Any:
    """One column a class; the one value of a binary decision function speaks for the second."""
    values = given.astype(np.float64) if given.dtype.kind != "f" else given
    if answer == "predict_proba":
        with np.errstate(divide="ignore"):
            return np.log(values)
    if values.ndim == 1 and count == 2:
        return np.stack([np.zeros_like(values), values], axis=1)
    return values
