"""Metric and similarity of every ticket against sparsity, in the shape of the paper's Figure 2.

Source: Stefański, Presta, Byra, arXiv 2601.22141, Figure 2 (subnetwork collapse).
"""

import io
import os
from pathlib import Path
from typing import Any

from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.diagnostics.curves import CurvePoint
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.reports.curve_values import (
    Curves,
    Line,
    Panel,
    check_curves,
    density_scale,
    has_values,
    line_of,
    mean_lines,
    note_of,
    panels_of,
    sparsity_ticks,
)
from rtl_plugin.reports.figures import COLOURS, new_figure, shortened, title_inches, write_png
from rtl_plugin.reports.rows import sparsity_text

_MAX_NAMED = 12
_MARKS = ("o", "s")
_CROWD = {"metric": COLOURS[0], "loss": COLOURS[0], "similarity": COLOURS[0], "excess": COLOURS[1]}
_ALARMS = {"rise": ("^", "similarity rises"), "fall": ("v", "similarity falls")}
_ALARM = {"markerfacecolor": "#C00000", "markeredgecolor": "white", "markeredgewidth": 0.6}
_KEPT = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "#000000"}
_MEAN = {"color": "#000000", "linewidth": 2.2, "zorder": 4}


def curves_plot(
    curves: Curves,
    path: str | os.PathLike[str],
    *,
    metric_name: str = "accuracy",
    title: str = "Tickets while they are pruned",
) -> None:
    """Draw every ticket's metric and similarity against its sparsity, with the alarms.

    The upper panel shows the metric, or the training loss where no ticket has a metric; the lower
    one the mean similarity with the other tickets, raw (solid) and in excess of chance (dashed).
    A panel without a value is left out, and a note says so. Thin lines are tickets, the bold one
    their mean; from the round on at which a ticket is missing it is dotted, a mean of the rest.
    Alarms are red triangles; a ticket that left the rounds has a ring at the masks that it kept.
    The horizontal axis is the logarithm of the density, so that 90 to 99 % is as wide as 0 to
    90 %. Up to 12 tickets are named; more share one faded colour.

    Args:
        curves: ticket name -> curve, from `ticket_curves`.
        path: the file to write, ending in ".png" or ".svg"; missing folders are made.
        metric_name: what the metric is, for the axis.
        title: one line above the picture.

    Raises:
        InvalidArgument: no curve, a curve without points, rounds not ascending, a sparsity outside
            [0, 1), a value that is neither a finite number nor None, nothing at all to draw, a path
            that is neither a PNG nor an SVG file.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> from rtl_plugin.diagnostics.curves import ticket_curves
        >>> history = [
        ...     {"round": r, "group": name, "achieved": s, "metric": 1 - s / 4, "similarity": 1 - s}
        ...     for name in ("indoor", "street") for r, s in ((1, 0.5), (2, 0.9))
        ... ]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "curves.png")
        ...     curves_plot(ticket_curves(history), path)
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    target = _picture_path(path)
    check_curves(curves)
    panels = panels_of(curves, metric_name)
    named = len(curves) <= _MAX_NAMED
    figure = new_figure(max(8.4 if named else 7.6, title_inches(title)), 1.2 + 2.8 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, fields) in zip(grid, panels, strict=True):
        _draw_panel(axes, curves, fields)
        axes.set_ylabel(shortened(label), fontsize=9, parse_math=False)
    _draw_sparsity_axis(grid[-1], curves)
    note = note_of(curves)
    if note:
        grid[0].set_title(note, loc="left", fontsize=8, color="#555555")
    _draw_legend(figure, _legend_entries(curves, panels))
    figure.suptitle(title, fontsize=11, parse_math=False)
    if target.suffix.lower() == ".svg":
        write_svg(figure, target, title)
    else:
        write_png(figure, target)


def write_svg(figure: Any, target: Path, title: str) -> None:
    """Render a figure as SVG and write it atomically; the same figure gives the same bytes.

    Args:
        figure: from `new_figure`.
        target: the file; missing parent folders are made.
        title: the picture's title in its metadata.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_svg(new_figure(1, 1), Path(folder, "empty.svg"), "nothing")
        ...     Path(folder, "empty.svg").read_text(encoding="utf-8")[:5]
        '<?xml'
    """
    canvas = require("matplotlib.backends.backend_svg", "report", "plots").FigureCanvasSVG
    settings = require("matplotlib", "report", "plots").rc_context
    content = io.StringIO()
    # Identifiers are random without a salt; the date and the version would differ as well.
    with settings({"svg.hashsalt": "rtl-plugin"}):
        canvas(figure).print_svg(content, metadata={"Title": title, "Date": None, "Creator": None})
    write_atomically(target, content.getvalue().encode("utf-8"))


def _picture_path(path: str | os.PathLike[str]) -> Path:
    """The path of a PNG or SVG file to write."""
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg") or target.is_dir():
        raise InvalidArgument(
            f"path: expected a file name ending in .png or .svg, got {os.fspath(path)!r}: the "
            "ending chooses the format"
        )
    return target


def _draw_panel(axes: Any, curves: Curves, fields: tuple[str, ...]) -> None:
    """All tickets thin, their mean bold, their alarms."""
    for field in fields:
        dashes = "--" if field == "excess" else "-"
        for number, curve in enumerate(curves.values()):
            look = _look(number, len(curves), field)
            _draw_line(axes, line_of(curve, field), {**look, "linestyle": dashes})
        for line, whole in mean_lines(curves, field) if len(curves) > 1 else ():
            _draw_line(axes, line, {**_MEAN, "linestyle": dashes if whole else ":"})
    if "excess" in fields:
        axes.axhline(0, color="#999999", linewidth=0.8, zorder=1)
    named = len(curves) <= _MAX_NAMED
    for curve in curves.values():
        for point in curve.points:
            if point.alarm is not None:
                _draw_alarm(axes, point, fields[0], named)
        if curve.left:
            _draw_mark(axes, curve.kept, fields[0], {**_KEPT, "markersize": 8 if named else 4})
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _look(number: int, count: int, field: str) -> dict[str, Any]:
    """Colour, width and marker of one of so many tickets."""
    if count > _MAX_NAMED:
        # So that a crowd of any size darkens the picture about as much.
        return {"color": _CROWD[field], "linewidth": 0.7, "alpha": max(0.06, 5 / count)}
    colours = COLOURS[:-1]  # black is the mean's
    return {
        "color": colours[number % len(colours)],
        "linewidth": 1.0 if count > 1 else 2.0,
        "alpha": 0.85,
        "marker": _MARKS[number // len(colours) % len(_MARKS)],
        "markersize": 3,
    }


def _draw_line(axes: Any, line: Line, look: dict[str, Any]) -> None:
    """One line; a single point of it is drawn as a dot, for it would not show."""
    if not line:
        return
    if len(line) == 1 and "marker" not in look:
        look = {**look, "marker": "o", "markersize": 3}
    axes.plot([x for x, _ in line], [y for _, y in line], **{"zorder": 2, **look})


def _draw_alarm(axes: Any, point: CurvePoint, field: str, named: bool) -> None:
    """A triangle that points where the similarity went."""
    mark = "" if point.alarm is None else _ALARMS[point.alarm["direction"]][0]
    look = {"markersize": 8, "alpha": 0.9} if named else {"markersize": 5, "alpha": 0.6}
    _draw_mark(axes, point, field, {**_ALARM, **look, "marker": mark})


def _draw_mark(axes: Any, point: CurvePoint, field: str, look: dict[str, Any]) -> None:
    """A mark on the ticket's line, or on the axis where the value is unknown."""
    value = getattr(point, field)
    where = axes.get_xaxis_transform() if value is None else axes.transData
    x, y = density_scale(point.sparsity), 0.0 if value is None else value
    axes.plot([x], [y], transform=where, clip_on=False, zorder=5, linestyle="none", **look)


