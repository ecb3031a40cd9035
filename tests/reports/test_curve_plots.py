"""Plots of ticket curves: what is drawn where, hostile curves, files."""

import math
import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from rtl_plugin.diagnostics.curves import CurvePoint, TicketCurve, ticket_curves
from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.reports import curve_plots
from rtl_plugin.reports.curve_plots import curves_plot
from rtl_plugin.reports.curve_values import density_scale, mean_lines, sparsity_ticks
from rtl_plugin.reports.figures import DPI

SPARSITIES = (0.0, 0.5, 0.9, 0.99)
RISE = {"round": 2, "direction": "rise", "last_good_round": 1}
FALL = {"round": 3, "direction": "fall", "last_good_round": 2}


def point(number, **known):
    return CurvePoint(round=number, sparsity=SPARSITIES[number], **known)


def curve(points, name="t", left=False, kept_round=None):
    alarm = next((p.alarm for p in points if p.alarm is not None), None)
    kept = points[-1].round if kept_round is None and points else kept_round
    return TicketCurve(name, tuple(points), alarm, left, kept)


def whole(metric=0.9, similarity=0.4, alarms=None):
    """A curve of four points: no similarity of the dense network, no metric after the last."""
    return curve(
        [
            point(
                r,
                metric=metric - 0.1 * r if r < 3 else None,
                loss=0.1 * r,
                similarity=similarity - 0.1 * r if r else None,
                excess=0.01 * r if r else None,
                alarm=(alarms or {}).get(r),
            )
            for r in range(4)
        ]
    )


@pytest.fixture
def figures(monkeypatch):
    """The figures that plots write, instead of the files."""
    written = []
    monkeypatch.setattr(curve_plots, "write_png", lambda figure, target: written.append(figure))
    return written


def drawn(curves, figures, **options):
    curves_plot(curves, "curves.png", **options)
    return figures[-1].axes


def lines(axes, marks=False):
    """Points of the lines, or of the single marks, in the order of drawing."""
    found = [line for line in axes.lines if (line.get_linestyle() == "None") == marks]
    chosen = [line for line in found if marks or line.get_xdata()[0] != line.get_xdata()[-1]]
    return [(line, np.round(line.get_xydata(), 9).tolist()) for line in chosen]


def horizontal(axes):
    return [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]


class TestScale:
    def test_ninety_to_ninety_nine_is_as_wide_as_the_rest(self):
        assert density_scale(0.99) - density_scale(0.9) == pytest.approx(density_scale(0.9))
        assert math.copysign(1, density_scale(0.0)) == 1, "no negative zero"

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (0.0, 0.99, [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99]),
            (0.0, 0.98997, [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99]),
            (0.0, 0.9, [0, 0.25, 0.5, 0.75, 0.9]),
            (0.0, 0.999, [0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999]),
            (0.0, 0.2, [0, 0.05, 0.1, 0.15, 0.2]),
            (0.5, 0.5, [0.5]),
            (0.123456, 0.123456, [0.123456]),
        ],
    )
    def test_ticks(self, low, high, expected):
        assert sparsity_ticks(low, high) == expected

    @pytest.mark.parametrize("high", [0.01, 0.3, 0.63, 0.97, 0.9995, 0.99999])
    def test_ticks_are_apart_and_inside(self, high):
        ticks = sparsity_ticks(0.0, high)
        places = [density_scale(tick) for tick in ticks]
        assert 4 <= len(ticks) <= 18
        assert 0 <= places[0] <= places[-1] <= 1.01 * density_scale(high)
        assert min(np.diff(places)) >= density_scale(high) / 17


