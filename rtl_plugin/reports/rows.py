"""The rows of a comparison of methods, checked before they become a table or a plot."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from rtl_plugin.errors import InvalidArgument

_REQUIRED = ("task", "sparsity", "method", "metric", "mean", "low", "high", "parameters")


@dataclass(frozen=True)
class ComparisonRow:
    """One checked row: a metric of a method at a sparsity."""

    task: str
    sparsity: float | None
    method: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    parameters: float | None
    bytes: float | None
    seeds: int | None

    @property
    def line(self) -> tuple[str, float | None, str]:
        """What identifies one line of a table."""
        return (self.task, self.sparsity, self.method)


def checked_rows(rows: Iterable[Mapping[str, Any]]) -> list[ComparisonRow]:
    """Rows of the benchmark format, checked.

    Args:
        rows: mappings with "task", "sparsity" (0..1, or None where it has no meaning), "method",
            "metric", "mean" (finite), "low" and "high" (the ends of the interval, or both None),
            "parameters" (a count or None); "bytes" and "seeds" (a count or a list) may be absent.

    Returns:
        The rows in the given order.

    Raises:
        InvalidArgument: no rows, a key missing, a value of the wrong kind or out of range, or
            the same metric twice for one (task, sparsity, method).

    Example:
        >>> row = {"task": "digits", "sparsity": 0.5, "method": "tickets", "metric": "accuracy",
        ...        "mean": 0.7, "low": None, "high": None, "seeds": [0], "parameters": 900}
        >>> checked_rows([row])[0].seeds
        1
    """
    checked = [_checked_row(row, f"rows[{index}]") for index, row in enumerate(rows)]
    if not checked:
        raise InvalidArgument("rows: expected at least one row, got none: run a comparison first")
    seen: set[tuple[Any, ...]] = set()
    for index, row in enumerate(checked):
        key = (*row.line, row.metric)
        if key in seen:
            raise InvalidArgument(
                f"rows[{index}]: expected one row per (task, sparsity, method, metric), got a "
                f"second one for {key}: average over seeds before reporting"
            )
        seen.add(key)
    return checked


def sparsity_text(sparsity: float | None) -> str:
    """A sparsity for people.

    Args:
        sparsity: 0..1, or None where it has no meaning.

    Returns:
        Percent, or a dash.

    Example:
        >>> sparsity_text(0.975)
        '97.5 %'
    """
    return "-" if sparsity is None else f"{100 * sparsity:.6g} %"


def _checked_row(row: Mapping[str, Any], name: str) -> ComparisonRow:
    """One row with every field checked."""
    if not isinstance(row, Mapping):
        raise InvalidArgument(
            f"{name}: expected a mapping, got {type(row).__name__}: give a list of dicts"
        )
    missing = [key for key in _REQUIRED if key not in row]
    if missing:
        raise InvalidArgument(
            f"{name}: expected the keys {list(_REQUIRED)}, got none named {missing}: "
            "give None for a bound or a count that does not exist"
        )
    mean = _number(row["mean"], f"{name}['mean']")
    low, high = (_optional_number(row[end], f"{name}['{end}']") for end in ("low", "high"))
    if (low is None) != (high is None) or not (low is None or high is None or low <= mean <= high):
        raise InvalidArgument(
            f"{name}: expected low <= mean <= high, or low and high both None, got low={low}, "
            f"mean={mean}, high={high}: take them from confidence_interval"
        )
    return ComparisonRow(
        task=_text(row["task"], f"{name}['task']"),
        sparsity=_sparsity(row["sparsity"], f"{name}['sparsity']"),
        method=_text(row["method"], f"{name}['method']"),
        metric=_text(row["metric"], f"{name}['metric']"),
        mean=mean,
        low=low,
        high=high,
        parameters=_count(row["parameters"], f"{name}['parameters']"),
        bytes=_count(row.get("bytes"), f"{name}['bytes']"),
        seeds=_seed_count(row.get("seeds"), f"{name}['seeds']"),
    )


def _text(value: Any, name: str) -> str:
    """A name of one line."""
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1:
        raise InvalidArgument(f"{name}: expected a name of one line, got {value!r}: name it")
    return value


def _number(value: Any, name: str) -> float:
    """A finite number as a float."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InvalidArgument(
            f"{name}: expected a finite number, got {value!r}: leave out rows of failed runs"
        )
    return float(value)


def _optional_number(value: Any, name: str) -> float | None:
    """A finite number or None."""
    return None if value is None else _number(value, name)


def _sparsity(value: Any, name: str) -> float | None:
    """A fraction or None."""
    number = _optional_number(value, name)
    if number is not None and not 0 <= number <= 1:
        raise InvalidArgument(
            f"{name}: expected a fraction in 0..1, got {number}: write 0.9 for 90 percent"
        )
    return number


def _count(value: Any, name: str) -> float | None:
    """A count, which as a mean over seeds may be fractional, or None."""
    number = _optional_number(value, name)
    if number is not None and number < 0:
        raise InvalidArgument(f"{name}: expected a count >= 0, got {number}: correct the row")
    return number


def _seed_count(value: Any, name: str) -> int | None:
    """How many seeds: a list of seeds or their number."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    if isinstance(value, list | tuple) and value:
        return len(value)
    raise InvalidArgument(
        f"{name}: expected a list of seeds or their number, got {value!r}: list the seeds run"
    )
