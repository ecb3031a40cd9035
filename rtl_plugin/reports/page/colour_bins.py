"""Values sorted into the colour steps that a legend can name."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rtl_plugin.reports.page.scales import nice_step
from rtl_plugin.reports.page.text import decimal
from rtl_plugin.reports.page.theme import DIVERGING_BINS, SEQUENTIAL_BINS

Values = npt.NDArray[np.float64]
_LEAST_SPAN = 0.05


@dataclass(frozen=True)
class ColourBins:
    """Equal steps of a colour scale.

    Args:
        edges: ascending, one more than there are steps.
        classes: CSS class of each step, without its letter for stroke or ink: "q0" or "d3".
        places: decimals that tell edges apart.
    """

    edges: tuple[float, ...]
    classes: tuple[str, ...]
    places: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The edges as text."""
        return tuple(decimal(edge, self.places) for edge in self.edges)

    def ink(self, step: int) -> str:
        """The CSS class of text on a step.

        Args:
            step: from 0.
        """
        name = self.classes[step]
        return f"{name[0]}i{name[1:]}"

    def steps(self, values: Values) -> npt.NDArray[np.int64]:
        """Which step each value falls into; what lies outside takes the end.

        Args:
            values: finite float array of any shape.

        Returns:
            int64 array of that shape, from 0.

        Example:
            >>> bins = ColourBins((0.0, 0.5, 1.0), ("q0", "q9"), 1)
            >>> bins.steps(np.array([0.1, 0.5, 1.0])).tolist(), bins.ink(1)
            ([0, 1, 1], 'qi9')
        """
        found = np.searchsorted(np.asarray(self.edges[1:-1]), values, side="right")
        return np.asarray(found, dtype=np.int64)


def sequential_bins(values: Values) -> ColourBins:
    """Steps of a round width that cover values, from faint to strong.

    Args:
        values: finite; none give steps over 0..1.

    Returns:
        Four to ten steps.

    Example:
        >>> sequential_bins(np.array([0.01, 0.88])).labels[:3]
        ('0.0', '0.1', '0.2')
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    high = max(high, low + _LEAST_SPAN)
    step = nice_step(high - low, SEQUENTIAL_BINS)
    first, last = _multiples(low, high, step)
    while last - first > SEQUENTIAL_BINS:
        step = nice_step(1.01 * step, 1)
        first, last = _multiples(low, high, step)
    return _bins("q", step, [float(k) for k in range(first, last + 1)], SEQUENTIAL_BINS)


def diverging_bins(values: Values) -> ColourBins:
    """Steps symmetric about zero, the middle one around it.

    Args:
        values: finite, at least one.

    Returns:
        An odd number of steps, at most eleven.

    Example:
        >>> bins = diverging_bins(np.array([-0.1, 0.4]))
        >>> bins.classes[bins.steps(np.array([0.0]))[0]], bins.labels[-1]
        ('d5', '0.45')
    """
    reach = max(float(np.abs(values).max()), _LEAST_SPAN)
    step = nice_step(2 * reach, DIVERGING_BINS)
    each_side = int(np.ceil(reach / step - 0.5 - 1e-9))
    half = each_side + 0.5
    return _bins("d", step, [k - half for k in range(2 * each_side + 2)], DIVERGING_BINS)


def _multiples(low: float, high: float, step: float) -> tuple[int, int]:
    """The multiples of a step below and above."""
    return int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))


def _bins(family: str, step: float, multiples: Sequence[float], colours: int) -> ColourBins:
    edges = tuple(float(f"{k * step:.12g}") for k in multiples)
    exact = (p for p in range(1, 9) if all(round(e, p) == round(e, 9) for e in edges))
    count = len(edges) - 1
    spread = [round(k * (colours - 1) / max(count - 1, 1)) for k in range(count)]
    return ColourBins(edges, tuple(f"{family}{k}" for k in spread), next(exact, 9))
