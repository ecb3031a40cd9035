"""What is saved comes back, bit for bit, and the same content is the same bytes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from rtl_plugin.checkpoint import pack_mask, read_file, unpack_mask, write_file
from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.ticket import Ticket
from rtl_plugin.tickets import TicketSet
from tests.files.signed import MASK, small_set

DTYPES = (
    "float64 float32 float16 bfloat16 float8_e4m3fn complex64 int64 int32 int16 int8 uint8 bool"
).split()


def saved_and_loaded(tickets: TicketSet, folder: Path) -> TicketSet:
    tickets.save(folder / "tickets.safetensors")
    return TicketSet.load(folder / "tickets.safetensors")


def assert_same(loaded: TicketSet, saved: TicketSet) -> None:
    assert loaded.names == saved.names
    for one, other in zip(loaded.values(), saved.values(), strict=True):
        assert list(one.masks) == list(saved.shapes)
        for name, mask in other.masks.items():
            assert one.masks[name].dtype == torch.bool
            assert torch.equal(one.masks[name], mask), name
        assert list(one.state) == list(other.state)
        for name, value in other.state.items():
            assert bit_equal(one.state[name], value), name
    assert loaded.structure == saved.structure
    assert loaded.theta_0 == saved.theta_0
    assert loaded.schedule == saved.schedule
    assert loaded.history == saved.history
    assert (loaded.rewind_state is None) == (saved.rewind_state is None)
    for name, value in (saved.rewind_state or {}).items():
        assert bit_equal(loaded.rewind_state[name], value), name


def test_everything_comes_back(tmp_path: Path) -> None:
    assert_same(saved_and_loaded(small_set(), tmp_path), small_set())


def test_the_least_that_a_set_can_hold(tmp_path: Path) -> None:
    tickets = TicketSet([Ticket("a", {"w": torch.tensor(True)})])
    loaded = saved_and_loaded(tickets, tmp_path)
    assert_same(loaded, tickets)
    assert loaded.shapes == {"w": ()}
    assert (loaded.schedule, loaded.history, loaded.rewind_state) == (None, [], None)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)], ids=str)
def test_state_of_every_dtype_and_shape(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    value = (torch.rand(shape) * 8).to(getattr(torch, name))
    tickets = TicketSet([Ticket("a", {"w": MASK}, {"value": value, "other": torch.ones(1)})])
    assert_same(saved_and_loaded(tickets, tmp_path), tickets)


def test_special_values_keep_their_bits(tmp_path: Path) -> None:
    values = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45, -float("inf")])
    big = torch.tensor([2**63 - 1, -(2**63)])
    tickets = TicketSet([Ticket("a", {"w": MASK}, {"f": values, "i": big})])
    assert_same(saved_and_loaded(tickets, tmp_path), tickets)


@pytest.mark.parametrize(
    "name",
    [
        "in/door",
        "../up",
        "straße",
        "日本",
        "a b\tc\nd",
        '"quoted"',
        "back\\slash",
        "\0",
        "{}",
        "🎫",
        "0",
    ],
)
def test_names_with_any_characters(name: str, tmp_path: Path) -> None:
    tickets = TicketSet(
        [Ticket(name, {name: MASK}, {name: torch.ones(1)}), Ticket(name + "2", {name: MASK})],
        history=[{name: name}],
        rewind_state={name: torch.zeros(1)},
    )
    assert_same(saved_and_loaded(tickets, tmp_path), tickets)


@pytest.mark.parametrize("numel", [1, 7, 8, 9, 16, 17, 1000])
def test_masks_of_any_size(numel: int, tmp_path: Path) -> None:
    torch.manual_seed(numel)
    masks = {"w": torch.rand(numel) > 0.5, "all": torch.ones(numel, dtype=torch.bool)}
    tickets = TicketSet([Ticket("a", masks)])
    assert_same(saved_and_loaded(tickets, tmp_path), tickets)


def test_an_empty_mask_in_one_tensor_and_a_tensor_without_entries(tmp_path: Path) -> None:
    masks = {"w": MASK, "dead": torch.zeros(2, 2, dtype=torch.bool), "none": torch.ones(0, 3) > 0}
    loaded = saved_and_loaded(TicketSet([Ticket("a", masks)]), tmp_path)
    assert_same(loaded, TicketSet([Ticket("a", masks)]))
    assert loaded["a"].empty_masks == ("dead", "none")


def test_tensors_of_any_layout(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    state = {"transposed": shared.t(), "row": shared[1], "again": shared, "stride": shared[:, ::2]}
    tickets = TicketSet([Ticket("a", {"w": MASK.t()}, state)], rewind_state=state)
    assert_same(saved_and_loaded(tickets, tmp_path), tickets)


def test_a_loaded_set_owns_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    small_set().save(path)
    loaded = TicketSet.load(path)
    with path.open("r+b") as file:  # what is mapped would now read as zeros
        file.write(b"\0" * path.stat().st_size)
    assert_same(loaded, small_set())
    loaded["straße"].state["mean"].add_(1)  # and it can be trained on


@pytest.mark.parametrize("shape", [(), (1,), (8,), (3, 3), (2, 3, 5), (0, 4), (17,)], ids=str)
def test_packed_bits_are_numpy_s_little_endian(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mask = torch.rand(shape) > 0.5
    packed = pack_mask(mask)
    expected = np.packbits(mask.numpy().reshape(-1), bitorder="little")
    assert packed.dtype == torch.uint8
    np.testing.assert_array_equal(packed.numpy(), expected)
    assert torch.equal(unpack_mask(packed, shape), mask)


def test_packed_bits_by_hand() -> None:
    mask = torch.tensor([True, False, False, False, False, False, False, True, True, False, True])
    assert pack_mask(mask).tolist() == [0b10000001, 0b101]


def test_the_file_holds_what_the_specification_says(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    small_set().save(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    assert list(metadata) == ["rtl_plugin"]
    header = json.loads(metadata["rtl_plugin"])
    assert metadata["rtl_plugin"] == json.dumps(header, sort_keys=True)
    assert (header["format"], header["version"]) == ("rtl-plugin tickets", 1)
    assert header["parameters"] == [
        {"name": "a.w", "shape": [2, 3]},
        {"name": "b", "shape": [3]},
    ]
    assert header["tickets"] == [
        {"name": "in/door", "state": ["mean"]},
        {"name": "straße", "state": ["mean"]},
    ]
    assert header["fingerprint"] == {"structure": "ab" * 32, "theta_0": "cd" * 32}
    assert header["rewind_state"] == ["a.w"]
    assert set(tensors) == {
        *("mask.0.0", "mask.0.1", "mask.1.0", "mask.1.1"),
        *("state.0.0", "state.1.0", "rewind.0"),
    }
    assert tensors["mask.0.0"].tolist() == [0b110101]
    # The signature, computed as a stranger would from the specification.
    digest = hashlib.sha256()
    unsigned = {key: value for key, value in header.items() if key != "sha256"}
    digest.update(json.dumps(unsigned, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    assert header["sha256"] == digest.hexdigest()


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    small_set().save(tmp_path / "one")
    small_set().save(tmp_path / "two")
    TicketSet.load(tmp_path / "one").save(tmp_path / "three")
    contents = {(tmp_path / name).read_bytes() for name in ("one", "two", "three")}
    assert len(contents) == 1


def test_another_process_writes_the_same_bytes_and_reads_without_pickle(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    small_set().save(ours)
    code = (
        "import pickle, sys, torch\n"
        "from rtl_plugin.tickets import TicketSet\n"
        "from tests.files.signed import small_set\n"
        "small_set().save(sys.argv[1])\n"
        "def refused(*args, **kwargs): raise SystemExit('pickle was used')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = torch.load = refused\n"
        "import _pickle; _pickle.load = _pickle.loads = _pickle.Unpickler = refused\n"
        "print(len(TicketSet.load(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(theirs), str(ours)],
        capture_output=True,
        text=True,
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"},
            "PYTHONHASHSEED": "12345",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
    assert theirs.read_bytes() == ours.read_bytes()


def test_no_pickle_inside(tmp_path: Path) -> None:
    small_set().save(tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    for opcode in (b"\x80\x02", b"\x80\x04\x95", b"PK\x03\x04", b"ctorch"):
        assert opcode not in content


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_strings(kind: type, tmp_path: Path) -> None:
    small_set().save(kind(tmp_path / "deep" / "er" / "t.safetensors"))
    assert_same(TicketSet.load(kind(tmp_path / "deep" / "er" / "t.safetensors")), small_set())


def test_an_unknown_dtype_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    tickets = TicketSet([Ticket("a", {"w": MASK}, {"f": torch.ones(1, dtype=torch.complex128)})])
    with pytest.raises(InvalidArgument, match=r"cannot hold torch.complex128 tensors: give"):
        tickets.save(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "m", "mixture", {}, {"a": torch.ones(1)})
    with pytest.raises(DamagedFile, match="format 'rtl-plugin mixture', expected 'rtl-plugin tick"):
        TicketSet.load(tmp_path / "m")
    header, tensors = read_file(tmp_path / "m", "mixture")
    assert header == {}
    torch.testing.assert_close(tensors, {"a": torch.ones(1)})


def test_it_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    small_set().save(tmp_path / "t")
    assert len(safetensors.torch.load_file(tmp_path / "t")) == 7
