"""Tables about the course of a run: rounds, epochs, comparison, arguments, versions."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rtl_plugin.reports.page.reading import Row
from rtl_plugin.reports.page.report_data import ReportData
from rtl_plugin.reports.page.tables import Table, table
from rtl_plugin.reports.page.text import (
    NONE,
    count,
    date,
    decimal,
    duration,
    finite,
    number,
    percent,
    plural,
)
from rtl_plugin.reports.rows import ComparisonRow, sparsity_text

_PACKAGES = ("rtl-plugin", "torch", "numpy", "scipy", "safetensors", "jinja2")


def round_table(data: ReportData) -> Table:
    """One row a round.

    Args:
        data: of the run.

    Returns:
        What was asked and achieved, and the tickets' range of what was measured.
    """
    rounds: dict[int, list[Row]] = {}
    for row in data.run.history:
        rounds.setdefault(row["round"], []).append(row)
    rows = []
    for round in sorted(rounds):
        entries = rounds[round]
        closing = all(row.get("closing") for row in entries)
        floors = sorted({name for row in entries for name in row["at_floor"]})
        rung = sum(isinstance(row.get("alarm"), dict) for row in entries)
        left = sum(row.get("left") is True for row in entries)
        rows.append(
            (
                f"{round} (closing)" if closing else str(round),
                count(len(entries)),
                _range(entries, "asked", percent),
                _range(entries, "achieved", percent),
                *(_range(entries, key, number) for key in ("loss", "metric")),
                *(_range(entries, key, decimal) for key in ("similarity", "excess")),
                f"{rung}" + (f" ({left} left)" if left else "") if rung or left else NONE,
                ", ".join(floors) or NONE,
            )
        )
    columns = (
        *("#round", "#tickets", "#asked", "#achieved", "#loss", f"#{data.metric}", "#similarity"),
        *("#over chance", "#alarms", "at their floor"),
    )
    return table("rounds", "Every round", columns, rows)


def log_table(data: ReportData) -> Table:
    """One row a (round, ticket).

    Args:
        data: of the run.

    Returns:
        Everything that the history and the log say of it.
    """
    seconds = {
        (event.get("round"), event.get("group")): finite(event.get("seconds"))
        for event in data.run.events
        if event.get("event") == "round" and isinstance(event.get("group"), str)
    }
    rows = []
    for row in data.run.history:
        alarm = row.get("alarm")
        spent = seconds.get((row["round"], row["group"]))
        rows.append(
            (
                str(row["round"]),
                row["group"],
                percent(row.get("asked")),
                percent(row["achieved"]),
                count(row.get("kept")),
                percent(row.get("trained_at")),
                number(row.get("loss")),
                number(row.get("metric")),
                decimal(row.get("similarity")),
                decimal(row.get("excess"), sign=True),
                ", ".join(row["at_floor"]) or NONE,
                str(alarm.get("direction")) if isinstance(alarm, dict) else NONE,
                NONE if spent is None else duration(spent),
            )
        )
    columns = (
        *("#round", "ticket", "#asked", "#achieved", "#kept", "#trained at", "#loss"),
        *(f"#{data.metric}", "#similarity", "#over chance", "at their floor", "alarm", "#time"),
    )
    return table("log", "Every round of every ticket", columns, rows)


def _range(rows: Iterable[Row], key: str, text: Any) -> str:
    values = [value for row in rows if (value := finite(row.get(key))) is not None]
    if not values:
        return NONE
    low, high = text(min(values)), text(max(values))
    return str(low) if low == high else f"{low} to {high}"


def epoch_table(data: ReportData) -> Table | None:
    """The joint retraining; None where there was none.

    Args:
        data: of the run.

    Returns:
        One row an epoch: mean, least and greatest loss of the tickets.
    """
    epochs: dict[Any, list[tuple[float, str]]] = {}
    for row in data.run.epochs:
        loss = finite(row.get("loss"))
        if loss is not None:
            epochs.setdefault(row.get("epoch"), []).append((loss, str(row.get("group"))))
    if not epochs:
        return None
    rows = []
    for epoch, losses in epochs.items():
        mean = sum(loss for loss, _ in losses) / len(losses)
        ends = (f"{name} ({number(loss)})" for loss, name in (min(losses), max(losses)))
        rows.append((str(epoch), count(len(losses)), number(mean), *ends))
    columns = ("#epoch", "#tickets", "#mean loss", "~least", "~greatest")
    return table("epochs", "Every epoch", columns, rows)


def retrained_table(data: ReportData) -> Table:
    """How far the joint retraining brought every ticket.

    Args:
        data: of the run.

    Returns:
        One row a ticket: its loss in the first and in the last epoch that it has.
    """
    losses: dict[str, list[float]] = {}
    for row in data.run.epochs:
        loss = finite(row.get("loss"))
        if loss is not None:
            losses.setdefault(str(row.get("group")), []).append(loss)
    rows = [
        (name, count(len(each)), number(each[0]), number(each[-1])) for name, each in losses.items()
    ]
    columns = ("ticket", "#epochs", "#loss in the first", "#in the last")
    return table("retrained", "Every retrained ticket", columns, rows)


def comparison_as_table(rows: Iterable[ComparisonRow]) -> Table:
    """A comparison of methods: one row a (task, sparsity, method), one column a metric.

    Args:
        rows: checked.

    Returns:
        Means with the ends of their intervals.

    Example:
        >>> row = ComparisonRow("toy", 0.5, "tickets", "accuracy", 0.7, 0.6, 0.8, 900, None, 3)
        >>> comparison_as_table([row]).rows[0][2]
        '0.7000 [0.6000, 0.8000]'
    """
    every = list(rows)
    metrics = list(dict.fromkeys(row.metric for row in every))
    lines: dict[Any, dict[str, ComparisonRow]] = {}
    for row in every:
        lines.setdefault(row.line, {})[row.metric] = row
    several = len({row.task for row in every}) > 1
    cells = []
    for (task, sparsity, method), found in lines.items():
        first = next(iter(found.values()))
        cells.append(
            (
                method,
                *((task,) if several else ()),
                sparsity_text(sparsity).replace("-", NONE),
                *(_interval(found.get(metric)) for metric in metrics),
                count(first.parameters),
                count(first.bytes),
                count(first.seeds),
            )
        )
    columns = (
        "method",
        *(("task",) if several else ()),
        "#sparsity",
        *(f"#{metric.replace('_', ' ')}" for metric in metrics),
        *("#parameters", "#bytes", "#seeds"),
    )
    caption = "Every method and task" if several else f"Every method on {every[0].task}"
    return table("comparison", caption, columns, cells)


def _interval(row: ComparisonRow | None) -> str:
    if row is None:
        return NONE
    ends = "" if row.low is None else f" [{number(row.low)}, {number(row.high)}]"
    return number(row.mean) + ends


def argument_tables(data: ReportData) -> list[Table]:
    """What each stage was called with.

    Args:
        data: of the run.

    Returns:
        One table a stage that the folder has.
    """
    return [
        table(
            f"arguments-{stage}",
            f"Arguments of {stage}",
            ("argument", "value"),
            [(str(key), _value(value)) for key, value in content.items()],
        )
        for stage, content in data.run.arguments.items()
    ]


def _value(value: Any) -> str:
    if isinstance(value, dict) and len(value) > 1:
        first, *others = value.values()
        if not isinstance(first, dict | list) and all(other == first for other in others):
            return f"{json.dumps(first)} for each of {', '.join(map(str, value))}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def environment_tables(data: ReportData) -> list[Table]:
    """What the run recorded of its machine, and what wrote this page.

    Args:
        data: of the run.

    Returns:
        Times of the run with the versions that it logged, and versions of the writer.
    """
    events = data.run.events
    times = [value for event in events if (value := finite(event.get("time"))) is not None]
    spent = sum(finite(event.get("seconds")) or 0.0 for event in events)
    run = [
        ("first event", date(min(times, default=None))),
        ("last event", date(max(times, default=None))),
        ("time in rounds and epochs", duration(spent) if events else NONE),
        ("events", plural(len(events), "line") + " of log.jsonl"),
    ]
    for event in events:
        versions = event.get("versions")
        if isinstance(versions, Mapping):
            run += [(f"{event.get('stage')}: {key}", str(value)) for key, value in versions.items()]
    here = [("Python", platform.python_version()), ("system", platform.platform())]
    here += [(name, _version(name)) for name in _PACKAGES]
    here += [("written", date(time.time()))]
    columns = ("what", "value")
    return [
        table("run-environment", "Recorded by the run", columns, run),
        table("page-environment", "What wrote this page", columns, here),
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"