class TestMean:
    def test_by_hand(self):
        curves = {"a": whole(metric=0.9), "b": whole(metric=0.7)}
        ((line, complete),) = mean_lines(curves, "metric")
        assert complete
        assert np.allclose(line, [[0, 0.8], [density_scale(0.5), 0.7], [1, 0.6]])

    def test_a_ticket_that_leaves_cuts_the_line(self):
        curves = {"a": whole(), "b": curve(whole(metric=0.7).points[:2])}
        (before, complete), (after, incomplete) = mean_lines(curves, "metric")
        assert (complete, incomplete) == (True, False)
        assert np.allclose(before, [[0, 0.8], [density_scale(0.5), 0.7]])
        assert np.allclose(after, [[density_scale(0.5), 0.7], [1, 0.7]])

    def test_a_gap_is_incomplete_on_both_sides(self):
        with_gap = curve([point(0, loss=1.0), point(1), point(2, loss=1.0), point(3, loss=1.0)])
        full = curve([point(r, loss=3.0) for r in range(4)])
        runs = mean_lines({"a": with_gap, "b": full}, "loss")
        assert [complete for _, complete in runs] == [False, True]
        assert [y for _, y in runs[0][0]] == [2, 3, 2]

    def test_a_ticket_that_never_knows_does_not_count(self):
        curves = {"a": whole(), "b": curve([point(0), point(1)])}
        assert [complete for _, complete in mean_lines(curves, "metric")] == [True]

    def test_tickets_at_different_sparsities_meet_in_the_middle_of_the_axis(self):
        two = {
            name: curve([CurvePoint(1, sparsity, loss=1.0)])
            for name, sparsity in (("a", 0.9), ("b", 0.99))
        }
        assert np.allclose(mean_lines(two, "loss")[0][0], [[1.5, 1]])

    def test_zero_is_a_value(self):
        ((line, complete),) = mean_lines({"a": curve([point(0, loss=0.0)])}, "loss")
        assert (line, complete) == ([(0, 0)], True)

    def test_one_point_and_none(self):
        assert mean_lines({"a": curve([point(1, loss=2.0)])}, "loss")[0][1]
        assert mean_lines({"a": curve([point(1)])}, "loss") == []