def _draw_sparsity_axis(axes: Any, curves: Curves) -> None:
    """Ticks that say sparsity on an axis spaced by the logarithm of density."""
    sparsities = [point.sparsity for curve in curves.values() for point in curve.points]
    ticks = sparsity_ticks(min(sparsities), max(sparsities))
    axes.set_xticks([density_scale(tick) for tick in ticks], [sparsity_text(t) for t in ticks])
    axes.set_xlabel("sparsity (spaced by the logarithm of density)", fontsize=9)


def _legend_entries(curves: Curves, panels: list[Panel]) -> list[tuple[str, dict[str, Any]]]:
    """Names of few tickets, and what line styles and marks mean."""
    count, first = len(curves), panels[0][1][0]
    entries: list[tuple[str, dict[str, Any]]] = []
    if count <= _MAX_NAMED:
        for number, name in enumerate(curves):
            entries.append((shortened(" ".join(name.split())), _look(number, count, first)))
    else:
        entries.append((f"{count} tickets", {"color": _CROWD[first], "alpha": 0.5}))
    if count > 1:
        entries.append(("mean", _MEAN))
        lines = [mean_lines(curves, field) for _, fields in panels for field in fields]
        if not all(whole for runs in lines for _, whole in runs):
            entries.append(("mean of the tickets left", {**_MEAN, "linestyle": ":"}))
    if has_values(curves, "excess"):
        colour = _CROWD["excess"] if count > _MAX_NAMED else "#555555"
        entries.append(("in excess of chance", {"color": colour, "linestyle": "--"}))
    rung = {p.alarm["direction"] for c in curves.values() for p in c.points if p.alarm is not None}
    for direction, (mark, text) in _ALARMS.items():
        if direction in rung:
            look = {**_ALARM, "marker": mark, "linestyle": "none", "markersize": 8}
            entries.append((f"alarm: {text}", look))
    if any(curve.left for curve in curves.values()):
        entries.append(("masks kept", {**_KEPT, "linestyle": "none", "markersize": 8}))
    return entries


def _draw_legend(figure: Any, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """The legend at the right of the panels."""
    line = require("matplotlib.lines", "report", "plots").Line2D
    handles = [line([], [], **look) for _, look in entries]
    # Names come in afterwards: a leading underscore would hide an entry, a dollar mean a formula.
    legend = figure.legend(
        handles,
        [str(n) for n in range(len(handles))],
        loc="outside right upper",
        fontsize=8,
        frameon=False,
    )
    for text, (name, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
