"""The live table's lines, at every width."""

import math

import pytest
from rich.cells import cell_len

from rtl_plugin.progress.live_rows import LiveRows
from rtl_plugin.progress.live_text import fitted, layout, printable, trend

NAMES = [
    "indoor",
    "[red]x[/red]",
    "environment_transportation_2",
    "日本語のとても長い名前です",
    "a\nb\x1b[2J",
]
SIZES = [(60, 24), (60, 10), (79, 24), (100, 24), (200, 60)]


def lines_of(rows: LiveRows, size: tuple[int, int] = (120, 24), plain: bool = False) -> list[str]:
    return ["".join(text for text, _ in line) for line in layout(rows, size, plain, cell_len)]


def busy(names: list[str], metric: float | None = 0.875) -> LiveRows:
    """Six rounds of every ticket, the second of which rings and leaves."""
    rows = LiveRows(names, 20, clock=lambda: 0.0)
    for round in range(1, 7):
        values = [
            {
                "round": round, "group": name, "asked": 0.9 - 0.5**round,
                "achieved": 1 - 0.7**round, "loss": 10.0**-round, "metric": metric,
                "similarity": 0.3 + (round % 2) * 0.1, "alarm": None, "left": False,
                "at_floor": ["w"] if round > 5 else [],
            }
            for name in names
            if rows.rows[name].state != "left"
        ]  # fmt: skip
        if round == 6:
            ring = {"round": 6, "direction": "rise", "last_good_round": 5}
            values[1] |= {"alarm": ring, "left": True}
        for each in values:
            rows.finish(each)
        rows.close_round(values)
    rows.start(names[0], 7, 500).step = 120
    return rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("plain", [False, True])
def test_nothing_is_wider_or_higher_than_the_terminal(size: tuple[int, int], plain: bool) -> None:
    for names in (NAMES, [f"{name} {k}" for k in range(60) for name in NAMES]):
        lines = lines_of(busy(names), size, plain)
        assert len(lines) < size[1], "a line is left for the cursor"
        assert max(map(cell_len, lines)) <= size[0]
        assert all(line.isprintable() for line in lines)
        if plain:
            assert all(map(str.isascii, lines))


def test_a_long_name_costs_no_columns() -> None:
    rows = busy(["indoor", "street", "environment " * 5])
    headings, longest = lines_of(rows, (104, 24))[1], lines_of(rows, (200, 24))[4]
    assert headings.split()[-2:] == ["alarm", "state"]
    assert longest[32:34] == "  ", "it gets 32 columns, also where there are more"
    assert longest[34:].startswith("88.24%")


def test_a_terminal_made_tiny_is_survived() -> None:
    rows = busy(NAMES)
    for width in range(1, 60):
        lines = lines_of(rows, (width, 1))
        assert lines[0].startswith("round 7/20")
        assert any(line.startswith("in") for line in lines), "the one that trains"


@pytest.mark.parametrize("size", [(60, 24), (79, 24), (120, 24)])
def test_the_columns_stand_under_their_headings(size: tuple[int, int]) -> None:
    lines = lines_of(busy(NAMES), size)
    lines = lines[next(k for k, line in enumerate(lines) if line.startswith("ticket")) :]
    column = lines[0].index("metric")
    for line in lines[1 : len(NAMES) + 1]:
        cells = [c + " " * (cell_len(c) - 1) for c in line]
        assert "".join(cells)[column:].startswith("0.875 "), line


def test_a_wide_table_says_everything() -> None:
    header, headings, first, second, third, *_, floor = lines_of(busy(["indoor", "street", "x"]))
    assert header.startswith("round 7/20, asked so far 88.44%, 0:00 elapsed")
    assert headings.split() == [
        "ticket", "sparsity", "loss", "similarity", "metric", "alarm", "state"
    ]  # fmt: skip
    assert first.split() == [
        "indoor", "88.24%", "1.00e-06", "█▂▁▁▁▁", "0.300", "-0.100", "0.875", "step", "120/500",
    ]  # fmt: skip
    assert second.split()[:6] == ["street", "83.19%", "1.00e-06", "█▂▁▁▁▁", "0.400", "0.875"], (
        "of its last good round, and of the round that trained under its masks"
    )
    assert second.split("  ")[-1].strip() == "left the rounds"
    assert "round 6: rise" in second
    assert third.split()[-1] == "waiting"
    assert floor == "the floor holds weights in 2 of 3 tickets", "not in the masks that street kept"