class TestPanels:
    def test_metric_above_similarity(self, figures):
        upper, lower = drawn({"a": whole(), "b": whole(metric=0.8)}, figures, metric_name="PSNR")
        assert upper.get_ylabel() == "PSNR"
        assert lower.get_ylabel() == "similarity to the others"
        assert upper.get_title(loc="left") == ""
        assert upper.get_xlim() == lower.get_xlim()

    def test_lines_lie_where_the_points_say(self, figures):
        upper, lower = drawn({"a": whole(), "b": whole(metric=0.7)}, figures)
        half = round(density_scale(0.5), 9)
        first, second, mean = (xy for _, xy in lines(upper))
        assert first == [[0, 0.9], [half, 0.8], [1, 0.7]]
        assert second == [[0, 0.7], [half, 0.6], [1, 0.5]]
        assert mean == [[0, 0.8], [half, 0.7], [1, 0.6]]
        raw, excess = (lines(lower)[number] for number in (0, 3))
        assert raw[1] == [[half, 0.3], [1, 0.2], [2, 0.1]]
        assert excess[1] == [[half, 0.01], [1, 0.02], [2, 0.03]]
        assert raw[0].get_linestyle() == "-"
        assert excess[0].get_linestyle() == "--"
        assert len(horizontal(lower)) == 1, "no excess is a line to compare with"

    def test_the_mean_is_bold_and_black(self, figures):
        upper, _ = drawn({"a": whole(), "b": whole()}, figures)
        widths = [line.get_linewidth() for line, _ in lines(upper)]
        assert widths[-1] == 2.2 > 2 * widths[0]
        colours = [line.get_color() for line, _ in lines(upper)]
        assert colours[-1] == "#000000"
        assert len(set(colours)) == 3

    def test_the_mean_is_dotted_after_a_ticket_left(self, figures):
        left = curve(whole().points[:2], left=True, kept_round=1)
        upper, _ = drawn({"a": whole(), "b": left}, figures)
        assert [line.get_linestyle() for line, _ in lines(upper)] == ["-", "-", "-", ":"]
        assert "mean of the tickets left" in legend(figures[-1])

    def test_one_ticket_has_no_mean_and_no_similarity(self, figures):
        alone = curve([point(r, metric=0.5) for r in range(3)])
        (only,) = drawn({"a": alone}, figures)
        assert len(lines(only)) == 1
        assert only.get_title(loc="left") == "similarity needs two tickets"
        assert legend(figures[-1]) == ["a"]

    def test_loss_where_there_is_no_metric(self, figures):
        made = curve([point(r, loss=0.5, similarity=0.3) for r in range(3)])
        upper, lower = drawn({"a": made, "b": made}, figures)
        assert upper.get_ylabel() == "training loss"
        assert upper.get_title(loc="left") == "no metric was measured"
        assert horizontal(lower) == []
        assert "in excess of chance" not in legend(figures[-1])

    def test_similarity_alone(self, figures):
        made = curve([point(r, similarity=0.3) for r in range(3)])
        (only,) = drawn({"a": made, "b": made}, figures)
        assert only.get_ylabel() == "similarity to the others"

    def test_a_metric_of_two_tickets_without_similarity(self, figures):
        made = curve([point(r, metric=0.3) for r in range(3)])
        (only,) = drawn({"a": made, "b": made}, figures)
        assert only.get_title(loc="left") == "no similarity was recorded"

    def test_a_metric_named_like_the_other_panel(self, figures):
        axes = drawn({"a": whole()}, figures, metric_name="similarity to the others")
        assert len(axes) == 2

    def test_a_single_known_point_shows_as_a_dot(self, figures):
        (only,) = drawn({f"t{k}": curve([point(1, metric=0.5)]) for k in range(20)}, figures)
        assert {line.get_marker() for line in only.lines} == {"o"}
        assert len(only.lines) == 21

    def test_a_ticket_without_any_value_draws_nothing(self, figures):
        upper, _ = drawn({"a": whole(), "b": curve([point(0)])}, figures)
        assert len(lines(upper)) == 2

    def test_ticks_say_sparsity(self, figures):
        _, lower = drawn({"a": whole()}, figures)
        labels = [label.get_text() for label in lower.get_xticklabels()]
        assert labels == ["0 %", "25 %", "50 %", "75 %", "90 %", "95 %", "98 %", "99 %"]
        assert lower.get_xticks()[-1] == pytest.approx(2)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestMarks:
    def test_alarms_on_the_lines_of_both_panels(self, figures):
        curves = {"a": whole(alarms={2: RISE}), "b": whole(metric=0.7, alarms={1: FALL})}
        upper, lower = drawn(curves, figures)
        half = round(density_scale(0.5), 9)
        assert [xy for _, xy in lines(upper, marks=True)] == [[[1, 0.7]], [[half, 0.6]]]
        assert [xy for _, xy in lines(lower, marks=True)] == [[[1, 0.2]], [[half, 0.3]]]
        assert [line.get_marker() for line, _ in lines(upper, marks=True)] == ["^", "v"]
        assert legend(figures[-1])[-2:] == ["alarm: similarity rises", "alarm: similarity falls"]

    def test_an_alarm_where_the_metric_is_unknown_stands_on_the_axis(self, figures):
        upper, lower = drawn({"a": whole(alarms={3: FALL}), "b": whole()}, figures)
        ((mark, xy),) = lines(upper, marks=True)
        assert xy == [[2, 0]]
        assert mark.get_transform() == upper.get_xaxis_transform()
        assert upper.get_ylim()[0] > 0.5, "which does not stretch the axis"
        ((_, xy),) = lines(lower, marks=True)
        assert xy == [[2, 0.1]]

    def test_only_what_rang_is_explained(self, figures):
        drawn({"a": whole(alarms={2: RISE})}, figures)
        assert [entry for entry in legend(figures[-1]) if "alarm" in entry] == [
            "alarm: similarity rises"
        ]
        drawn({"a": whole()}, figures)
        assert not any("alarm" in entry for entry in legend(figures[-1]))

    def test_the_masks_that_a_ticket_kept(self, figures):
        points = whole(alarms={2: RISE}).points[:3]
        upper, lower = drawn({"a": curve(points, left=True, kept_round=1), "b": whole()}, figures)
        half = round(density_scale(0.5), 9)
        for axes, y in ((upper, 0.8), (lower, 0.3)):
            (_, alarm), (ring, kept) = lines(axes, marks=True)
            assert alarm[0][0] == 1
            assert kept == [[half, y]]
            assert ring.get_markerfacecolor() == "none"
        assert legend(figures[-1])[-1] == "masks kept"

    def test_a_whole_run_from_its_history(self, figures):
        rows = [
            {
                "round": r,
                "group": name,
                "achieved": SPARSITIES[r],
                "loss": 0.1 * r,
                "metric": 0.9 - 0.1 * r,
                "similarity": 0.5 / r,
                "excess": 0.1 / r,
                "alarm": RISE if r == 2 and name == "a" else None,
                "left": r == 2 and name == "a",
            }
            for name in ("a", "b")
            for r in range(1, 4 if name == "b" else 3)
        ]
        upper, _ = drawn(ticket_curves(rows), figures)
        assert lines(upper)[1][1] == [
            [0, 0.8], [round(density_scale(0.5), 9), 0.7], [1, 0.6]
        ]  # fmt: skip
        assert legend(figures[-1])[-2:] == ["alarm: similarity rises", "masks kept"]


