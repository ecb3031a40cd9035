"""What the page's numbers, axes and colours are made by."""

import numpy as np
import pytest

from rtl_plugin.reports.page import text, theme
from rtl_plugin.reports.page.colour_bins import diverging_bins, sequential_bins
from rtl_plugin.reports.page.scales import nice_step, sparsity_axis, value_axis


def plain(value):
    return value.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2410, "2.41 kB"), (22234, "22.2 kB"),
        (999_499, "999 kB"), (999_600, "1 MB"), (3.2e9, "3.2 GB"), (5e15, "5e+03 TB"),
    ],
)  # fmt: skip
def test_sizes(value, expected):
    assert plain(text.size(value)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds, expected):
    assert plain(text.duration(seconds)) == expected


def test_decimals_have_a_minus_sign_and_no_negative_zero():
    assert text.decimal(-0.25) == "\N{MINUS SIGN}0.250"
    assert text.decimal(-0.0001) == "0.000"
    assert text.decimal(0.0001, sign=True) == "0.000"
    assert text.decimal(0.25, sign=True) == "+0.250"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, text.NONE), (0.0, "0"), (1.0, "1.000"), (0.99996, "1.000"), (-0.25, "-0.2500"),
        (0.001234, "0.001234"), (0.00099, "9.900e-4"), (1.23456e-5, "1.235e-5"), (31.416, "31.42"),
        (999.96, "1,000"), (12345.6, "12,346"), (-3e-7, "-3.000e-7"), (2.5e9, "2.500e9"),
    ],
)  # fmt: skip
def test_losses_of_any_size_have_four_digits(value, expected):
    assert text.number(value).replace("\N{MINUS SIGN}", "-") == expected


@pytest.mark.parametrize(
    ("low", "high"), [(1e-5, 3e-5), (0.0, 1e-4), (2e-12, 2e-12), (-4e-6, 9e-6), (9e-4, 9.01e-4)]
)
def test_small_values_have_an_axis_that_tells_them_apart(low, high):
    axis = value_axis(low, high, 200.0, 10.0)
    labels = [tick.label.replace("\N{MINUS SIGN}", "-") for tick in axis.ticks]
    assert len(set(labels)) == len(labels)
    assert all(len(label) <= 9 for label in labels)
    for tick, label in zip(axis.ticks, labels, strict=True):
        assert axis.place(float(label)) == pytest.approx(tick.at, abs=0.5)
    assert axis.place(low) <= 200.01
    assert axis.place(high) >= 9.99
    assert high == low or axis.place(low) - axis.place(high) > 60
    assert abs(float(labels[-1])) < 5 * max(abs(low), abs(high))


@pytest.mark.parametrize("value", [None, "1", True, float("nan"), float("inf"), [1], 10**400])
def test_what_is_no_number_is_none(value):
    assert text.finite(value) is None


@pytest.mark.parametrize("seconds", [None, 1e30, -1e30])
def test_dates_that_are_none(seconds):
    assert text.date(seconds) == text.NONE


def test_steps_are_round():
    steps = [nice_step(span, 5) for span in (0.011, 0.3, 0.9, 1.0, 7.0, 30.0, 1000.0)]
    assert steps == [0.005, 0.1, 0.2, 0.2, 2.0, 10.0, 200.0]


