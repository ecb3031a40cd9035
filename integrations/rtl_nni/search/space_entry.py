"""One entry of NNI's search spaces, its form checked: NNI finds a slip only while it runs."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from rtl_plugin.integration_api import InvalidArgument

# Entries of NNI's search spaces (its documentation, "search space"), with how many figures each
# takes; choices take any number.
_NUMERIC = {
    "randint": 2, "uniform": 2, "quniform": 3, "loguniform": 2, "qloguniform": 3,
    "normal": 2, "qnormal": 3, "lognormal": 2, "qlognormal": 3,
}  # fmt: skip


def as_entry(name: str, entry: Any) -> dict[str, Any]:
    """An entry as JSON-able data.

    Args:
        name: of the hyperparameter.
        entry: ``{"_type": ..., "_value": [...]}``.

    Returns:
        A copy in lists and Python's own numbers.

    Raises:
        InvalidArgument: NNI would not know it, or its figures are out of range.

    Example:
        >>> as_entry("lr", {"_type": "uniform", "_value": (0, 1)})
        {'_type': 'uniform', '_value': [0, 1]}
    """
    kind = entry.get("_type") if isinstance(entry, Mapping) else None
    values = entry.get("_value") if isinstance(entry, Mapping) else None
    if kind not in (*_NUMERIC, "choice") or not isinstance(values, list | tuple):
        raise InvalidArgument(
            f"{name} must be an entry of NNI's search spaces, {{'_type': one of "
            f"{['choice', *_NUMERIC]}, '_value': [...]}}, got {entry!r}"
        )
    if kind == "choice":
        if not values:
            raise InvalidArgument(f"{name} is an empty choice: leave it out, or give values")
    else:
        _check_figures(name, kind, values)
    plain = [_plain(value) for value in values]
    return {**entry, "_value": [int(end) for end in plain] if kind == "randint" else plain}


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none.

    Args:
        value: anything.

    Example:
        >>> is_number(np.float32(1)), is_number(True), is_number(float("inf"))
        (True, False, False)
    """
    boolean = isinstance(value, bool | np.bool_)
    return isinstance(value, Real) and not boolean and math.isfinite(value)


def _check_figures(name: str, kind: str, values: list[Any] | tuple[Any, ...]) -> None:
    if len(values) != _NUMERIC[kind] or not all(is_number(value) for value in values):
        raise InvalidArgument(
            f"{name}: {kind} takes {_NUMERIC[kind]} finite numbers, got {values!r}"
        )
    if "normal" in kind:
        if not values[1] > 0:
            raise InvalidArgument(f"{name}: {kind} needs a deviation above 0, got {values!r}")
    elif not values[0] < values[1]:
        raise InvalidArgument(f"{name}: {kind} goes from a low to a high number, got {values!r}")
    elif "log" in kind and not values[0] > 0:
        raise InvalidArgument(f"{name}: {kind} starts above 0, got {values!r}")
    if kind.startswith("q") and not values[2] > 0:
        raise InvalidArgument(f"{name}: the step of {kind} must be above 0, got {values!r}")
    if kind == "randint" and not all(float(value).is_integer() for value in values):
        raise InvalidArgument(f"{name}: randint takes whole numbers, got {values!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