class TestCrowds:
    @pytest.mark.parametrize(("count", "named"), [(12, 12), (13, 0)])
    def test_up_to_twelve_are_named(self, figures, count, named):
        drawn({f"t{k}": whole() for k in range(count)}, figures)
        entries = legend(figures[-1])
        assert sum(entry.startswith("t") for entry in entries) == named
        assert (f"{count} tickets" in entries) == (not named)

    def test_twelve_differ_by_colour_or_marker(self, figures):
        upper, _ = drawn({f"t{k}": whole() for k in range(12)}, figures)
        looks = {(line.get_color(), line.get_marker()) for line, _ in lines(upper)}
        assert len(looks) == 13

    def test_three_hundred_fade(self, figures):
        upper, lower = drawn({f"t{k}": whole(alarms={2: RISE}) for k in range(300)}, figures)
        thin = [line for line, _ in lines(upper)][:-1]
        assert len(thin) == 300
        assert {line.get_alpha() for line in thin} == {0.06}
        assert {line.get_color() for line in thin} == {thin[0].get_color()}
        raw, excess = lines(lower)[0][0], lines(lower)[-2][0]
        assert raw.get_color() != excess.get_color(), "told apart by more than dashes"
        assert lines(upper)[-1][0].get_alpha() is None, "the mean does not fade"

    def test_names_that_a_legend_would_hide_or_typeset(self, figures):
        drawn({"_a $x_1$": whole(), "n" * 100: whole(), "two\nlines": whole()}, figures)
        assert legend(figures[-1])[0] == "_a $x_1$"
        assert len(legend(figures[-1])[1]) == 32
        assert legend(figures[-1])[2] == "two lines"
        assert not figures[-1].legends[0].get_texts()[0].get_parse_math()

    def test_labels_with_dollars_and_a_long_metric(self, figures):
        upper, _ = drawn({"a": whole()}, figures, metric_name="$" + "m" * 99, title="a $5 title")
        assert figures[-1].get_suptitle() == "a $5 title"
        assert len(upper.get_ylabel()) == 32
        assert not upper.yaxis.label.get_parse_math()