@pytest.mark.parametrize(
    ("low", "high"), [(0.2, 0.9), (-0.1, 0.3), (5.0, 5.0), (0.0, 0.0), (-3.0, -1.0), (0, 1e-9)]
)
def test_values_lie_within_their_axis(low, high):
    axis = value_axis(low, high, 200.0, 10.0)
    assert 10 - 1e-6 <= axis.place(high) <= axis.place(low) <= 200 + 1e-6
    assert len(axis.ticks) >= 2
    assert axis.ticks[0].at == pytest.approx(200)
    assert axis.ticks[-1].at == pytest.approx(10)
    assert len({tick.label for tick in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize("highest", [0.0, 0.3, 0.75, 0.9, 0.99, 0.9999, 1 - 1e-12])
def test_sparsities_lie_within_their_axis(highest):
    axis = sparsity_axis(highest, 40.0, 346.0)
    assert axis.logarithmic == (highest >= 0.9)
    places = [axis.place(highest * share) for share in (0, 0.5, 1)]
    assert places == sorted(places)
    assert all(39.9 <= place <= 346.1 for place in places)
    gaps = np.diff([tick.at for tick in axis.ticks])
    assert (gaps >= 34).all()


def test_a_logarithmic_axis_takes_equal_steps_for_equal_factors_kept():
    axis = sparsity_axis(0.999, 0.0, 300.0)
    assert [axis.place(s) for s in (0.9, 0.99, 0.999)] == pytest.approx([100, 200, 300])


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 1.0), (0.015, 0.95), (0.2, 0.2), (0.51, 0.5101), (-0.02, 0.3), (0, 0.06)],
)
def test_sequential_steps_cover_the_values(low, high):
    bins = sequential_bins(np.array([low, high]))
    assert bins.edges[0] <= low <= high <= bins.edges[-1]
    assert 2 <= len(bins.classes) <= theme.SEQUENTIAL_BINS
    assert bins.classes[0] == "q0"
    assert bins.classes[-1] == f"q{theme.SEQUENTIAL_BINS - 1}"
    assert len(set(bins.labels)) == len(bins.labels)
    for edge, nxt, k in zip(bins.edges, bins.edges[1:], range(99), strict=False):
        assert bins.steps(np.array([edge + 1e-9, nxt - 1e-9])).tolist() == [k, k]


@pytest.mark.parametrize("reach", [0.03, 0.2, 0.44, 1.0])
def test_diverging_steps_are_symmetric(reach):
    bins = diverging_bins(np.array([-reach / 3, reach]))
    assert bins.edges[-1] >= reach
    assert np.allclose(bins.edges, -np.array(bins.edges)[::-1])
    assert len(bins.classes) <= theme.DIVERGING_BINS
    middle = bins.steps(np.array([-1e-6, 0.0, 1e-6]))
    assert {bins.classes[k] for k in middle} == {"d5"}


@pytest.mark.parametrize("dark", [False, True])
class TestColours:
    def test_text_stands_out(self, dark):
        colours = theme.variables(dark)
        for ground in ("bg", "surface"):
            for ink in ("text", "muted", "link"):
                assert theme.contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)

    def test_lines_and_marks_stand_out(self, dark):
        colours = theme.variables(dark)
        names = [f"c{k}" for k in range(theme.STYLES)] + ["alarm", "axis", "bar", "focus"]
        for name in names:
            assert theme.contrast(colours[name], colours["bg"]) >= 3, name
        assert len({colours[f"c{k}"] for k in range(theme.STYLES)}) == theme.STYLES

    def test_ink_on_cells_stands_out(self, dark):
        colours = theme.variables(dark)
        for family, count in (("q", theme.SEQUENTIAL_BINS), ("d", theme.DIVERGING_BINS)):
            for k in range(count):
                assert theme.contrast(colours[f"{family}i{k}"], colours[f"{family}{k}"]) >= 4.5

    def test_stronger_values_are_further_from_the_background(self, dark):
        colours = theme.variables(dark)
        steps = [colours[f"q{k}"] for k in range(theme.SEQUENTIAL_BINS)]
        away = [theme.contrast(step, colours["bg"]) for step in steps]
        assert away == sorted(away)


def test_both_schemes_define_the_same_variables():
    light, dark = theme.variables(False), theme.variables(True)
    assert light.keys() == dark.keys()
    assert light["bg"] != dark["bg"]


def test_luminance_is_that_of_the_guidelines():
    assert theme.relative_luminance("#000000") == 0
    assert theme.relative_luminance("#808080") == pytest.approx(0.2158605, abs=1e-6)
    assert theme.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)
