"""The front, the table that says what beats what, and the picture."""

import math
import random
from pathlib import Path

import pytest

from rtl_nni.search import pareto_plot as plotting
from rtl_nni.search.pareto import cost_text, pareto_front, pareto_table
from rtl_nni.search.pareto_plot import pareto_plot
from rtl_nni.search.records import TrialRecord
from rtl_plugin.errors import InvalidArgument


def trial(name: str, metric: float | None, parameters: int | None, **more: object) -> TrialRecord:
    return TrialRecord(name, "finished", metric=metric, parameters=parameters, **more)  # type: ignore[arg-type]


SMALL, LARGE = trial("small", 0.8, 100), trial("large", 0.9, 300)
BEATEN, TWIN = trial("beaten", 0.7, 200), trial("twin", 0.8, 100)


def names(records: list[TrialRecord]) -> list[str]:
    return [record.name for record in records]


def test_by_hand() -> None:
    wider, weaker = trial("wider", 0.9, 301), trial("weaker", 0.89, 300)
    found = pareto_front([LARGE, wider, BEATEN, weaker, SMALL])
    assert names(found) == ["small", "large"]


def test_equals_are_all_kept_in_their_order() -> None:
    assert names(pareto_front([LARGE, TWIN, SMALL])) == ["twin", "small", "large"]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_against_its_definition(seed: int) -> None:
    draw = random.Random(seed)
    points = [(draw.randint(0, 9) / 10, draw.randint(1, 9)) for _ in range(30)]

    def beats(a: tuple[float, int], b: tuple[float, int]) -> bool:
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    front = pareto_front([trial(str(n), *point) for n, point in enumerate(points)])
    assert {record.name for record in front} == {
        str(n) for n, point in enumerate(points) if not any(beats(p, point) for p in points)
    }
    costs = [record.parameters or 0 for record in front]
    assert costs == sorted(costs)


def test_only_finished_trials_with_both_numbers_count() -> None:
    stopped = TrialRecord("stopped", "stopped", metric=0.99, parameters=1)
    others = [trial("nan", math.nan, 1), trial("none", None, 1), trial("no cost", 0.99, None)]
    infinite = trial("infinite", math.inf, 1)
    assert names(pareto_front([stopped, *others, infinite, SMALL])) == ["small"]
    last = pareto_table([stopped, *others, infinite, SMALL]).split("\n")[-1]
    assert last == "not compared: 1 stopped, 3 without metric, 1 without parameters"


def test_other_costs() -> None:
    slow = trial("slow", 0.9, 1, sparsity=0.9, measured={"latency": 0.002})
    fast = trial("fast", 0.8, 9, sparsity=0.5, measured={"latency": 0.001})
    assert names(pareto_front([slow, fast])) == ["slow"]
    assert names(pareto_front([slow, fast], "density")) == ["slow"]
    assert names(pareto_front([slow, fast], "latency")) == ["fast", "slow"]
    assert "2 ms" in pareto_table([slow, fast], "latency")
    with pytest.raises(InvalidArgument, match=r"'macs' \(2 without macs\).*density', 'latency'\]"):
        pareto_front([slow, fast], "macs")
    with pytest.raises(InvalidArgument, match="1 died"):
        pareto_front([TrialRecord("a", "died")])
    with pytest.raises(InvalidArgument, match="no trials"):
        pareto_front([])
    with pytest.raises(InvalidArgument, match="must be the name of a figure"):
        pareto_front([slow], lambda record: record.seconds)  # type: ignore[arg-type]


def test_the_table_names_the_best_of_what_beats_a_trial() -> None:
    also, dear = trial("also", 0.75, 90), trial("dear", 0.85, 300)
    lines = pareto_table([dear, LARGE, BEATEN, SMALL, also, TrialRecord("x", "died")]).split("\n")
    assert [line.split() for line in lines[2:]] == [
        ["*", "also", "90", "0.7500"],
        ["*", "small", "100", "0.8000"],
        ["beaten", "200", "0.7000", "small:", "+0.1000,", "-100"],
        ["*", "large", "300", "0.9000"],
        ["dear", "300", "0.8500", "large:", "+0.0500,", "-0"],
        ["not", "compared:", "1", "died"],
    ]
    assert "not compared" not in pareto_table([LARGE])


