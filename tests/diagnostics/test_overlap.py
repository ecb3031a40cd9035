"""Which weights the tickets keep: hand-computed cases, a slow reference, hostile tickets."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

import rtl_plugin as rtl
from rtl_plugin.diagnostics import layer_overlap
from rtl_plugin.diagnostics.layer_overlap import dead_channels, overlap_of_layer
from rtl_plugin.diagnostics.overlap import Overlap, overlap_of
from rtl_plugin.discovery.keep_top import floor_counts
from rtl_plugin.errors import InvalidArgument, InvalidTicket


def ticket(name: str, **layers: list[Any]) -> rtl.Ticket:
    return rtl.Ticket(name, {layer: torch.tensor(bits).bool() for layer, bits in layers.items()})


# How many keep each weight: w [[3, 1], [0, 0], [2, 0]], v [1, 2, 1, 1].
TOY = [
    ticket("a", w=[[1, 1], [0, 0], [1, 0]], v=[1, 1, 0, 0]),
    ticket("b", w=[[1, 0], [0, 0], [0, 0]], v=[0, 1, 1, 0]),
    ticket("c", w=[[1, 0], [0, 0], [1, 0]], v=[0, 0, 0, 1]),
]


def random_tickets(count: int, shapes: dict[str, tuple[int, ...]]) -> list[rtl.Ticket]:
    generator = torch.Generator().manual_seed(0)
    return [
        rtl.Ticket(
            f"t{k}",
            {
                name: torch.rand(shape, generator=generator) < (k + 1) / (2 * count)
                for name, shape in shapes.items()
            },
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("form", ["sequence", "set", "packed"])
def test_the_toy_by_hand(form: str) -> None:
    given: Any = TOY if form == "sequence" else rtl.TicketSet(TOY)
    found = overlap_of(given.packed() if form == "packed" else given)
    assert found.tickets == ("a", "b", "c")
    w, v = found.layers
    assert (w.name, w.shape, w.size, v.name, v.shape, v.size) == ("w", (3, 2), 6, "v", (4,), 4)
    assert found.kept.tolist() == [[3, 1, 2], [2, 2, 1]]
    np.testing.assert_allclose(found.density, [[3 / 6, 1 / 6, 2 / 6], [2 / 4, 2 / 4, 1 / 4]])
    assert (w.shared_by, v.shared_by) == ((3, 1, 1, 1), (0, 3, 1, 0))
    assert found.shared_by.tolist() == [3, 4, 2, 1]
    assert (w.exclusive, v.exclusive) == ((1, 0, 0), (1, 1, 1))
    assert found.exclusive.tolist() == [2, 1, 1]
    assert w.dead_rows == ((1,), (1, 2), (1,))
    assert w.dead_columns == ((), (1,), (1,))
    assert v.dead_rows == v.dead_columns == ((), (), ())


@pytest.mark.parametrize(
    ("floor", "near", "expected"),
    [
        # Floors of 2 of 6 and 1 of 4 weights.
        (0.25, 1.0, {"w": ("b", "c"), "v": ("c",)}),
        (0.25, 1.5, {"w": ("a", "b", "c"), "v": ("c",)}),
        (0.25, 2, {"w": ("a", "b", "c"), "v": ("a", "b", "c")}),
        # One weight each, so twice that is two.
        (0.01, 2.0, {"w": ("b", "c"), "v": ("a", "b", "c")}),
        (0.01, 1.0, {"w": ("b",), "v": ("c",)}),
        (0.0, 2.0, {}),
    ],
)
def test_layers_near_their_floor(floor: float, near: float, expected: dict[str, Any]) -> None:
    found = overlap_of(TOY, floor, near=near)
    shapes = {"w": (3, 2), "v": (4,)}
    assert {layer.name: layer.floor for layer in found.layers} == floor_counts(shapes, floor)
    assert found.near_floor() == expected


def test_the_default_is_the_floor_of_discovery_and_twice_it() -> None:
    masks = {"w": torch.arange(1000) < 20, "v": torch.arange(1000) < 21}
    found = overlap_of([rtl.Ticket("a", masks)])
    assert (found.floor, found.near, found.layers[0].floor) == (0.01, 2.0, 10)
    assert found.near_floor() == {"w": ("a",)}


def test_a_layer_that_lost_nothing_is_not_near_its_floor() -> None:
    found = overlap_of([ticket("a", whole=[1], off=[0], w=[1, 0])], floor=0.5)
    assert found.near_floor() == {"off": ("a",), "w": ("a",)}
    assert overlap_of([ticket("a", off=[0, 0], w=[1, 0])], floor=0).near_floor() == {"off": ("a",)}


@pytest.mark.parametrize("stretch", [1, 7, 1 << 20])
def test_against_a_slow_reference(stretch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_overlap, "_STRETCH", stretch)
    shapes = {"c": (3, 4, 2, 2), "f": (5, 6), "b": (7,), "s": (), "t": (2, 3, 4)}
    tickets = random_tickets(4, shapes)
    found = overlap_of(tickets)
    for layer in found.layers:
        flat = [each.masks[layer.name].flatten().tolist() for each in tickets]
        times = [sum(bits) for bits in zip(*flat, strict=True)]
        assert layer.shared_by == tuple(times.count(n) for n in range(5))
        assert layer.kept == tuple(sum(bits) for bits in flat)
        assert layer.exclusive == tuple(
            sum(bit and n == 1 for bit, n in zip(bits, times, strict=True)) for bits in flat
        )


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 2), (5, 4, 2, 3), (3, 4, 2, 2, 2), (1, 6)])
def test_dead_channels_of_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random(shape) < 2 / np.prod(shape[1:])
        rows = tuple(i for i in range(shape[0]) if not mask[i].any())
        columns = tuple(j for j in range(shape[1]) if not mask[:, j].any())
        assert dead_channels(mask) == (rows, columns)
        assert dead_channels(np.asfortranarray(mask)) == (rows, columns)


def test_dead_channels_where_there_are_none() -> None:
    for shape in ((), (3,), (0, 4), (4, 0), (2, 0, 3)):
        assert dead_channels(np.zeros(shape, np.bool_)) == ((), ())
    assert dead_channels(np.zeros((2, 3), np.bool_)) == ((0, 1), (0, 1, 2))


def test_one_ticket_and_identical_tickets() -> None:
    alone = overlap_of(TOY[:1])
    assert alone.shared_by.tolist() == [5, 5]
    assert alone.exclusive.tolist() == [5]
    alike = overlap_of([rtl.Ticket(name, TOY[0].masks) for name in "xyz"])
    assert alike.shared_by.tolist() == [5, 0, 0, 5]
    assert alike.exclusive.tolist() == [0, 0, 0]


def hostile(count: int) -> Overlap:
    shapes = {"w": (20, 30), "none": (0, 4), "scalar": ()}
    tickets = random_tickets(count, shapes)
    masks = [{**each.masks, "off": torch.zeros(3, 3, dtype=torch.bool)} for each in tickets]
    return overlap_of([rtl.Ticket(t.name, m) for t, m in zip(tickets, masks, strict=True)])


@pytest.mark.parametrize("count", [1, 8, 9, 300])
def test_empty_layers_and_many_tickets(count: int) -> None:
    found = hostile(count)
    assert found.kept.shape == found.density.shape == (4, count)
    assert found.shared_by.shape == (count + 1,)
    assert found.shared_by.sum() == 20 * 30 + 1 + 9
    assert (np.arange(count + 1) * found.shared_by).sum() == found.kept.sum()
    assert np.isnan(found.density[1]).all()
    assert found.near_floor()["off"] == found.tickets
    assert "none" not in found.near_floor()
    assert found.layers[3].dead_rows == ((0, 1, 2),) * count
    assert found.table()


def test_counts_beyond_sixteen_bits() -> None:
    count = np.iinfo(np.int16).max + 2
    masks = [{"w": torch.tensor([True, k == 0])} for k in (0, 1)]
    found = overlap_of_layer("w", [masks[0], *[masks[1]] * (count - 1)])
    assert found.shared_by[1] == found.shared_by[count] == 1
    assert sum(found.shared_by) == 2
    assert (found.exclusive[0], sum(found.exclusive)) == (1, 1)


def test_json_holds_everything() -> None:
    found = overlap_of(TOY, 0.25, near=1)
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["tickets"] == ["a", "b", "c"]
    assert (content["floor"], content["near"]) == (0.25, 1.0)
    assert content["shared_by"] == [3, 4, 2, 1]
    assert content["exclusive"] == [2, 1, 1]
    assert content["near_floor"] == {"w": ["b", "c"], "v": ["c"]}
    assert content["layers"][0] == {
        "name": "w", "shape": [3, 2], "floor": 2, "kept": [3, 1, 2],
        "density": [3 / 6, 1 / 6, 2 / 6], "exclusive": [1, 0, 0], "shared_by": [3, 1, 1, 1],
        "dead_rows": [[1], [1, 2], [1]], "dead_columns": [[], [1], [1]],
    }  # fmt: skip
    empty = json.loads(json.dumps(hostile(2).to_json(), allow_nan=False))
    assert empty["layers"][1]["density"] == [None, None]


def cells(table: str, start: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(start)]
    return line.split()


def test_the_table_by_hand() -> None:
    table = overlap_of(TOY, 0.25, near=1).table()
    assert cells(table, "a ") == ["a", "5", "50.00%", "2", "40.0%", "1", "0"]
    assert cells(table, "b ") == ["b", "3", "30.00%", "1", "33.3%", "2", "1"]
    assert cells(table, "w ") == ["w", "6", "2", "50.00%", "16.67%", "33.33%", "2", "1", "2"]
    assert cells(table, "v ") == ["v", "4", "1", "50.00%", "50.00%", "25.00%", "0", "0", "1"]
    for n, weights, share in ((0, 3, "30"), (1, 4, "40"), (2, 2, "20"), (3, 1, "10")):
        assert cells(table, f"{n} ") == [str(n), str(weights), f"{share}.00%"]
    assert "near its floor: w in b, c" in table
    assert "near its floor: v in c" in table


def test_eight_tickets_have_columns_and_more_have_not() -> None:
    few, many = hostile(8).table(), hostile(9).table()
    assert cells(few, "layer")[3:11] == [f"t{k}" for k in range(8)]
    assert cells(many, "layer")[3:6] == ["lowest", "median", "highest"]
    assert "3 to 4" not in few
    assert "3 to 4" in many


def test_the_table_of_many_tickets_stays_readable() -> None:
    found = hostile(300)
    table = found.table()
    assert max(map(len, table.splitlines())) < 120
    low, middle, high = (f"{value:.2%}" for value in np.quantile(found.density[0], [0, 0.5, 1]))
    assert cells(table, "w ")[3:6] == [low, middle, high]
    assert cells(table, "none ")[3:6] == ["-", "-", "-"]
    assert "near its floor: off in t0, t1, t2, t3, t4, t5, t6, t7 and 292 more" in table
    shown = [line.split() for line in table.partition("kept by")[2].splitlines()[2:14]]
    ranges = ["0", "1", "2", "3 to 4", "5 to 8", "9 to 16", "17 to 32", "33 to 64"]
    ranges += ["65 to 128", "129 to 256", "257 to 299", "300"]
    assert [" ".join(line[:-2]) for line in shown] == ranges
    counts = [int(line[-2]) for line in shown]
    edges = [0, 1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 300, 301]
    expected = [found.shared_by[a:b].sum() for a, b in itertools.pairwise(edges)]
    assert counts == expected


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "at least one Ticket"),
        ([TOY[0], TOY[0]], "two tickets are named 'a'"),
        ([TOY[0], ticket("x", w=[[1, 1], [0, 0], [1, 0]])], "disagree about 'v'"),
        ([TOY[0], ticket("x", w=[[1, 1]], v=[1, 1, 0, 0])], "disagree about 'w'"),
        ({"w": torch.tensor([True])}, "at least one Ticket"),
        (TOY[0], "at least one Ticket"),
        (None, "at least one Ticket"),
    ],
)
def test_tickets_that_are_none_or_disagree_are_refused(bad: Any, message: str) -> None:
    with pytest.raises(InvalidTicket, match=message):
        overlap_of(bad)


@pytest.mark.parametrize("near", [0.9, 0, float("nan"), float("inf"), "2", None, True])
def test_a_bad_near_is_refused(near: Any) -> None:
    with pytest.raises(InvalidArgument, match="near must be a finite number of at least 1"):
        overlap_of(TOY, near=near)


@pytest.mark.parametrize("floor", [-0.1, 1.0, float("nan")])
def test_a_bad_floor_is_refused(floor: float) -> None:
    with pytest.raises(InvalidArgument, match="floor must be a fraction"):
        overlap_of(TOY, floor)
