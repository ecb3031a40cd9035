"""Pictures: what they draw is what they were given."""

import re

import numpy as np
import pytest

from rtl_plugin.reports.page.bars import shared_bars
from rtl_plugin.reports.page.colour_bins import sequential_bins
from rtl_plugin.reports.page.grid import Caption, layer_grid, similarity_grid
from rtl_plugin.reports.page.line_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Point,
    Series,
    line_chart,
)
from rtl_plugin.reports.page.markers import marker_path

CAPTION = Caption("m", "title", "words")


def symmetric(count, seed=0):
    values = np.random.default_rng(seed).uniform(0, 1, (count, count))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    return values


def drawn_steps(grid, shape, bins):
    """Which colour every cell was given: -1 for none, -2 for the diagonal's, or the step."""
    found = np.full(shape, -1)
    covered = set()  # in large pictures the commonest colour lies under the others
    for cells in grid.cells:
        step = -2 if cells.classes == "own" else bins.classes.index(cells.classes)
        parts = re.findall(r"([Mm])([\d.]+) (\d+)h([\d.]+)", cells.path)
        assert "".join(f"{m}{x} {y}h{w}" for m, x, y, w in parts) == cells.path
        row, end = 0, 0.0
        for move, x, y, width in parts:
            row = int(y) + (row if move == "m" else 0)
            left = float(x) + (end if move == "m" else 0)
            end = left + float(width)
            first, last = round(left - 0.01), round(end + 0.01)
            covered |= set(found[row, first:last].tolist()) - {-1}
            found[row, first:last] = step
    assert len(covered) <= (1 if shape[1] > 40 else 0), "cells are drawn twice"
    return found


@pytest.mark.parametrize("count", [2, 5, 12, 13, 40, 41, 90])
def test_a_heat_map_holds_every_value(count):
    values = symmetric(count)
    bins = sequential_bins(values)
    grid = similarity_grid(CAPTION, values, [f"t{k}" for k in range(count)], bins)
    steps = drawn_steps(grid, values.shape, bins)
    upper = np.triu_indices(count, 1)
    assert (steps[upper] == bins.steps(values)[upper]).all()
    assert (np.diag(steps) == -2).all()
    assert (steps[np.tril_indices(count, -1)] == -1).all(), "the template mirrors the upper half"
    assert grid.mirrored


def test_a_heat_map_of_few_writes_the_values():
    values = symmetric(4)
    bins = sequential_bins(values)
    grid = similarity_grid(CAPTION, values, list("abcd"), bins)
    texts = [label.text for label, _ in grid.values]
    expected = [values[i, j] for i in range(4) for j in range(4) if i != j]
    assert [float(text) for text in texts] == pytest.approx(expected, abs=0.005)
    inks = [ink for _, ink in grid.values]
    steps = bins.steps(np.array(expected))
    assert inks == [bins.classes[k].replace("q", "qi") for k in steps]
    assert similarity_grid(CAPTION, symmetric(13), ["x"] * 13, bins).values == ()


def test_rows_are_named_in_full_and_short():
    long = "environment-of-the-first-recording-of-2024"
    grid = similarity_grid(CAPTION, symmetric(2), [long, "b"], sequential_bins(symmetric(2)))
    assert grid.rows[0].whole == long
    assert grid.rows[0].text.startswith("environme")
    assert grid.rows[0].text.endswith("2024 1")
    assert len(grid.rows[0].text) < 24
    assert grid.rows[1].text == "b 2"


def test_many_rows_are_numbered_without_overlap():
    count = 300
    grid = similarity_grid(
        CAPTION, np.full((count, count), 0.5), ["n"] * count, sequential_bins(np.array([0.5]))
    )
    heights = np.diff([label.y for label in grid.rows])
    assert (heights >= 12).all()
    assert [label.text for label in grid.rows] == [label.text for label in grid.columns]
    assert grid.rows[-1].text == "300"
    assert all(0 < label.x + 10 < grid.width for label in grid.columns)


def test_a_uniform_heat_map_of_300_is_small():
    values = np.full((300, 300), 0.5)
    grid = similarity_grid(CAPTION, values, ["n"] * 300, sequential_bins(np.array([0.5])))
    assert sum(len(cells.path) for cells in grid.cells) < 10_000


@pytest.mark.parametrize(("layers", "tickets"), [(1, 1), (3, 5), (60, 13), (200, 300)])
def test_a_layer_map_holds_every_share(layers, tickets):
    values = np.random.default_rng(1).uniform(0, 0.7, (layers, tickets))
    bins = sequential_bins(values)
    names = [f"blocks.{k}.weight" for k in range(layers)]
    grid = layer_grid(CAPTION, values, names, tickets, bins)
    assert (drawn_steps(grid, values.shape, bins) == bins.steps(values)).all()
    assert not grid.mirrored
    assert {label.whole for label in grid.rows} <= set(names)
    assert (np.diff([label.y for label in grid.rows]) >= 11).all()


