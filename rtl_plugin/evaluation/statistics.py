"""Means with confidence intervals over seeds, paired differences, and the worst group."""

import math
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from statistics import mean, stdev
from typing import NamedTuple, TypedDict

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval.

    `low` and `high` are None, never NaN, when one value alone gives no interval: None has a
    form in JSON.

    Example:
        >>> Interval(0.5, 0.4, 0.6)._asdict()
        {'mean': 0.5, 'low': 0.4, 'high': 0.6}
    """

    mean: float
    low: float | None
    high: float | None


class GroupSummary(TypedDict):
    """What `group_summary` returns."""

    mean: float
    worst: float
    worst_group: str


def confidence_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """The mean over seeds and its Student-t confidence interval.

    The interval takes the seeds as independent and roughly normal; it is not clipped to the
    range of the metric. Equal values give an interval of width zero.

    Args:
        values: [n] finite floats, one a seed, n >= 1.
        level: confidence level, strictly between 0 and 1.

    Returns:
        The mean and the ends of the interval; both ends are None for n = 1.

    Raises:
        InvalidArgument: no value, a value that is not a finite number, a level out of range.
        MissingExtra: scipy is not installed.

    Example:
        >>> interval = confidence_interval([0.70, 0.72, 0.74])
        >>> [round(end, 4) for end in interval]
        [0.72, 0.6703, 0.7697]
        >>> confidence_interval([0.7])
        Interval(mean=0.7, low=None, high=None)
    """
    numbers = _finite_numbers(values, "values")
    if isinstance(level, bool) or not isinstance(level, Real) or not 0 < level < 1:
        raise InvalidArgument(
            f"level: expected a number strictly between 0 and 1, got {level!r}: "
            "write 0.95 for 95 percent"
        )
    middle = mean(numbers)  # exact, so that equal values have a spread of exactly zero
    if len(numbers) == 1:
        return Interval(middle, None, None)
    distribution = require("scipy.stats", "report", "confidence intervals").t
    quantile = float(distribution.ppf((1 + level) / 2, len(numbers) - 1))
    half = quantile * stdev(numbers) / math.sqrt(len(numbers))
    return Interval(middle, middle - half, middle + half)


def paired_difference(a: Iterable[float], b: Iterable[float], level: float = 0.95) -> Interval:
    """The mean of a - b over the same seeds and its Student-t confidence interval.

    Pairing removes what a seed does to both methods alike. "Method A beats method B" (higher is
    better) is supported when `low` is above 0.

    Args:
        a: [n] finite floats of method A, one a seed, n >= 1.
        b: [n] finite floats of method B, for the same seeds in the same order.
        level: confidence level, strictly between 0 and 1.

    Returns:
        The mean difference and the ends of its interval; both ends are None for n = 1.

    Raises:
        InvalidArgument: lengths differ, no value, a value that is not a finite number, a level
            out of range.
        MissingExtra: scipy is not installed.

    Example:
        >>> difference = paired_difference([0.72, 0.75, 0.74], [0.70, 0.72, 0.73])
        >>> [round(end, 4) for end in difference]
        [0.02, -0.0048, 0.0448]
    """
    left, right = _finite_numbers(a, "a"), _finite_numbers(b, "b")
    if len(left) != len(right):
        raise InvalidArgument(
            f"b: expected {len(left)} values, one for each seed of a, got {len(right)}: "
            "compare only the seeds that both methods ran"
        )
    return confidence_interval([x - y for x, y in zip(left, right, strict=True)], level)


def group_summary(per_group: Mapping[str, float], *, higher_is_better: bool = True) -> GroupSummary:
    """The unweighted mean over groups and the group that fares worst.

    Args:
        per_group: group name -> finite metric value, at least one.
        higher_is_better: False for losses and errors, where the highest value is the worst.

    Returns:
        "mean", "worst" (a value) and "worst_group" (its name, the first among equals).

    Raises:
        InvalidArgument: no group, or a value that is not a finite number.

    Example:
        >>> group_summary({"plain": 0.75, "noisy": 0.25})
        {'mean': 0.5, 'worst': 0.25, 'worst_group': 'noisy'}
    """
    if not per_group:
        raise InvalidArgument("per_group: expected at least one group, got none: name the groups")
    numbers = {name: _finite(value, f"per_group[{name!r}]") for name, value in per_group.items()}
    pick = min if higher_is_better else max
    worst_group = pick(numbers, key=lambda name: numbers[name])
    return {
        "mean": mean(numbers.values()),
        "worst": numbers[worst_group],
        "worst_group": worst_group,
    }


def _finite_numbers(values: Iterable[float], name: str) -> list[float]:
    """A non-empty list of finite floats."""
    # A set would drop equal values and the order of the seeds; a mapping would give its keys.
    refused = isinstance(values, str | Mapping | Set) or not isinstance(values, Iterable)
    if refused or getattr(values, "ndim", 1) != 1:
        raise InvalidArgument(
            f"{name}: expected a flat sequence of numbers, got {type(values).__name__}: "
            "give one value a seed"
        )
    numbers = [_finite(value, f"{name}[{index}]") for index, value in enumerate(values)]
    if not numbers:
        raise InvalidArgument(f"{name}: expected at least one value, got none: give one a seed")
    return numbers


def _finite(value: float, name: str) -> float:
    """A finite number as a float; bool counts as a mistake."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgument(
            f"{name}: expected a number, got {value!r}: convert it with float(...)"
        )
    number = float(value)
    if not math.isfinite(number):
        raise InvalidArgument(
            f"{name}: expected a finite number, got {number}: leave out failed runs, and say so"
        )
    return number
