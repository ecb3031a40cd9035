"""Where values lie on an axis, and which of them it names."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rtl_plugin.reports.page.text import decimal, percent_tick, scientific

_TICK_GAP = 34  # room for "99.5 %" in the unit of the pictures
_LOG_FROM = 0.9
_SCIENTIFIC_BELOW = 1e-3
_SPARSITIES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)


@dataclass(frozen=True)
class Tick:
    """A named place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A scale with its ticks.

    Args:
        place: value -> position in the picture.
        ticks: in ascending order of value.
        logarithmic: whether equal steps are equal factors of the share kept.
    """

    place: Callable[[float], float]
    ticks: tuple[Tick, ...]
    logarithmic: bool = False


def nice_step(span: float, parts: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that divides a span into few parts.

    Args:
        span: greater than 0.
        parts: about how many are wanted, at least 1.

    Returns:
        The least such step that gives no more parts than that.

    Example:
        >>> nice_step(1.0, 5), nice_step(0.3, 4)
        (0.2, 0.1)
    """
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    factor = next(f for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    return float(f"{factor * power:.12g}")


def value_axis(low: float, high: float, start: float, end: float) -> Axis:
    """A linear axis that ends at ticks.

    Args:
        low: least value.
        high: greatest value, at least ``low``.
        start: position of the axis's low end.
        end: position of its high end.

    Returns:
        The axis.

    Example:
        >>> [tick.label for tick in value_axis(0.1, 0.9, 0, 100).ticks]
        ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']
    """
    greatest = max(abs(low), abs(high))
    if high - low <= 1e-9 * greatest:
        margin = 0.05 * (greatest or 1.0)
        low, high = low - margin, high + margin
    step = nice_step(high - low, 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    bottom, top = first * step, last * step

    def place(value: float) -> float:
        return start + (value - bottom) / (top - bottom) * (end - start)

    values = [k * step for k in range(first, last + 1)]
    return Axis(place, tuple(Tick(place(v), _label(v, values, step)) for v in values))


def _label(value: float, values: Sequence[float], step: float) -> str:
    """A tick's value with the digits that tell it from its neighbours."""
    greatest = max(map(abs, values))
    power = math.floor(math.log10(step) + 1e-9)
    if greatest >= _SCIENTIFIC_BELOW:
        return decimal(value, max(0, -power))
    # The last digit stands for the step, whatever the power of ten of this tick.
    own = math.floor(math.log10(abs(value)) + 1e-9) if abs(value) > step / 2 else power
    return scientific(value if abs(value) > step / 2 else 0.0, max(0, own - power))


def sparsity_axis(highest: float, start: float, end: float) -> Axis:
    """An axis of sparsities from 0, on a log scale of the share kept where they reach 90 %.

    Args:
        highest: greatest sparsity, in [0, 1).
        start: position of sparsity 0.
        end: position of the greatest one.

    Returns:
        The axis.

    Example:
        >>> axis = sparsity_axis(0.99, 0, 100)
        >>> axis.logarithmic, round(axis.place(0.9), 6)
        (True, 50.0)
    """
    logarithmic = highest >= _LOG_FROM
    least_kept = max(1 - highest, 1e-9)

    def place(sparsity: float) -> float:
        if logarithmic:
            share = math.log(max(1 - sparsity, least_kept)) / math.log(least_kept)
        else:
            share = sparsity / max(highest, 1e-9)
        return start + share * (end - start)

    if logarithmic:
        values = [s for s in _SPARSITIES if s <= highest + 1e-9]
    else:
        step = nice_step(max(highest, 1e-9), 5)
        values = [k * step for k in range(math.floor(highest / step + 1e-9) + 1)]
    ticks: list[Tick] = []
    for value in values:
        if not ticks or place(value) - ticks[-1].at >= _TICK_GAP:
            ticks.append(Tick(place(value), percent_tick(value)))
    return Axis(place, tuple(ticks), logarithmic)