def test_long_layer_names_lose_what_they_share():
    names = [f"encoder.layers.{k}.attention.weight" for k in range(3)]
    grid = layer_grid(CAPTION, np.full((3, 2), 0.5), names, 2, sequential_bins(np.array([0.5])))
    assert [label.whole for label in grid.rows] == names
    assert not any("weight" in label.text for label in grid.rows)


POINTS = tuple(Point(k, 0.2 * k, 0.9 - 0.1 * k) for k in range(4))


def numbers(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_lines_go_through_their_points():
    chart = line_chart("m", "accuracy", [Series("a", POINTS)], 0.6)
    places = numbers(chart.lines[0].path)
    assert places[0][0] == LEFT
    assert places[-1][0] == WIDTH - RIGHT
    steps = np.diff(np.array(places), axis=0)
    assert steps[:, 0] == pytest.approx(steps[0, 0], abs=0.15)
    assert (steps[:, 1] > 0).all(), "a falling metric goes down the picture"
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in places)


def test_each_of_ten_lines_has_its_own_look():
    series = [Series(f"t{k}", POINTS) for k in range(10)]
    lines = line_chart("m", "accuracy", series, 0.6).lines
    assert len({line.classes for line in lines}) == 10
    # Without colours, dash pattern and marker still tell them apart.
    looks = {(line.classes.split()[1], marker_path(line.number, 0, 0)) for line in lines}
    assert len(looks) == 10
    assert all(line.markers for line in lines)


def test_more_than_ten_lines_have_a_median():
    series = [
        Series(f"t{k}", tuple(Point(p.round, p.sparsity, p.value + k / 100) for p in POINTS))
        for k in range(11)
    ]
    chart = line_chart("m", "accuracy", series, 0.6)
    assert {line.classes for line in chart.lines} == {"thin"}
    assert chart.median == chart.lines[5].path


def test_alarms_and_kept_masks_are_marked_at_their_points():
    marked = (POINTS[0], Point(1, 0.2, 0.8, None, True), Point(2, 0.4, 0.7, "fall"))
    other = (POINTS[0], Point(1, 0.2, 0.6, "rise"))
    chart = line_chart("m", "accuracy", [Series("a", marked), Series("b", other)], 0.4)
    kinds = [(sign.kind, sign.text.partition(",")[0]) for sign in chart.signs]
    assert kinds == [
        ("kept", "a: keeps the mask of round 1"),
        ("alarm", "a: alarm in round 2 (fall)"),
        ("alarm", "b: alarm in round 1 (rise)"),
    ]
    ends = {line.name: numbers(line.path)[-1] for line in chart.lines}
    assert same_place(chart.signs[1].path, ends["a"], upwards=False)
    assert same_place(chart.signs[2].path, ends["b"], upwards=True)
    assert "alarms: a in round 2 (fall), b in round 1 (rise)" in chart.description


def same_place(path, place, upwards):
    """The tip of the arrow stands above or below the place."""
    x, y = numbers(path)[0]
    return abs(x - place[0]) < 0.2 and abs(y - place[1] - (-6.5 if upwards else 6.5)) < 0.2


def test_a_single_point_is_seen():
    chart = line_chart("m", "accuracy", [Series("a", POINTS[:1])], 0.0)
    assert chart.lines[0].path.endswith("h.01")
    assert chart.lines[0].markers


def test_series_without_points_keep_their_colour():
    chart = line_chart("m", "loss", [Series("a", ()), Series("b", POINTS)], 0.6)
    assert [(line.number, line.classes) for line in chart.lines] == [(1, "c1 dash0")]
    assert line_chart("m", "loss", [Series("a", ())], 0.6) is None


def test_zero_is_drawn_where_values_cross_it():
    points = (Point(0, 0.0, -0.1), Point(1, 0.3, 0.2))
    chart = line_chart("m", "excess", [Series("a", points)], 0.3)
    assert TOP < chart.zero < HEIGHT - BOTTOM
    assert line_chart("m", "excess", [Series("a", POINTS)], 0.6).zero is None


def test_markers_are_five_shapes():
    assert len({marker_path(k, 10, 10) for k in range(5)}) == 5
    assert marker_path(5, 10, 10) == marker_path(0, 10, 10)


def test_bars_are_as_high_as_their_shares():
    bars = shared_bars("s", [50, 0, 30, 20])
    tops = [float(y) for y in re.findall(r"M[\d.]+ [\d.]+V([\d.]+)", bars.path)]
    assert len(tops) == 3, "none for an empty count"
    heights = [bars.bottom - top for top in tops]
    assert heights == pytest.approx([heights[0], heights[0] * 0.6, heights[0] * 0.4], abs=0.2)
    assert heights[0] == pytest.approx(bars.bottom - bars.top, abs=0.2), "the axis ends at 50 %"


def test_bars_of_300_tickets_name_some():
    bars = shared_bars("s", [1] * 301)
    assert 5 <= len(bars.x_ticks) <= 16
    assert bars.x_ticks[0].label == "0"


def test_bars_of_one_ticket():
    assert "by the one ticket" in shared_bars("s", [3, 5]).description