class TestRefused:
    @pytest.mark.parametrize(
        ("curves", "message"),
        [
            ({}, "curves: expected a mapping of at least one ticket name to its curve, got none"),
            ([], "expected a mapping of at least one ticket name to its curve, got list"),
            ({"": whole()}, "curves: expected ticket names as keys, got ''"),
            ({3: whole()}, "curves: expected ticket names as keys, got 3"),
            ({"a": curve([])}, r"curves\['a'\]: expected at least one point, got none"),
            ({"a": curve([point(0)])}, "expected a metric, loss or similarity in at least one"),
            ({"a": curve([point(1), point(0)])}, "expected ascending rounds, got 0 after 1"),
            ({"a": curve([point(1), point(1)])}, "expected ascending rounds, got 1 after 1"),
            (
                {"a": curve([point(1)], left=True, kept_round=7)},
                r"curves\['a'\]: expected kept_round to be the round of a point, got 7",
            ),
        ],
    )
    def test_no_curves(self, curves, message, tmp_path):
        with pytest.raises(InvalidArgument, match=message):
            curves_plot(curves, tmp_path / "curves.png")

    @pytest.mark.parametrize("bad", [1.0, -0.1, float("nan"), None, True, "0.5"])
    def test_a_sparsity_out_of_range(self, bad, tmp_path):
        curves = {"a": curve([CurvePoint(round=2, sparsity=bad, metric=0.5)])}
        with pytest.raises(InvalidArgument, match=r"'a'\], round 2: expected a sparsity in \[0, 1"):
            curves_plot(curves, tmp_path / "curves.png")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), "0.5", True])
    @pytest.mark.parametrize("field", ["metric", "loss", "similarity", "excess"])
    def test_a_value_that_is_no_number(self, field, bad, tmp_path):
        curves = {"a": curve([point(1, **{field: bad})])}
        with pytest.raises(InvalidArgument, match=f"round 1: expected {field} as a finite number"):
            curves_plot(curves, tmp_path / "curves.png")

    @pytest.mark.parametrize("bad", [{}, {"direction": "up"}])
    def test_an_alarm_without_direction(self, bad, tmp_path):
        curves = {"a": curve([point(1, metric=0.5, alarm=bad)])}
        with pytest.raises(InvalidArgument, match=r"expected an alarm with a direction of \['rise"):
            curves_plot(curves, tmp_path / "curves.png")

    @pytest.mark.parametrize("name", ["curves.pdf", "curves", ""])
    def test_another_format(self, name, tmp_path):
        with pytest.raises(InvalidArgument, match=r"a file name ending in \.png or \.svg, got"):
            curves_plot({"a": whole()}, tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_of_that_name(self, tmp_path):
        (tmp_path / "curves.svg").mkdir()
        with pytest.raises(InvalidArgument, match=r"a file name ending in \.png or \.svg, got"):
            curves_plot({"a": whole()}, tmp_path / "curves.svg")


CURVES = {"a": whole(alarms={2: RISE}), "b <&> $": whole(metric=0.7)}


class TestFiles:
    def test_png_size(self, tmp_path):
        from matplotlib.image import imread

        curves_plot(CURVES, tmp_path / "new" / "curves.PNG")
        height, width, _ = imread(tmp_path / "new" / "curves.PNG", format="png").shape
        assert (width, height) == (int(8.4 * DPI), int((1.2 + 2 * 2.8) * DPI))
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["curves.PNG"]

    def test_svg_is_one_valid_document_that_loads_nothing(self, tmp_path):
        curves_plot(CURVES, tmp_path / "curves.svg", title="Tickets & <alarms>")
        text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        svg = "{http://www.w3.org/2000/svg}"
        assert root.tag == f"{svg}svg"
        assert root.find(f"{svg}title").text == "Tickets & <alarms>"
        assert len(list(root.iter(f"{svg}path"))) > 20
        links = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert all(link.startswith("#") for link in links)
        assert not list(root.iter(f"{svg}image"))

    @pytest.mark.parametrize("suffix", ["png", "svg"])
    def test_same_bytes_twice(self, suffix, tmp_path):
        for name in ("a", "b"):
            curves_plot(CURVES, tmp_path / f"{name}.{suffix}")
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second

    @pytest.mark.parametrize("suffix", ["png", "svg"])
    def test_settings_are_left_as_they_were_and_pyplot_out(self, suffix, tmp_path, monkeypatch):
        import matplotlib

        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would raise
        before = dict(matplotlib.rcParams)
        curves_plot(CURVES, tmp_path / f"curves.{suffix}")
        assert dict(matplotlib.rcParams) == before

    def test_missing_library_names_the_install_command(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[report\]'"):
            curves_plot(CURVES, tmp_path / "curves.png")
