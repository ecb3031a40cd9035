"""Plots as PNG files, drawn without pyplot, so that nothing global changes."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports.figures import (
    COLOURS,
    MARKERS,
    new_figure,
    png_path,
    shortened,
    title_inches,
    write_png,
)
from rtl_plugin.reports.rows import ComparisonRow, checked_rows, sparsity_text

_MAX_ANNOTATED = 12
_MAX_NAMED = 60
_LEAST_SPAN = 0.05


def similarity_heat_map(
    similarity: npt.ArrayLike,
    names: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "Similarity of tickets",
) -> None:
    """Draw how alike tickets are, as a PNG.

    The colours span the values off the diagonal, at least 0.05 wide, so that small differences
    show and noise does not; the diagonal, where a ticket meets itself, is grey. With a negative
    value off the diagonal (an excess over chance) the colours diverge about zero. Cells carry
    their value up to 12 tickets; beyond 60, only every so many tickets are named.

    Args:
        similarity: [K, K] symmetric finite floats in -1..1, K >= 1.
        names: K different ticket names; long ones are shortened in the picture.
        path: the file to write, ending in ".png"; missing folders are made.
        title: one line above the picture.

    Raises:
        InvalidArgument: wrong shape, values not finite, out of range or not symmetric, names
            that do not fit, a path that cannot be a PNG file.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "similarity.png")
        ...     similarity_heat_map([[1.0, 0.4], [0.4, 1.0]], ["indoor", "street"], path)
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    target = png_path(path)
    values = _checked_similarity(similarity)
    labels = _checked_names(names, len(values))
    colours = _colour_range(values)
    side = _cell_inches(len(values)) * len(values) + 0.085 * max(map(len, labels))
    width = max(side + 1.7, title_inches(title), 3.6)
    figure = new_figure(width, max(side + 0.9, 2.6))
    axes = figure.add_subplot()
    shown = np.ma.masked_array(values, mask=np.eye(len(values), dtype=bool))
    axes.set_facecolor("#eeeeee")
    image = axes.imshow(shown, interpolation="nearest", **colours)
    _name_ticks(axes, labels)
    if len(values) <= _MAX_ANNOTATED:
        _annotate(axes, image, values)
    if len(values) > 1:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    write_png(figure, target)


def accuracy_by_method(
    rows: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    metric: str = "accuracy",
    title: str | None = None,
    *,
    chance: float | None = None,
) -> None:
    """Draw one metric of every method as a dot with its interval, as a PNG.

    One panel a sparsity, in ascending order, all with the same scale; in each the method with
    the highest mean is on top. A method has the same colour in every panel.

    Args:
        rows: as in `comparison_table`, all of one task; rows of other metrics are left out.
        path: the file to write, ending in ".png"; missing folders are made.
        metric: which metric to draw.
        title: one line above the picture; the task's name by default.
        chance: where to draw a dashed line, in the metric's unit; none by default.

    Raises:
        InvalidArgument: malformed rows, several tasks, no row of the metric, a chance that is
            not finite, a path that cannot be a PNG file.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> row = {"task": "digits", "sparsity": 0.5, "method": "tickets", "metric": "accuracy",
        ...        "mean": 0.7, "low": 0.68, "high": 0.72, "seeds": [0, 1], "parameters": 12345}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "accuracy.png")
        ...     accuracy_by_method([row], path, chance=0.1)
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    target = png_path(path)
    if chance is not None and not (isinstance(chance, Real) and math.isfinite(chance)):
        raise InvalidArgument(
            f"chance: expected a finite number or None, got {chance!r}: leave it out for no line"
        )
    chosen = _rows_of_metric(checked_rows(rows), metric)
    panels = _panels(chosen)
    methods = list(dict.fromkeys(row.method for row in chosen))
    heading = chosen[0].task if title is None else title
    height = 1.1 + sum(0.45 + 0.3 * len(panel) for panel in panels)
    explanation = _axis_text(chosen, metric, chance)
    figure = new_figure(max(7.2, title_inches(heading), 0.072 * len(explanation) + 0.3), height)
    grid = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, height_ratios=[len(p) + 0.6 for p in panels]
    )[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        _draw_panel(axes, panel, methods, chance)
    figure.supxlabel(explanation, fontsize=9, parse_math=False)
    figure.suptitle(heading, fontsize=11, parse_math=False)
    write_png(figure, target)


def _rows_of_metric(rows: list[ComparisonRow], metric: str) -> list[ComparisonRow]:
    """The rows to draw, of one task."""
    chosen = [row for row in rows if row.metric == metric]
    if not chosen:
        known = list(dict.fromkeys(row.metric for row in rows))
        raise InvalidArgument(f"metric: expected one of {known}, got {metric!r}: choose one")
    tasks = list(dict.fromkeys(row.task for row in chosen))
    if len(tasks) > 1:
        raise InvalidArgument(f"rows: expected one task, got {tasks}: draw one plot a task")
    return chosen


def _panels(rows: list[ComparisonRow]) -> list[list[ComparisonRow]]:
    """Rows by ascending sparsity (none first), each panel from the lowest mean to the highest."""
    sparsities = {row.sparsity for row in rows}
    ordered = sorted(sparsities, key=lambda sparsity: -1.0 if sparsity is None else sparsity)
    return [
        sorted((row for row in rows if row.sparsity == sparsity), key=lambda row: row.mean)
        for sparsity in ordered
    ]


def _draw_panel(
    axes: Any, panel: list[ComparisonRow], methods: list[str], chance: float | None
) -> None:
    """One sparsity: a line a method, its mean in figures at the right."""
    if chance is not None:
        axes.axvline(chance, color="#666666", linestyle="--", linewidth=1, zorder=1)
    for y, row in enumerate(panel):
        number = methods.index(row.method)
        colour = COLOURS[number % len(COLOURS)]
        if row.low is not None:
            axes.plot([row.low, row.high], [y, y], color=colour, linewidth=2, zorder=2)
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.plot([row.mean], [y], marker=marker, markersize=7, color=colour, zorder=3)
        axes.text(
            1.015,
            y,
            f"{row.mean:.3f}",
            transform=axes.get_yaxis_transform(),
            va="center_baseline",
            size=9,
        )
    labels = [shortened(row.method) for row in panel]
    axes.set_yticks(range(len(panel)), labels, fontsize=9, parse_math=False)
    axes.set_ylim(-0.6, len(panel) - 0.4)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if panel[0].sparsity is not None:
        heading = f"sparsity {sparsity_text(panel[0].sparsity)}"
        axes.set_title(heading, loc="left", fontsize=9, color="#444444", parse_math=False)


def _axis_text(rows: list[ComparisonRow], metric: str, chance: float | None) -> str:
    """What dot, line and dashes mean."""
    counts = {row.seeds for row in rows}
    seeds = counts.pop() if len(counts) == 1 else None
    over = "" if seeds is None else f" over {seeds} seed{'s' if seeds > 1 else ''}"
    parts = [f"mean{over}"]
    if any(row.low is not None for row in rows):
        parts.append("line: 95 % interval")
    if chance is not None:
        parts.append(f"dashed: chance, {chance:.3g}")
    return f"{metric.replace('_', ' ')} ({'; '.join(parts)})"


def _checked_similarity(similarity: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The matrix as float64."""
    try:
        values = np.asarray(similarity, dtype=np.float64)
    # Ragged lists and text are ValueErrors, a CUDA tensor a TypeError, a gradient a RuntimeError.
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidArgument(
            f"similarity: expected a [K, K] array of numbers, got {type(similarity).__name__} "
            f"({error}): of a tensor, pass tensor.detach().cpu().numpy()"
        ) from error
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.shape[0] < 1:
        raise InvalidArgument(
            f"similarity: expected shape [K, K] with K >= 1, got {list(values.shape)}: "
            "give one row and one column a ticket"
        )
    if not np.isfinite(values).all() or np.abs(values).max() > 1 + 1e-6:
        raise InvalidArgument(
            f"similarity: expected finite values in -1..1, got {values.min():.4g} to "
            f"{values.max():.4g}: give Jaccard similarities or their excess over chance"
        )
    if not np.allclose(values, values.T, rtol=0, atol=1e-6):
        raise InvalidArgument(
            "similarity: expected a symmetric array, got one that differs from its transpose by "
            f"up to {np.abs(values - values.T).max():.4g}: the order of two tickets cannot matter"
        )
    return values


