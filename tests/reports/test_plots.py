"""Plots: valid PNG files of the expected size and content, nothing global touched."""

import struct
import sys
import zlib

import numpy as np
import pytest

from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.reports import accuracy_by_method, plots, similarity_heat_map
from rtl_plugin.reports.figures import DPI, shortened
from rtl_plugin.reports.rows import checked_rows


def png_size(path):
    """Width and height of a PNG whose chunks are all complete and undamaged."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    position, kinds = 8, []
    while position < len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 4 : position + 8 + length]
        (checksum,) = struct.unpack(">I", content[position + 8 + length : position + 12 + length])
        assert zlib.crc32(body) == checksum
        kinds.append(kind)
        position += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    return struct.unpack(">II", content[16:24])


def similarity(count, low=0.3, high=0.6):
    values = np.random.default_rng(count).uniform(low, high, (count, count))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    return values


def names(count):
    return [f"ticket {index}" for index in range(count)]


def row(method="tickets", sparsity=0.5, mean=0.7, half=0.02, **changes):
    base = {"task": "digits", "metric": "accuracy", "seeds": [0, 1, 2], "parameters": 900}
    ends = (
        {"low": None, "high": None} if half is None else {"low": mean - half, "high": mean + half}
    )
    return {**base, "method": method, "sparsity": sparsity, "mean": mean, **ends, **changes}


ROWS = [
    row("tickets", 0.9, 0.6),
    row("single", 0.9, 0.65),
    row("tickets", 0.5, 0.8),
    row("single", 0.5, 0.7, half=None),
    row("tickets", 0.5, 0.4, metric="worst_group"),
]


@pytest.fixture
def figures(monkeypatch):
    """The figures that plots write, instead of the files."""
    written = []
    monkeypatch.setattr(plots, "write_png", lambda figure, target: written.append(figure))
    return written


class TestHeatMap:
    def test_size_in_pixels(self, tmp_path):
        path = tmp_path / "map.png"
        similarity_heat_map(similarity(5), names(5), path, title="x")
        # Five cells of half an inch, names of eight characters, and the fixed margins.
        side = 5 * 0.5 + 8 * 0.085
        assert png_size(path) == (int((side + 1.7) * DPI), int((side + 0.9) * DPI))

    @pytest.mark.parametrize("count", [1, 2, 12, 13, 61])
    def test_any_number_of_tickets(self, tmp_path, count):
        path = tmp_path / "map.png"
        similarity_heat_map(similarity(count), names(count), path)
        width, height = png_size(path)
        assert 300 < height < width < 3000

    def test_same_bytes_twice_and_no_version_inside(self, tmp_path):
        for name in ("a.png", "b.png"):
            similarity_heat_map(similarity(4), names(4), tmp_path / name)
        content = (tmp_path / "a.png").read_bytes()
        assert content == (tmp_path / "b.png").read_bytes()
        assert b"atplotlib" not in content

    @pytest.mark.parametrize(("count", "annotations"), [(1, 1), (12, 144), (13, 0)])
    def test_cells_carry_values_up_to_twelve_tickets(self, figures, count, annotations):
        similarity_heat_map(similarity(count), names(count), "map.png")
        assert len(figures[0].axes[0].texts) == annotations

    def test_values_stand_in_their_cells(self, figures):
        similarity_heat_map([[1, -0.001], [-0.001, 1]], ["a", "b"], "map.png")
        texts = {text.get_position(): text.get_text() for text in figures[0].axes[0].texts}
        assert texts == {(0, 0): "1.00", (1, 0): "0.00", (0, 1): "0.00", (1, 1): "1.00"}

    @pytest.mark.parametrize(
        ("other", "colours", "limits"),
        [
            (0.4, "viridis", (0.375, 0.425)),
            (0.0, "viridis", (0.0, 0.05)),
            (1.0, "viridis", (0.95, 1.0)),
            (-0.2, "PuOr", (-0.2, 0.2)),
            (-0.01, "PuOr", (-0.05, 0.05)),
        ],
    )
    def test_colours_span_what_is_off_the_diagonal(self, figures, other, colours, limits):
        similarity_heat_map([[1, other], [other, 1]], ["a", "b"], "map.png")
        (image,) = figures[0].axes[0].images
        assert image.cmap.name == colours
        assert image.get_clim() == pytest.approx(limits)
        assert image.get_array().mask.tolist() == [[True, False], [False, True]]

    def test_every_so_many_tickets_are_named_beyond_sixty(self, figures):
        similarity_heat_map(similarity(121), names(121), "map.png")
        labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
        assert labels == names(121)[::3]

    def test_names_with_dollars_and_long_names(self, tmp_path, figures):
        similarity_heat_map(similarity(2), ["a$x_1$", "n" * 100], "map.png")
        labels = figures[0].axes[0].get_xticklabels()
        assert [label.get_text() for label in labels] == ["a$x_1$", shortened("n" * 100)]
        assert not labels[0].get_parse_math()

    @pytest.mark.parametrize("bad", [[0.5], np.zeros((2, 3)), np.zeros((0, 0)), 0.5])
    def test_wrong_shape(self, tmp_path, bad):
        with pytest.raises(InvalidArgument, match=r"similarity: expected shape \[K, K\]"):
            similarity_heat_map(bad, ["a", "b"], tmp_path / "map.png")

    @pytest.mark.parametrize("bad", [[[1, 2], [1]], [["x", "y"], ["z", "w"]]])
    def test_not_numbers(self, tmp_path, bad):
        with pytest.raises(InvalidArgument, match=r"similarity: expected a \[K, K\] array of num"):
            similarity_heat_map(bad, ["a", "b"], tmp_path / "map.png")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.5, -2])
    def test_values_out_of_range(self, tmp_path, bad):
        with pytest.raises(InvalidArgument, match=r"similarity: expected finite values in -1\.\.1"):
            similarity_heat_map([[1, bad], [bad, 1]], ["a", "b"], tmp_path / "map.png")

    def test_not_symmetric(self, tmp_path):
        with pytest.raises(InvalidArgument, match=r"symmetric array, .*up to 0\.1"):
            similarity_heat_map([[1, 0.5], [0.4, 1]], ["a", "b"], tmp_path / "map.png")

    @pytest.mark.parametrize("bad", [["a"], ["a", "a"], ["a", ""], ["a", 1], "ab", ["a", "b", "c"]])
    def test_names_that_do_not_fit(self, tmp_path, bad):
        with pytest.raises(InvalidArgument, match="names: expected 2 different ticket names"):
            similarity_heat_map(similarity(2), bad, tmp_path / "map.png")


class TestAccuracyByMethod:
    def test_size_in_pixels(self, tmp_path):
        path = tmp_path / "accuracy.png"
        accuracy_by_method(ROWS, path)
        assert png_size(path) == (int(7.2 * DPI), int((1.1 + 2 * 0.45 + 4 * 0.3) * DPI))

    def test_same_bytes_twice(self, tmp_path):
        for name in ("a.png", "b.png"):
            accuracy_by_method(ROWS, tmp_path / name, chance=0.1)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_panels_by_sparsity_and_methods_by_mean(self, figures):
        accuracy_by_method(ROWS, "accuracy.png")
        panels = figures[0].axes
        assert [axes.get_title(loc="left") for axes in panels] == ["sparsity 50 %", "sparsity 90 %"]
        # From the bottom upwards, so that the highest mean is on top.
        labels = [[label.get_text() for label in axes.get_yticklabels()] for axes in panels]
        assert labels == [["single", "tickets"], ["tickets", "single"]]
        figures_at_right = [[text.get_text() for text in axes.texts] for axes in panels]
        assert figures_at_right == [["0.700", "0.800"], ["0.600", "0.650"]]

    def test_dots_and_intervals_lie_where_the_rows_say(self, figures):
        accuracy_by_method(ROWS, "accuracy.png")
        lines = [line.get_xydata().tolist() for line in figures[0].axes[0].lines]
        assert lines == [[[0.7, 0]], [[0.78, 1], [0.8200000000000001, 1]], [[0.8, 1]]]

    def test_a_method_keeps_its_colour(self, figures):
        accuracy_by_method(ROWS, "accuracy.png")
        colours = [
            {
                line.get_xdata()[0]: line.get_color()
                for line in axes.lines
                if line.get_marker() == "o"
            }
            for axes in figures[0].axes
        ]
        assert colours[0][0.8] == colours[1][0.6] != colours[1][0.65] == colours[0][0.7]

    def test_more_methods_than_colours_differ_by_marker(self, figures):
        accuracy_by_method([row(f"m{i}", mean=i / 20) for i in range(15)], "accuracy.png")
        looks = {
            (line.get_color(), line.get_marker())
            for line in figures[0].axes[0].lines
            if line.get_marker() != "None"
        }
        assert len(looks) == 15

    def test_chance_is_drawn_and_explained(self, figures):
        accuracy_by_method(ROWS, "accuracy.png", chance=0.125)
        first = figures[0].axes[0].lines[0]
        assert list(first.get_xdata()) == [0.125, 0.125]
        assert figures[0].axes[0].get_xlim()[0] < 0.125
        text = figures[0].get_supxlabel()
        assert text == "accuracy (mean over 3 seeds; line: 95 % interval; dashed: chance, 0.125)"

    def test_the_axis_says_only_what_is_there(self, figures):
        rows = [row(half=None, seeds=[0], metric="worst_group"), row("b", seeds=3)]
        accuracy_by_method(rows, "accuracy.png", metric="worst_group")
        assert figures[0].get_supxlabel() == "worst group (mean over 1 seed)"
        mixed = checked_rows([row(half=None), row("b", half=None, seeds=5)])
        assert plots._axis_text(mixed, "accuracy", None) == "accuracy (mean)"

    def test_title_is_the_task_by_default(self, figures):
        accuracy_by_method(ROWS, "accuracy.png")
        accuracy_by_method(ROWS, "accuracy.png", title="Digits, $5")
        assert [figure.get_suptitle() for figure in figures] == ["digits", "Digits, $5"]

    def test_rows_without_a_sparsity_come_first(self, figures):
        accuracy_by_method([row(), row("dense", None)], "accuracy.png")
        assert [axes.get_title(loc="left") for axes in figures[0].axes] == ["", "sparsity 50 %"]

    def test_unknown_metric(self, tmp_path):
        with pytest.raises(
            InvalidArgument, match=r"one of \['accuracy', 'worst_group'\], got 'f1'"
        ):
            accuracy_by_method(ROWS, tmp_path / "accuracy.png", metric="f1")

    def test_several_tasks(self, tmp_path):
        with pytest.raises(InvalidArgument, match=r"one task, got \['digits', 'speech'\]"):
            accuracy_by_method([row(), row(task="speech")], tmp_path / "accuracy.png")

    @pytest.mark.parametrize("bad", [float("nan"), "0.1"])
    def test_bad_chance(self, tmp_path, bad):
        with pytest.raises(InvalidArgument, match="chance: expected a finite number"):
            accuracy_by_method(ROWS, tmp_path / "accuracy.png", chance=bad)


def draw_map(path):
    similarity_heat_map(similarity(2), names(2), path)


def draw_accuracy(path):
    accuracy_by_method(ROWS, path)


@pytest.mark.parametrize("draw", [draw_map, draw_accuracy])
class TestFiles:
    @pytest.mark.parametrize("name", ["plot.svg", "plot", ""])
    def test_only_png(self, draw, tmp_path, name):
        with pytest.raises(InvalidArgument, match=r"path: expected a file name ending in \.png"):
            draw(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_missing_folders_are_made_and_no_other_file_is_left(self, draw, tmp_path):
        draw(str(tmp_path / "new" / "plot.PNG"))
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["plot.PNG"]

    def test_no_pyplot(self, draw, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would raise
        draw(tmp_path / "plot.png")

    def test_settings_are_left_as_they_were(self, draw, tmp_path):
        import matplotlib

        before = dict(matplotlib.rcParams)
        draw(tmp_path / "plot.png")
        assert dict(matplotlib.rcParams) == before

    def test_missing_library_names_the_install_command(self, draw, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[report\]'"):
            draw(tmp_path / "plot.png")
