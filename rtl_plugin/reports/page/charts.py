"""The pictures of a run, laid out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rtl_plugin.diagnostics.curves import CurvePoint, TicketCurve
from rtl_plugin.reports.page.bars import Bars, shared_bars
from rtl_plugin.reports.page.colour_bins import ColourBins, Values, diverging_bins, sequential_bins
from rtl_plugin.reports.page.grid import Caption, Grid, layer_grid, similarity_grid
from rtl_plugin.reports.page.line_chart import (
    MEASURED,
    LineChart,
    Point,
    Quantity,
    Series,
    line_chart,
)
from rtl_plugin.reports.page.mask_facts import WHOLE, Likeness, MaskFacts
from rtl_plugin.reports.page.report_data import ReportData, alarm_direction
from rtl_plugin.reports.page.text import decimal, finite, percent, plural

_ONE_SIDED = 0.25
_COMPARED = Quantity(text=decimal, compares=True)


@dataclass(frozen=True)
class Maps:
    """Similarity of tickets, one picture a depth, all on one colour scale."""

    key: str
    label: str
    bins: ColourBins
    grids: tuple[Grid, ...]


def curve_charts(data: ReportData) -> list[LineChart]:
    """Metric, similarity, excess and loss against sparsity; those that have values.

    Args:
        data: of the run.

    Returns:
        The charts.
    """
    highest = max((p.sparsity for c in data.curves.values() for p in c.points), default=0.0)
    wanted: list[tuple[str, str, Callable[[CurvePoint], float | None]]] = [
        ("metric", data.metric, lambda point: point.metric),
        ("similarity", "similarity (mean Jaccard with the others)", lambda p: p.similarity),
        ("excess", "similarity in excess of chance", lambda point: point.excess),
        ("loss", "training loss", lambda point: point.loss),
    ]
    charts = []
    for key, title, value in wanted:
        series = [_series(curve, value, data.departures) for curve in data.curves.values()]
        quantity = _COMPARED if key in ("similarity", "excess") else MEASURED
        charts.append(line_chart(f"curve-{key}", title, series, highest, quantity))
    return [chart for chart in charts if chart is not None]


def _series(
    curve: TicketCurve,
    value: Callable[[CurvePoint], float | None],
    departures: Sequence[int],
) -> Series:
    points = []
    for point in curve.points:
        number = finite(value(point))
        if number is None:
            continue
        alarm = None if point.alarm is None else alarm_direction(point.alarm)
        kept = curve.left and point.round == curve.kept_round
        gone = sum(last < point.round for last in departures)
        points.append(Point(point.round, point.sparsity, number, alarm, kept, gone))
    return Series(curve.name, tuple(points))


def similarity_maps(facts: MaskFacts) -> list[Maps]:
    """Similarity over all layers and over each third of the depth, raw and in excess of chance.

    Args:
        facts: of two tickets or more.

    Returns:
        The raw maps and those in excess, each with one colour scale.

    Example:
        >>> import torch
        >>> from rtl_plugin.reports.page.mask_facts import mask_facts
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> facts = mask_facts(TicketSet([Ticket("a", {"w": a}), Ticket("b", {"w": b})]))
        >>> [grid.title for grid in similarity_maps(facts)[0].grids]
        ['All layers']
    """
    order = np.asarray(facts.order)
    names = [facts.names[k] for k in order]
    off = ~np.eye(len(order), dtype=bool)
    result = []
    for key, label in (("raw", "Raw"), ("excess", "In excess of chance")):
        chosen = {name: _matrix(alike, key)[np.ix_(order, order)]
                  for name, alike in facts.likeness.items()}  # fmt: skip
        values = np.concatenate([matrix[off] for matrix in chosen.values()])
        bins = _bins_for(values)
        grids = [
            similarity_grid(_map_caption(key, name, facts, matrix[off]), matrix, names, bins)
            for name, matrix in chosen.items()
        ]
        result.append(Maps(key, label, bins, tuple(grids)))
    return result


def _bins_for(values: Values) -> ColourBins:
    """Two colours only where what lies below zero is worth one."""
    two_sided = bool(-values.min() > _ONE_SIDED * values.max())
    return diverging_bins(values) if two_sided else sequential_bins(values)


def _matrix(alike: Likeness, key: str) -> Values:
    return alike.raw if key == "raw" else alike.excess


def _map_caption(key: str, depth: str, facts: MaskFacts, values: Values) -> Caption:
    layers = facts.likeness[depth].layers
    title = "All layers" if depth == WHOLE else f"{depth.capitalize()} layers"
    what = "similarity" if key == "raw" else "similarity in excess of chance"
    if key == "excess":
        title += ", in excess of chance"
    text = (
        f"{what} of every pair of {plural(len(facts.names), 'ticket')} over "
        f"{plural(len(layers), 'masked parameter')}: {decimal(float(values.min()))} to "
        f"{decimal(float(values.max()))}, mean {decimal(float(values.mean()))}"
    )
    return Caption(f"map-{key}-{depth.replace(' ', '-')}", title, text)


def layer_map(facts: MaskFacts) -> tuple[Grid, ColourBins]:
    """The share of each layer that each ticket keeps.

    Args:
        facts: of the masks.

    Returns:
        The picture and its colour steps.

    Example:
        >>> import torch
        >>> from rtl_plugin.reports.page.mask_facts import mask_facts
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> facts = mask_facts(TicketSet([Ticket("a", {"w": a}), Ticket("b", {"w": b})]))
        >>> layer_map(facts)[0].description.replace("\N{NO-BREAK SPACE}", " ")
        'share kept of 1 layer by 2 tickets: 33.3 % to 66.7 %'
    """
    order = np.asarray(facts.order)
    shares = facts.kept[:, order] / np.maximum(facts.sizes, 1)[:, None]
    bins = sequential_bins(shares.reshape(-1))
    text = (
        f"share kept of {plural(len(facts.layers), 'layer')} by "
        f"{plural(len(facts.names), 'ticket')}: {percent(float(shares.min()), 1)} to "
        f"{percent(float(shares.max()), 1)}"
    )
    caption = Caption("layers", "Share of each layer that each ticket keeps", text)
    return layer_grid(caption, shares, facts.layers, len(facts.names), bins), bins


def sharing_bars(facts: MaskFacts) -> Bars:
    """How many weights are kept by n tickets.

    Args:
        facts: of the masks.

    Returns:
        The chart.
    """
    return shared_bars("shared", facts.shared_by)