def _checked_names(names: Sequence[str], count: int) -> list[str]:
    """Ticket names, shortened."""
    given = [names] if isinstance(names, str) else list(names)
    bad = [name for name in given if not isinstance(name, str) or not name.strip()]
    if bad or len(given) != count or len(set(given)) != count:
        raise InvalidArgument(
            f"names: expected {count} different ticket names, one a row of similarity, got "
            f"{given!r}: name each ticket once"
        )
    return [shortened(" ".join(name.split())) for name in given]


def _colour_range(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Colour map and limits from the values off the diagonal."""
    others = values[~np.eye(len(values), dtype=bool)]
    if not others.size:
        return {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
    low, high = float(others.min()), float(others.max())
    if low < 0:
        limit = max(-low, high, _LEAST_SPAN)
        return {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    if high - low < _LEAST_SPAN:
        low = min(max(0.0, (low + high - _LEAST_SPAN) / 2), 1 - _LEAST_SPAN)
        high = low + _LEAST_SPAN
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _cell_inches(count: int) -> float:
    """The side of a cell: room for its figures, or for a tick label, or less still."""
    if count <= _MAX_ANNOTATED:
        return 0.5
    return 0.2 if count <= _MAX_NAMED else 0.2 * _MAX_NAMED / count


def _name_ticks(axes: Any, labels: list[str]) -> None:
    """Name rows and columns, every so many where all would overlap."""
    every = math.ceil(len(labels) / _MAX_NAMED)
    ticks = range(0, len(labels), every)
    named = labels[::every]
    size = 9 if len(labels) <= _MAX_ANNOTATED else 8
    upright = 0.08 * max(map(len, named)) < _cell_inches(len(labels))
    turn = 0 if upright else 90
    axes.set_xticks(ticks, named, rotation=turn, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, named, fontsize=size, parse_math=False)
    axes.tick_params(length=0 if every == 1 else 3)
    axes.spines[:].set_visible(False)


def _annotate(axes: Any, image: Any, values: npt.NDArray[np.float64]) -> None:
    """Write each value into its cell, in black or white, whichever stands out more."""
    for (row, column), value in np.ndenumerate(values):
        colour = np.asarray(image.cmap(image.norm(value))[:3])
        # Relative luminance of WCAG 2; below .179 white has the higher contrast.
        dark = row != column and float(colour**2.2 @ [0.2126, 0.7152, 0.0722]) < 0.179
        text = f"{value:.2f}".replace("-0.00", "0.00")
        ink = "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
