"""Checked numbers."""

import math
from typing import Any

from rtl_plugin.errors import InvalidArgument


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite number in a closed range, checked.

    Args:
        name: the argument's name.
        value: what the user passed.
        low: the smallest allowed value.
        high: the largest allowed value.

    Returns:
        The value as float.

    Raises:
        InvalidArgument: it is no finite number, or out of range.

    Example:
        >>> number("quantile", 0.01, 0, 1)
        0.01
    """
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not math.isfinite(value) or not low <= value <= high:
        upto = "" if high == math.inf else f" and at most {high}"
        raise InvalidArgument(f"{name} must be a number of at least {low}{upto}, got {value!r}")
    return float(value)
