"""Results as text tables."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from tabulate import tabulate

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports.rows import ComparisonRow, checked_rows, sparsity_text

Style: TypeAlias = Literal["plain", "markdown"]


def comparison_table(rows: Iterable[Mapping[str, Any]], style: Style = "plain") -> str:
    """A table of methods: one line a (sparsity, method), one column a metric.

    Lines and metric columns come in the order in which the rows first name them. A metric reads
    "mean [low, high]" with three decimals, the mean alone without an interval, a dash where it
    was not measured. A column with the task appears when there are several.

    Args:
        rows: dicts with "task", "sparsity" (0..1 or None), "method", "metric", "mean", "low",
            "high" (both None: no interval), "parameters" (a count or None); "bytes" is optional.
        style: "plain" for a terminal, "markdown" for a document.

    Returns:
        The table, without a line break at its end.

    Raises:
        InvalidArgument: no rows, malformed or repeated rows, parameters or bytes that differ
            between the metrics of one line, an unknown style.

    Example:
        >>> row = {"task": "digits", "sparsity": 0.5, "method": "tickets", "metric": "accuracy",
        ...        "mean": 0.7, "low": 0.68, "high": 0.72, "seeds": [0, 1], "parameters": 12345}
        >>> print(comparison_table([row]))
          sparsity  method    accuracy                parameters
        ----------  --------  --------------------  ------------
              50 %  tickets   0.700 [0.680, 0.720]        12,345
    """
    if style not in get_args(Style):
        raise InvalidArgument(
            f"style: expected one of {list(get_args(Style))}, got {style!r}: use 'plain' to print"
        )
    checked = checked_rows(rows)
    columns = _columns(checked)
    escape = style == "markdown"  # tabulate leaves "|" as it is, which would open a new cell
    cells = [
        [_escaped(cell, escape) for cell in line] for line in zip(*columns.values(), strict=True)
    ]
    counts = {"sparsity", "parameters", "bytes"}
    return tabulate(
        cells,
        headers=[_escaped(name.replace("_", " "), escape) for _, name in columns],
        tablefmt="pipe" if escape else "simple",
        colalign=["right" if kind in counts else "left" for kind, _ in columns],
        disable_numparse=True,
    )


def _columns(rows: list[ComparisonRow]) -> dict[tuple[str, str], list[str]]:
    """(kind, name) -> one cell a line; the kind tells a metric from a column of our own."""
    lines: dict[tuple[str, float | None, str], list[ComparisonRow]] = {}
    for row in rows:
        lines.setdefault(row.line, []).append(row)
    columns = {
        ("task", "task"): [task for task, _, _ in lines],
        ("sparsity", "sparsity"): [sparsity_text(sparsity) for _, sparsity, _ in lines],
        ("method", "method"): [method for _, _, method in lines],
    }
    if len(set(columns["task", "task"])) == 1:
        del columns["task", "task"]
    for metric in dict.fromkeys(row.metric for row in rows):
        columns["metric", metric] = [_metric_cell(group, metric) for group in lines.values()]
    columns["parameters", "parameters"] = [_count(group, "parameters") for group in lines.values()]
    if any(row.bytes is not None for row in rows):
        columns["bytes", "bytes"] = [_count(group, "bytes") for group in lines.values()]
    return columns


def _metric_cell(group: list[ComparisonRow], metric: str) -> str:
    """The cell of one metric."""
    for row in group:
        if row.metric == metric:
            interval = "" if row.low is None else f" [{row.low:.3f}, {row.high:.3f}]"
            return f"{row.mean:.3f}{interval}"
    return "-"


def _count(group: list[ComparisonRow], field: Literal["parameters", "bytes"]) -> str:
    """The cell of a count, which belongs to the line and not to one of its metrics."""
    values = {getattr(row, field) for row in group} - {None}
    if len(values) > 1:
        raise InvalidArgument(
            f"rows: expected one number of {field} for {group[0].line}, got {sorted(values)}: "
            "give every metric of a method the same"
        )
    return f"{values.pop():,.0f}" if values else "-"


def _escaped(cell: str, escape: bool) -> str:
    """A cell, with the column mark of Markdown escaped on demand."""
    return cell.replace("|", "\\|") if escape else cell
