"""Mask files that users saved years ago are read without running what they may hold."""

import collections
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_nni import load_masks
from rtl_plugin import TicketSet
from rtl_plugin.errors import DamagedFile, MissingFile
from tests.nni.networks import CNN, L1, MLP, pruner_of, same_masks


def as_defaultdict(masks: Any) -> Any:
    made = collections.defaultdict(dict)
    for module, targets in masks.items():
        made[module] = dict(targets)
    return made


def as_dicts(masks: Any) -> Any:
    return {module: dict(targets) for module, targets in masks.items()}


def as_ordered(masks: Any) -> Any:
    return collections.OrderedDict((m, collections.OrderedDict(t)) for m, t in masks.items())


def as_bool(masks: Any) -> Any:
    return {
        module: {t: None if mask is None else mask.bool() for t, mask in targets.items()}
        for module, targets in masks.items()
    }


@pytest.fixture(scope="module")
def masks() -> Any:
    pruner = pruner_of(CNN, CNN.build(), L1, 12, names="a")
    return pruner.compress()[1]["a"]


@pytest.mark.parametrize("form", [as_defaultdict, as_dicts, as_ordered, as_bool])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_files_of_torch(form: Any, zipped: bool, masks: Any, tmp_path: Path) -> None:
    torch.save(form(masks), tmp_path / "masks.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_masks(tmp_path / "masks.pth")
    assert type(loaded) is dict
    assert all(type(targets) is dict for targets in loaded.values())
    assert list(loaded) == list(masks)
    assert same_masks(loaded, form(masks))


OTHER_PROTOCOL = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")


@OTHER_PROTOCOL
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_of_pickle(protocol: int, masks: Any, tmp_path: Path) -> None:
    torch.save(as_defaultdict(masks), tmp_path / "masks.pth", pickle_protocol=protocol)
    if protocol == 2:
        assert same_masks(load_masks(tmp_path / "masks.pth"), masks)
        return
    try:
        loaded = load_masks(tmp_path / "masks.pth")
    except DamagedFile:
        return  # torch reads no more than protocol 2 safely
    assert same_masks(loaded, masks)


def test_what_nni_itself_hands_out(tmp_path: Path) -> None:
    pruner = L1.source(CNN.build(), CNN.config())
    _, masks = pruner.compress()
    assert type(masks) is collections.defaultdict
    torch.save(masks, tmp_path / "masks.pth")
    loaded = load_masks(str(tmp_path / "masks.pth"))
    assert same_masks(loaded, masks)
    L1.source(CNN.build(), CNN.config()).update_masks(loaded)


def test_targets_without_a_parameter(tmp_path: Path) -> None:
    torch.save({"fc": {"weight": torch.ones(2, 2), "bias": None}}, tmp_path / "m")
    assert load_masks(tmp_path / "m")["fc"]["bias"] is None


def test_saved_by_a_data_parallel_model(masks: Any, tmp_path: Path) -> None:
    torch.save({f"module.{name}": dict(t) for name, t in masks.items()}, tmp_path / "m")
    loaded = load_masks(tmp_path / "m")
    assert list(loaded) == ["module.0", "module.3"]
    tickets = TicketSet.from_nni(loaded, CNN.build())
    assert same_masks(tickets.to_nni("pruned"), masks)


def test_a_failing_load_leaves_nothing_allowed(tmp_path: Path) -> None:
    before = list(torch.serialization.get_safe_globals())
    torch.save(nn.Linear(1, 1), tmp_path / "m")
    with pytest.raises(DamagedFile):
        load_masks(tmp_path / "m")
    torch.save({"a": {"weight": torch.ones(1)}}, tmp_path / "m")
    load_masks(tmp_path / "m")
    assert list(torch.serialization.get_safe_globals()) == before


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("call", [os.mkdir, os.system, subprocess.call, eval])
def test_hostile_files_are_refused_and_not_run(
    call: Any, inside: bool, zipped: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "ran"
    argument: Any = f"__import__('os').mkdir({str(trace)!r})" if call is eval else f"mkdir {trace}"
    if call is os.mkdir:
        argument = str(trace)
    elif call is subprocess.call:
        argument = ["mkdir", str(trace)]
    hostile = Hostile(call, argument)
    content = {"fc": {"weight": hostile if inside else torch.ones(1)}, "x": hostile}
    torch.save(content, tmp_path / "m", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DamagedFile, match="not a mask file of NNI that can be read safely"):
        load_masks(tmp_path / "m")
    assert not trace.exists()


@OTHER_PROTOCOL
def test_a_bare_hostile_pickle(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    (tmp_path / "m").write_bytes(pickle.dumps(Hostile(os.mkdir, str(trace))))
    with pytest.raises(DamagedFile):
        load_masks(tmp_path / "m")
    assert not trace.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3, 0.5])
def test_truncated_files(share: float, masks: Any, tmp_path: Path) -> None:
    torch.save(as_defaultdict(masks), tmp_path / "m")
    content = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DamagedFile, match=r"m' is not a mask file of NNI"):
        load_masks(tmp_path / "m")


@pytest.mark.parametrize(
    ("content", "came"),
    [
        ({}, "an empty mapping"),
        (torch.ones(2), "Tensor"),
        ([{"weight": torch.ones(1)}], "list"),
        ({"fc.weight": torch.ones(1)}, "dict"),
        ({1: {"weight": torch.ones(1)}}, "dict"),
        ({"fc": {"weight": 1.0}}, "dict"),
        ({"a": {"fc": {"weight": 1.0}}}, "dict"),
    ],
)
def test_files_that_hold_something_else(content: Any, came: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "m")
    with pytest.raises(DamagedFile, match=f"holds {came}, and masks are module name"):
        load_masks(tmp_path / "m")


@pytest.mark.parametrize("content", [b"", b"hello", b"{}", b"PK\x03\x04" + b"\0" * 60, b"\0" * 99])
def test_files_of_others(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(DamagedFile, match="is not a mask file of NNI"):
        load_masks(tmp_path / "m")


def test_no_file_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no file at"):
        load_masks(tmp_path / "nowhere.pth")
    with pytest.raises(MissingFile, match="no file at"):
        load_masks(tmp_path)
    with pytest.raises(FileNotFoundError):  # the built-in error that fits
        load_masks(tmp_path / "nowhere.pth")


def test_masks_of_another_model(masks: Any, tmp_path: Path) -> None:
    from rtl_plugin.errors import StructureMismatch

    torch.save({f"features.{name}": dict(t) for name, t in masks.items()}, tmp_path / "m")
    with pytest.raises(StructureMismatch, match="2 of 2 masked modules are not in the model"):
        TicketSet.from_nni(load_masks(tmp_path / "m"), MLP.build())


def test_masks_of_several_groups_are_read_as_they_were_saved(tmp_path: Path) -> None:
    masks = {"a": {"fc": {"weight": torch.ones(1)}}, "b": {"fc": {"weight": torch.zeros(1)}}}
    torch.save(masks, tmp_path / "m")
    loaded = load_masks(tmp_path / "m")
    assert list(loaded) == ["a", "b"]
    assert float(loaded["b"]["fc"]["weight"]) == 0
