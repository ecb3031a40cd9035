"""Channel plans in ticket files: they come back bit for bit, and a lying one is refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from rtl_plugin import Ticket
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.errors import DamagedFile
from rtl_plugin.index_map import IndexMap
from rtl_plugin.tickets import TicketSet
from tests.channels.test_channel_tickets import same_plan
from tests.channels.zoo import CHANNEL_ZOO, ChannelNet, channel_tickets, made
from tests.discovery.setups import same_bits, ticket_tensors
from tests.files.channels import (
    COLUMNS,
    ENTRIES,
    ROWS,
    channel_header,
    channel_set,
    channel_tensors,
)
from tests.files.signed import changed, sign
from tests.files.test_damaged_files import refused
from tests.files.test_hostile_files import assert_refused


def assert_same(loaded: TicketSet, saved: TicketSet) -> None:
    assert loaded.names == saved.names
    assert loaded.compact_only == saved.compact_only
    assert same_bits(ticket_tensors(loaded), ticket_tensors(saved))
    for one, other in zip(loaded.values(), saved.values(), strict=True):
        assert same_plan(one.channels, other.channels)


def test_a_round_trip_bit_for_bit(tmp_path: Path) -> None:
    saved = channel_set()
    saved.save(tmp_path / "t")
    loaded = TicketSet.load(tmp_path / "t")
    assert_same(loaded, saved)
    plan = loaded["in/door"].channels
    assert plan is not None
    assert plan.attributes["a"]["shape"] == (2, (3, ()), "x")
    assert plan.attributes[""]["flag"] is True
    assert plan.maps["g"].entries is not None
    assert torch.equal(plan.maps["g"].entries, ENTRIES)
    assert plan.maps["a.w"].axes[0] is not None
    assert torch.equal(plan.maps["a.w"].axes[0], ROWS)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "t").read_bytes()


@pytest.mark.parametrize("net", CHANNEL_ZOO, ids=str)
def test_every_network_of_the_zoo(net: ChannelNet, tmp_path: Path) -> None:
    model = made(net)
    saved = channel_tickets(net, model)
    saved.save(tmp_path / "t")
    loaded = TicketSet.load(tmp_path / "t")
    assert_same(loaded, saved)
    loaded.check_fits(model)


def test_a_list_that_many_tensors_share_is_written_once(tmp_path: Path) -> None:
    channel_set().save(tmp_path / "t")
    with safe_open(tmp_path / "t", framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith("channels.0")]
        header = json.loads(file.metadata()["rtl_plugin"])
    assert keys == ["channels.0.0", "channels.0.1", "channels.0.2"]
    assert header["tickets"][0]["channels"]["lists"] == 3


def test_lists_of_the_same_bytes_and_another_shape_are_two(tmp_path: Path) -> None:
    kept = torch.tensor([0, 1])
    maps = {"a": IndexMap((4,), (kept,)), "b": IndexMap((2, 2), entries=kept[:, None])}
    plan = ChannelPlan(maps)
    saved = TicketSet([Ticket("x", {n: m.mask() for n, m in maps.items()}, {}, plan)])
    saved.save(tmp_path / "t")
    assert_same(TicketSet.load(tmp_path / "t"), saved)


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    channel_set().save(tmp_path / "good")
    return (tmp_path / "good").read_bytes()


def test_truncated_anywhere(tmp_path: Path, good: bytes) -> None:
    assert refused(tmp_path, {f"first {n}": good[:n] for n in range(0, len(good), 5)})


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x20])
def test_a_flipped_byte_at_any_position(flip: int, tmp_path: Path, good: bytes) -> None:
    flipped = {
        f"byte {k} ^ {flip:#x}": good[:k] + bytes([good[k] ^ flip]) + good[k + 1 :]
        for k in range(len(good))
    }
    assert refused(tmp_path, flipped) == len(good)


PLAN = ("tickets", 0, "channels")
FIRST, SECOND = (*PLAN, "tensors", 0), (*PLAN, "tensors", 1)
NO_LIST = "has no list of positions"
WRONG = "is of the wrong kind"
NEEDS = "a channel plan needs"
SHAPE = "speaks of a tensor of shape"
MALFORMED = "the channel plan of ticket 0 is malformed: "
OTHER = "'w' keep different weights"
DEEP: list[Any] = []
for _ in range(700):
    DEEP = [DEEP]

LIES: list[tuple[tuple[Any, ...], Any, str]] = [
    *((PLAN, value, "'channels' is missing or of the wrong kind") for value in (None, [], "x", 1)),
    (PLAN, {}, NEEDS),
    ((*PLAN, "more"), 1, NEEDS),
    *(((*PLAN, "tensors"), value, WRONG) for value in (None, {}, "w", 3, True)),
    ((*PLAN, "tensors"), [], "no tensor uses"),
    *(((*PLAN, "lists"), value, WRONG) for value in (None, [], "2", 2.0, True, {})),
    *(((*PLAN, "lists"), value, NO_LIST) for value in (0, -1, 1, -(10**400))),
    *(((*PLAN, "lists"), value, "tensor 'channels.0.2' is missing") for value in (3, 10**400)),
    *(((*PLAN, "attributes"), value, WRONG) for value in (None, [], "x", 3)),
    *(((*PLAN, "attributes", "layer"), v, "not listed by module") for v in (None, [], "x", 3)),
    ((*PLAN, "attributes", "layer", "k"), {}, f"{MALFORMED}attribute 'k' of 'layer' is dict"),
    ((*PLAN, "attributes", "layer", "k"), [1, {}], f"{MALFORMED}attribute 'k' of 'layer'"),
    ((*PLAN, "attributes", "layer", "k"), DEEP, MALFORMED),
    *(((*PLAN, "compact_only"), value, WRONG) for value in (None, {}, "because", 3, True)),
    *(((*PLAN, "compact_only"), [value], "reason that is no text") for value in (1, None, ["x"])),
    *((FIRST, value, NEEDS) for value in (None, [], "w", 3, {})),
    ((*FIRST, "more"), 1, NEEDS),
    ((*FIRST, "entries"), 0, NEEDS),
    (SECOND, {"name": "g", "shape": [2, 4]}, NEEDS),
    (FIRST, {"name": "w", "axes": [0, None]}, NEEDS),
    (FIRST, {"shape": [4, 3], "axes": [0, None]}, NEEDS),
    *(((*FIRST, "name"), value, WRONG) for value in (None, "", 1, True, ["w"], {})),
    ((*FIRST, "name"), "g", "lists a tensor twice"),
    ((*FIRST, "name"), "v", OTHER),
    *(((*FIRST, "shape"), value, WRONG) for value in (None, 3, "43", {})),
    *(((*FIRST, "shape"), [value, 3], SHAPE) for value in (-4, 0, True, 4.0, "4", None, [4])),
    ((*FIRST, "shape"), [2**63, 3], SHAPE),
    ((*SECOND, "shape"), [10**4000, 10**4000], SHAPE),
    ((*SECOND, "shape"), [1] * 65, SHAPE),
    ((*FIRST, "shape"), [5, 3], OTHER),
    ((*FIRST, "shape"), [3, 4], OTHER),
    ((*FIRST, "shape"), [2**62, 3], OTHER),
    ((*FIRST, "shape"), [2, 3], rf"{MALFORMED}.*must lie in 0\.\.1"),
    ((*FIRST, "shape"), [4], f"{MALFORMED}.*needs 1 lists of positions, got 2"),
    ((*FIRST, "shape"), [], f"{MALFORMED}.*needs 0 lists of positions, got 2"),
    *(((*FIRST, "axes"), value, WRONG) for value in (None, 0, "00", {}, True)),
    *(((*FIRST, "axes"), [v, None], NO_LIST) for v in (-1, -2, 2, True, False, "0", 0.0, [0], {})),
    ((*FIRST, "axes"), [10**400, None], NO_LIST),
    ((*FIRST, "axes"), [[[0]], None], NO_LIST),
    ((*FIRST, "axes"), [None, None], "no tensor uses"),
    ((*FIRST, "axes"), [None, 0], OTHER),
    ((*FIRST, "axes"), [0, 0], OTHER),
    ((*FIRST, "axes"), [1, 0], f"{MALFORMED}.*(must lie in|one ascending list)"),
    ((*FIRST, "axes"), [], f"{MALFORMED}.*needs 2 lists of positions, got 0"),
    *(((*SECOND, "entries"), value, WRONG) for value in (None, True, [1], 1.0, "1", {})),
    *(((*SECOND, "entries"), value, NO_LIST) for value in (-1, 2, 10**400)),
    ((*SECOND, "entries"), 0, "no tensor uses"),
]


@pytest.mark.parametrize(("at", "value", "message"), LIES)
def test_a_signed_header_that_lies(
    at: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    header = changed(channel_header(), at, value)
    assert_refused(sign(tmp_path / "lie", header, channel_tensors()), message)


@pytest.mark.parametrize("field", ["tensors", "lists", "attributes", "compact_only"])
def test_a_plan_without_a_field(field: str, tmp_path: Path) -> None:
    header = channel_header()
    del header["tickets"][0]["channels"][field]
    assert_refused(sign(tmp_path / "lie", header, channel_tensors()), NEEDS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("channels.0.0", None, "tensor 'channels.0.0' is missing"),
        ("channels.0.2", ROWS, "does not name: .'channels.0.2'"),
        ("channels.1.0", ROWS, "does not name: .'channels.1.0'"),
        ("channels.0.0", ROWS + 1, OTHER),
        ("channels.0.0", COLUMNS[:1], OTHER),
        ("channels.0.0", ROWS + 2, r"must lie in 0\.\.3"),
        ("channels.0.0", ROWS - 1, r"must lie in 0\.\.3"),
        ("channels.0.0", ROWS[:0], "keeps nothing of a dimension"),
        ("channels.0.0", ROWS.flip(0), "one ascending list"),
        ("channels.0.0", ROWS * 0, "one ascending list"),
        ("channels.0.0", ROWS[None], "one ascending list"),
        ("channels.0.0", torch.tensor(0), "one ascending list"),
        ("channels.0.1", ENTRIES * 0, "names an entry twice"),
        ("channels.0.1", ENTRIES + 1, r"must lie in 0\.\.7"),
        ("channels.0.1", ENTRIES - 1, r"must lie in 0\.\.7"),
        ("channels.0.1", ENTRIES[:0], "keeps nothing of an entry"),
        ("channels.0.1", ENTRIES[:1], "'g' keep different weights"),
        *(
            ("channels.0.0", ROWS.to(dtype), f"must be an int64 tensor, got {dtype}")
            for dtype in (torch.int32, torch.uint8, torch.float64, torch.bool, torch.complex64)
        ),
    ],
)
def test_signed_tensors_that_lie(
    key: str, value: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    given = {**channel_tensors(), key: value}
    tensors = {k: v for k, v in given.items() if v is not None}
    assert_refused(sign(tmp_path / "lie", channel_header(), tensors), message)


def test_the_plan_of_other_masks(tmp_path: Path) -> None:
    tensors = channel_tensors()
    tensors["mask.0.0"] = tensors["mask.0.0"].flip(0)
    assert_refused(
        sign(tmp_path / "lie", channel_header(), tensors), "1 packed|behind its end|differ"
    )


def test_one_ticket_with_a_plan_and_one_without(tmp_path: Path) -> None:
    header, tensors = channel_header(), channel_tensors()
    header["tickets"].append({"name": "y", "state": []})
    tensors |= {f"mask.1.{j}": tensors[f"mask.0.{j}"] for j in range(2)}
    assert_refused(sign(tmp_path / "lie", header, tensors), "some of its tickets have a channel")


def test_the_file_that_is_tampered_with_here_is_good(tmp_path: Path) -> None:
    loaded = TicketSet.load(sign(tmp_path / "good", channel_header(), channel_tensors()))
    plan = loaded["x"].channels
    assert plan is not None
    assert plan.attributes["layer"]["shape"] == (2, (3,))
    assert loaded.compact_only == ("layer 'norm'",)


def test_positions_far_outside_any_tensor(tmp_path: Path) -> None:
    header = changed(channel_header(), (*SECOND, "shape"), [2**62, 2**62])
    with pytest.raises(DamagedFile, match="'g' keep different weights"):
        TicketSet.load(sign(tmp_path / "lie", header, channel_tensors()))


@pytest.mark.parametrize("depth", [*range(200, 1000, 37), 3000])
def test_attributes_nested_to_any_depth(depth: int, tmp_path: Path) -> None:
    """Around the interpreter's recursion limit JSON may be read where a plan cannot be made."""
    nested: list[Any] = []
    for _ in range(min(depth, 900)):
        nested = [nested]
    header = changed(channel_header(), (*PLAN, "attributes", "layer", "k"), nested)
    path = sign(tmp_path / "deep", header, channel_tensors())
    with contextlib.suppress(DamagedFile):
        assert TicketSet.load(path)["x"].channels is not None
