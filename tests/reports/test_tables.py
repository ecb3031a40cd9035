"""The comparison table, cell by cell."""

import pytest

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports import comparison_table


def row(method="tickets", metric="accuracy", mean=0.7, low=None, high=None, **changes):
    base = {"task": "digits", "sparsity": 0.5, "seeds": [0, 1], "parameters": 12345}
    return {**base, "method": method, "metric": metric, "mean": mean, "low": low, "high": high} | (
        changes
    )


ROWS = [
    row(mean=0.70049, low=0.6805, high=0.72),
    row(metric="worst_group", mean=0.5),
    row("IMP single", mean=-1.5, parameters=None),
    row(sparsity=0.9, parameters=1234567.4, low=0.7, high=0.7),
]


def cells(table, mark="  "):
    """The cells of every line of a table but its rules."""
    lines = [line.strip("| ") for line in table.splitlines() if not set(line) <= set("-|: ")]
    return [[cell.strip() for cell in line.split(mark) if cell.strip()] for line in lines]


def test_plain_cells_in_order_of_first_appearance():
    assert cells(comparison_table(ROWS)) == [
        ["sparsity", "method", "accuracy", "worst group", "parameters"],
        ["50 %", "tickets", "0.700 [0.680, 0.720]", "0.500", "12,345"],
        ["50 %", "IMP single", "-1.500", "-", "-"],
        ["90 %", "tickets", "0.700 [0.700, 0.700]", "-", "1,234,567"],
    ]


def test_markdown_has_the_same_cells():
    table = comparison_table(ROWS, style="markdown")
    assert cells(table, "|") == cells(comparison_table(ROWS))
    assert {line.count("|") for line in table.splitlines()} == {6}
    assert table.splitlines()[1].startswith("|---")


def test_bytes_where_present():
    lines = cells(comparison_table([row(bytes=4096), row("dense")]))
    assert lines[0][-1] == "bytes"
    assert [line[-1] for line in lines[1:]] == ["4,096", "-"]


def test_task_column_when_there_are_several():
    lines = cells(comparison_table([row(), row(task="speech")]))
    assert [line[0] for line in lines] == ["task", "digits", "speech"]


def test_metric_names_that_look_alike_keep_their_columns():
    lines = cells(comparison_table([row(metric="a_b", mean=1), row(metric="a b", mean=2)]))
    assert lines[1][2:4] == ["1.000", "2.000"]


def test_names_that_look_like_numbers_or_columns_stay_as_they_are():
    table = comparison_table([row("1e3", mean=1), row("a|b", mean=2)], style="markdown")
    assert "| 1e3 " in table
    assert "| a\\|b " in table


def test_same_table_twice_and_from_an_iterator():
    assert comparison_table(ROWS) == comparison_table(iter(ROWS))


def test_unknown_style():
    with pytest.raises(InvalidArgument, match=r"style: expected one of \['plain', 'markdown'\]"):
        comparison_table(ROWS, style="html")


@pytest.mark.parametrize("field", ["parameters", "bytes"])
def test_a_count_belongs_to_the_line(field):
    rows = [row(**{field: 10}), row(metric="recall", **{field: 11})]
    with pytest.raises(InvalidArgument, match=rf"one number of {field} for .*got \[10.0, 11.0\]"):
        comparison_table(rows)


def test_malformed_rows_are_refused():
    with pytest.raises(InvalidArgument, match="rows: expected at least one row"):
        comparison_table([])
