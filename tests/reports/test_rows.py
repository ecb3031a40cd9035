"""Rows of the benchmark format."""

import pytest

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports.rows import checked_rows, sparsity_text


def row(**changes):
    base = {
        "task": "digits",
        "sparsity": 0.5,
        "method": "tickets",
        "metric": "accuracy",
        "mean": 0.7,
        "low": 0.6,
        "high": 0.8,
        "seeds": [0, 1],
        "parameters": 900,
    }
    return {**base, **changes}


def test_fields_and_counts():
    (checked,) = checked_rows([row(bytes=3600)])
    assert checked.line == ("digits", 0.5, "tickets")
    assert (checked.mean, checked.low, checked.high) == (0.7, 0.6, 0.8)
    assert (checked.parameters, checked.bytes, checked.seeds) == (900, 3600, 2)


@pytest.mark.parametrize(("given", "count"), [([3, 4, 5], 3), (5, 5), ((0,), 1), (None, None)])
def test_seeds_as_a_list_or_a_number(given, count):
    assert checked_rows([row(seeds=given)])[0].seeds == count


def test_seeds_and_bytes_may_be_absent():
    given = row()
    del given["seeds"]
    (checked,) = checked_rows([given])
    assert checked.seeds is None
    assert checked.bytes is None


def test_no_rows():
    with pytest.raises(InvalidArgument, match="rows: expected at least one row, got none"):
        checked_rows([])


@pytest.mark.parametrize("bad", ["task", ["task"], None])
def test_not_a_mapping(bad):
    with pytest.raises(InvalidArgument, match=r"rows\[1\]: expected a mapping, got"):
        checked_rows([row(), bad])


@pytest.mark.parametrize("key", [key for key in row() if key != "seeds"])
def test_a_missing_key_is_named(key):
    given = row()
    del given[key]
    with pytest.raises(InvalidArgument, match=rf"rows\[0\]: .*got none named \['{key}'\]"):
        checked_rows([given])


def test_the_same_metric_twice():
    with pytest.raises(InvalidArgument, match=r"rows\[1\]: expected one row per .*second one"):
        checked_rows([row(), row(mean=0.65)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": float("nan")}, r"rows\[0\]\['mean'\]: expected a finite number, got nan"),
        ({"mean": None}, r"rows\[0\]\['mean'\]: expected a finite number, got None"),
        ({"mean": "0.7"}, r"\['mean'\]: expected a finite number, got '0.7'"),
        ({"mean": True}, r"\['mean'\]: expected a finite number, got True"),
        ({"low": float("inf")}, r"\['low'\]: expected a finite number"),
        ({"low": None}, "expected low <= mean <= high, or low and high both None, got low=None"),
        ({"low": 0.75}, "expected low <= mean <= high"),
        ({"high": 0.65}, "expected low <= mean <= high"),
        ({"sparsity": 50}, r"\['sparsity'\]: expected a fraction in 0..1, got 50.0"),
        ({"sparsity": -0.1}, "expected a fraction"),
        ({"method": ""}, r"\['method'\]: expected a name of one line, got ''"),
        ({"metric": None}, r"\['metric'\]: expected a name"),
        ({"task": "a\nb"}, r"\['task'\]: expected a name of one line"),
        ({"parameters": -1}, r"\['parameters'\]: expected a count >= 0, got -1"),
        ({"bytes": "1K"}, r"\['bytes'\]: expected a finite number, got '1K'"),
        ({"seeds": []}, r"\['seeds'\]: expected a list of seeds or their number"),
        ({"seeds": 0}, r"\['seeds'\]: expected a list"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(InvalidArgument, match=message):
        checked_rows([row(**changes)])


@pytest.mark.parametrize(
    ("sparsity", "text"),
    [(0.0, "0 %"), (0.07, "7 %"), (0.5, "50 %"), (0.975, "97.5 %"), (1, "100 %"), (None, "-")],
)
def test_sparsity_text(sparsity, text):
    assert sparsity_text(sparsity) == text