@pytest.mark.parametrize(
    ("value", "cost", "text"),
    [
        (1.5, "latency", "1.5 s"),
        (0.0015, "latency", "1.5 ms"),
        (2.5e-6, "latency", "2.5 µs"),
        (2.5e-10, "latency", "0.25 ns"),
        (0.0, "latency", "0"),
        (0.0015, "density", "0.0015"),
        (1e6, "parameters", "1,000,000"),
    ],
)
def test_costs_for_people(value: float, cost: str, text: str) -> None:
    assert cost_text(value, cost) == text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The figures that are written, to look into."""
    figures: list = []
    real = plotting.write_png

    def keep(figure, target):
        figures.append(figure)
        real(figure, target)

    monkeypatch.setattr(plotting, "write_png", keep)
    return figures


def labels(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def colours(figure) -> dict[str, list[tuple[float, float]]]:
    """Marker -> where it is drawn, of dots (filled), rings and diamonds."""
    found: dict[str, list[tuple[float, float]]] = {"front": [], "behind": [], "reference": []}
    for line in figure.axes[0].lines:
        kind = {"o": "front", "D": "reference"}.get(line.get_marker())
        if kind == "front" and line.get_markerfacecolor() == "none":
            kind = "behind"
        if kind:
            found[kind] += list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    return found


def test_the_picture_shows_what_the_table_says(tmp_path: Path, drawn: list) -> None:
    trials = [SMALL, TWIN, LARGE, BEATEN, TrialRecord("x", "died")]
    pareto_plot(trials, tmp_path / "new" / "a.png", reference={"default": (250, 0.75)})
    assert (tmp_path / "new" / "a.png").read_bytes()[:4] == b"\x89PNG"
    (figure,) = drawn
    assert colours(figure) == {
        "front": [(100, 0.8), (100, 0.8), (300, 0.9)],
        "behind": [(200, 0.7)],
        "reference": [(250, 0.75)],
    }
    assert sorted(labels(figure)) == ["default", "large", "small, twin"]
    axes = figure.axes[0]
    note = axes.get_title(loc="left")
    assert note == (
        "blue: the front (3 of 4 trials); grey: beaten by one of them; not drawn: 1 died"
    )
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert list(steps.get_xdata()) == [100, 100, 300]
    assert axes.get_xscale() == "linear"


def test_costs_that_span_a_decade_have_a_logarithmic_axis(tmp_path: Path, drawn: list) -> None:
    pareto_plot([SMALL, trial("huge", 0.95, 1000)], tmp_path / "a.png")
    pareto_plot([SMALL, trial("big", 0.95, 999)], tmp_path / "a.png")
    pareto_plot([SMALL], tmp_path / "a.png", reference={"record": trial("huge", 0.95, 1000)})
    pareto_plot([SMALL, trial("free", 0.1, 0)], tmp_path / "a.png")
    scales = [figure.axes[0].get_xscale() for figure in drawn]
    assert scales == ["log", "linear", "log", "linear"]


def test_labels_do_not_overlap(tmp_path: Path, drawn: list) -> None:
    crowd = [trial(f"a-rather-long-name-{n}", 0.5 + n / 1000, 1000 + 10 * n) for n in range(60)]
    pareto_plot(crowd, tmp_path / "a.png")
    (figure,) = drawn
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 10 < len(boxes) < 60
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    inside = axes.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert f"{60 - len(boxes)} without room for a label" in axes.get_title(loc="left")


def test_names_are_no_formulas(tmp_path: Path, drawn: list) -> None:
    ties = [trial(name, 0.5, 10) for name in ("$a$", "_b", "$\\broken{$", "d", "e")]
    pareto_plot(ties, tmp_path / "a.png", metric_name="$x_", title="$\\t")
    assert labels(drawn[0]) == ["$a$, _b, $\\broken{$ and 2 more"]


def test_the_same_trials_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        pareto_plot([SMALL, LARGE, BEATEN], tmp_path / name, reference={"d": (5, 0.2)})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ((1, 2), "must map a label"),
        ({"x": (1, math.nan)}, r"reference\['x'\] must be a trial or \(cost, metric\)"),
        ({"x": (1, 2, 3)}, "two finite numbers"),
        ({"x": (True, 2)}, "two finite numbers"),
        ({"x": TrialRecord("d", "died")}, "no finished trial"),
    ],
)
def test_bad_references(tmp_path: Path, reference: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        pareto_plot([SMALL], tmp_path / "a.png", reference=reference)  # type: ignore[arg-type]


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"ending in \.png"):
        pareto_plot([SMALL], tmp_path / "a.pdf")
