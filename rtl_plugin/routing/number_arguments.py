"""Checked numbers."""

import math
from numbers import Real
from typing import Any

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import InvalidArgument

LARGEST_SEED = 2**63 - 1


def finite(value: Any) -> float | None:
    """A real number as float, also one of numpy's; bool is none.

    Args:
        value: anything.

    Returns:
        The float, or None where the value is no real number, NaN, infinite or too large.

    Example:
        >>> finite(2), finite(True), finite(10**400)
        (2.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        plain = float(value)
    except OverflowError:
        return None
    return plain if math.isfinite(plain) else None


def seed_number(seed: Any) -> int:
    """A seed, checked.

    Args:
        seed: what the user passed.

    Returns:
        The seed as int.

    Raises:
        InvalidArgument: it is no whole number in 0..2**63 - 1, the range in which no two seeds
            are taken for one.

    Example:
        >>> seed_number(3)
        3
    """
    checked = whole_number("seed", seed, least=0)
    if checked > LARGEST_SEED:
        raise InvalidArgument(f"seed must be at most 2**63 - 1, got {seed!r}")
    return checked


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
    plain = finite(value)
    if plain is None or not low <= plain <= high:
        upto = "" if high == math.inf else f" and at most {high}"
        raise InvalidArgument(f"{name} must be a number of at least {low}{upto}, got {value!r}")
    return plain