def test_a_narrow_table_says_the_most_of_it() -> None:
    _, headings, first, second, third, _ = lines_of(busy(["indoor", "street", "x"]), (62, 24))
    assert headings.split() == ["ticket", "pruned", "loss", "alike", "metric", "state"]
    assert first.split() == [
        "indoor", "88.24%", "1.00e-06", "0.300", "-", "0.875", "step", "120/500"
    ]  # fmt: skip
    assert second.rstrip().endswith("0.875  round 6: rise, left")
    assert third.rstrip().endswith("0.875  waiting")


def test_without_a_metric_there_is_no_column_for_it() -> None:
    assert "metric" not in lines_of(busy(["indoor", "street"], metric=None))[1]


def test_a_long_header_takes_two_lines() -> None:
    rows = LiveRows(["a"], 100, asked=[0.5] * 100, clock=lambda: 0.0)
    rows.start("a", 100, 10).step = 1
    one, two = lines_of(rows, (30, 24))[:2]
    assert (one, two) == ("round 100/100, asked 50.00%", "0:00 elapsed")


def test_an_alarm_in_the_middle_of_training_is_seen_at_every_width() -> None:
    rows = busy(["indoor", "street"])
    rows.rows["indoor"].alarm = "round 3: fall"
    for width in (60, 80, 120):
        (line,) = [line for line in lines_of(rows, (width, 24)) if line.startswith("indoor")]
        assert "round 3: fall" in line
        assert "120/500" in line


def test_loss_and_similarity_in_figures() -> None:
    rows = LiveRows(["a"], 9)
    shown_as = {
        0.0: "0.0000", 123.45678: "123.4568", 4e-5: "4.00e-05", -2.0: "-2.0000", 5e6: "5.00e+06",
        math.nan: "nan",
    }  # fmt: skip
    for loss, shown in shown_as.items():
        rows.rows["a"].losses = [loss]
        assert lines_of(rows)[2].split()[2] == shown
    a = rows.rows["a"]
    a.similarity, a.change = 0.5, 0.0
    assert "0.500 +0.000" in lines_of(rows)[2]
    assert "0.500 =" in lines_of(rows, (60, 24))[2]
    a.change = 0.25
    assert "0.500 +" in lines_of(rows, (60, 24))[2]


@pytest.mark.parametrize(
    ("values", "length", "bars"),
    [
        ([], 5, ""),
        ([1.0], 5, ""),
        ([1.0, 2.0], 0, ""),
        ([1.0, 2.0], 5, "▁█"),
        ([9.0, 4.0, 2.0, 1.0], 3, "█▃▁"),
        ([2.0, 2.0, 2.0], 5, "▁▁▁"),
        ([float("nan"), 1.0, float("inf"), 0.0], 5, "█▁"),
    ],
)
def test_trend(values: list[float], length: int, bars: str) -> None:
    assert trend(values, length, plain=False) == bars


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("indoor", 6, "indoor"),
        ("indoors", 6, "ind…rs"),
        ("environment_7", 8, "envi…t_7"),
        ("日本語日本語", 12, "日本語日本語"),
        ("日本語日本語", 11, "日本…本語"),
        ("日本語日本語", 4, "日…"),
    ],
)
def test_fitted(text: str, room: int, shown: str) -> None:
    assert fitted(text, room, plain=False, cell_length=cell_len) == shown


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert printable("a\x1b[2J\r\n\tb日", plain=False) == "a\ufffd[2J\ufffd\ufffd\ufffdb日"
    assert printable("a\x1b日[red]", plain=True) == "a??[red]"
