"""A run folder as one HTML page."""

import importlib.resources
import os
from pathlib import Path
from typing import Any

from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.reports.page import charts, run_tables, ticket_tables
from rtl_plugin.reports.page.markers import arrow_path, marker_path, n
from rtl_plugin.reports.page.report_data import ReportData, collected
from rtl_plugin.reports.page.summary import absent_parts, key_figures, standing
from rtl_plugin.reports.page.theme import STYLES, style_sheet
from rtl_plugin.reports.page.watching import silence

_TEMPLATES = ("page.html.j2", "sections.html.j2", "pictures.html.j2", "tables.html.j2")


def write_report(
    run_folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    comparison: str | os.PathLike[str] | None = None,
    title: str | None = None,
    metric: str = "accuracy",
) -> None:
    """Write one self-contained HTML page about a run folder, which is only read.

    Every part that the folder has is on the page: curves with alarms, heat maps of similarity,
    layers, shared weights and bytes, the round log, retraining, a comparison, arguments, versions.
    What it lacks is named with what would make it; what cannot be read is named with the reason.

    Args:
        run_folder: of ``discover``, ``retrain``, ``compare`` or the quickstart, finished or not.
        path: the file to write, ending in ".html" or ".htm"; missing folders are made.
        comparison: JSON of ``rtl-plugin compare --json``; by default the one in the folder.
        title: the page's heading; by default the folder's name.
        metric: what ``discover(evaluate=...)`` measured, as the page is to call it.

    Raises:
        InvalidArgument: a path that cannot be an HTML file, an empty title or name, or a
            comparison that is none.
        MissingFile: no run folder at that path, or no comparison.
        MissingExtra: jinja2 or scipy is not installed.
        OSError: the page cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> folder = Path(tempfile.mkdtemp())
        >>> a = Ticket("a", {"w": torch.tensor([True, False])})
        >>> TicketSet([a, Ticket("b", a.masks)]).save(folder / "tickets.safetensors")
        >>> write_report(folder, folder / "report.html", title="Two tickets")
        >>> "<h1>Two tickets</h1>" in (folder / "report.html").read_text(encoding="utf-8")
        True
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm") or target.is_dir():
        raise InvalidArgument(
            f"path: expected a file name ending in .html, got {os.fspath(path)!r}: the report is "
            "one HTML page"
        )
    data = collected(run_folder, comparison=comparison, title=title, metric=metric)
    write_atomically(target, page(data).encode("utf-8"))


def page(data: ReportData) -> str:
    """The page as text.

    Args:
        data: of the run.

    Returns:
        HTML.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    jinja2 = require("jinja2", "report", "the report page")
    files = importlib.resources.files("rtl_plugin.reports.page")
    sources = {name: files.joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATES}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,  # names of tickets are the user's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = n
    # No user text is in these two: they are constants of the package.
    safe = require("markupsafe", "report", "the report page").Markup
    style = safe(files.joinpath("style.css").read_text(encoding="utf-8"))
    context = _context(data) | {"style": style, "theme": safe(style_sheet())}
    return str(environment.get_template("page.html.j2").render(context))


def _context(data: ReportData) -> dict[str, Any]:
    context: dict[str, Any] = {
        "data": data,
        "figures": key_figures(data),
        "absent": absent_parts(data),
        "standing": standing(data),
        "charts": charts.curve_charts(data),
        "styled": len(data.curves) <= STYLES,
        "legend_markers": [marker_path(k, 15, 8) for k in range(STYLES)],
        "signs": {
            "rise": arrow_path(True, 15, 9),
            "fall": arrow_path(False, 15, 7),
            "kept": marker_path(0, 15, 8, 5.5),
        },
        "silence": silence(data),
        "broken": _goes_on_after_a_departure(data),
        "alarm_table": ticket_tables.alarm_table(data),
        "has_versions": any(isinstance(e.get("versions"), dict) for e in data.run.events),
        "has_metric": any(row.get("metric") is not None for row in data.run.history),
        "round_table": run_tables.round_table(data),
        "log_table": run_tables.log_table(data),
        "epoch_table": run_tables.epoch_table(data),
        "retrained_table": run_tables.retrained_table(data),
        "comparison_table": (
            run_tables.comparison_as_table(data.comparison) if data.comparison else None
        ),
        "argument_tables": run_tables.argument_tables(data),
        "environment_tables": run_tables.environment_tables(data),
    }
    context |= _about_masks(data)
    return context | {"contents": _contents(context)}


def _goes_on_after_a_departure(data: ReportData) -> bool:
    points = [point for curve in data.curves.values() for point in curve.points]
    return any(point.round > last for last in data.departures[:1] for point in points)


def _about_masks(data: ReportData) -> dict[str, Any]:
    facts = data.masks
    if facts is None:
        return {"ticket_table": None, "maps": [], "layer_map": None}
    several = len(facts.names) > 1
    layer_map, layer_bins = charts.layer_map(facts)
    return {
        "ticket_table": ticket_tables.ticket_table(data, facts),
        "maps": charts.similarity_maps(facts) if several else [],
        "similarity_tables": ticket_tables.similarity_tables(facts) if several else [],
        "order_table": ticket_tables.order_table(facts),
        "layer_map": layer_map,
        "layer_bins": layer_bins,
        "layer_table": ticket_tables.layer_table(facts),
        "kept_table": ticket_tables.kept_table(facts),
        "sharing": charts.sharing_bars(facts),
        "shared_table": ticket_tables.shared_table(facts),
        "bytes_table": ticket_tables.bytes_table(facts),
    }


def _contents(context: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and name of every section that the page has."""
    masks = context["layer_map"] is not None
    sections = [
        ("summary", "Summary", True),
        ("tickets", "Tickets", masks),
        ("curves", "Curves", bool(context["charts"])),
        ("similarity", "Similarity", bool(context["maps"])),
        ("layers", "Layers", masks),
        ("sharing", "Shared weights and bytes", masks),
        ("rounds", "Round log", bool(context["round_table"].rows)),
        ("retraining", "Retraining", True),
        ("methods", "Comparison", True),
        ("arguments", "Arguments", True),
        ("environment", "Environment", True),
    ]
    return [(key, name) for key, name, shown in sections if shown]
