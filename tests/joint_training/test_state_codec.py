"""Optimizer and scheduler state through JSON and tensors and back."""

import json
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.fingerprint import bit_equal
from rtl_plugin.state_codec import decode_state, encode_state


def through_json(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    encoded = json.loads(json.dumps(encode_state(value, tensors, "t.")))
    return decode_state(encoded, tensors), tensors


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -7,
        0.1,
        1e-300,
        float("inf"),
        "text",
        {},
        [],
        (),
        {0: "a", -1: "b", "0": "c", 1.5: "d", True: "e", None: "f"},
        {("a", 1): [(), ((1,),)]},
        (0.9, 0.999),
        [1, (2, [3, {"x": (None,)}])],
        Counter({3: 2, 7: 1}),
        {"milestones": Counter([2, 2, 5]), "base_lrs": [0.1], "verbose": False},
        {"tensor": "t.0", "dict": {"list": []}},
    ],
)
def test_round_trips(value: Any) -> None:
    decoded, tensors = through_json(value)
    assert decoded == value
    assert type(decoded) is type(value)
    assert repr(decoded) == repr(value), "tuples stay tuples, and ints are not floats"
    assert tensors == {}


def test_tensors_keep_every_bit() -> None:
    value = {
        "step": torch.tensor(3.0),
        "moments": [torch.tensor([-0.0, float("nan"), 1e-45]), torch.ones(2, 3).bfloat16()],
        "flags": (torch.tensor([True, False]), torch.zeros(0, 2)),
        0: torch.arange(3),
    }
    decoded, tensors = through_json(value)
    assert len(tensors) == 6
    assert all(key.startswith("t.") for key in tensors)
    for ours, theirs in (
        (decoded["step"], value["step"]), (decoded[0], value[0]),
        *zip(decoded["moments"], value["moments"], strict=True),
        *zip(decoded["flags"], value["flags"], strict=True),
    ):  # fmt: skip
        assert bit_equal(ours, theirs)
    decoded["step"] += 1
    assert float(through_json(value)[0]["step"]) == 3.0, "decoded tensors are copies"


def test_two_states_may_share_one_file() -> None:
    tensors: dict[str, torch.Tensor] = {}
    first = encode_state(torch.zeros(1), tensors, "w.")
    second = encode_state([torch.ones(1)], tensors, "s.")
    assert decode_state(first, tensors).item() == 0.0
    assert decode_state(second, tensors)[0].item() == 1.0


def test_mappings_of_other_kinds_become_dicts() -> None:
    for kind in (OrderedDict(a=1), defaultdict(int, a=1)):
        assert through_json(kind)[0] == {"a": 1}


def test_numpy_floats_are_floats() -> None:
    assert through_json(np.float64(0.25))[0] == 0.25


@pytest.mark.parametrize(
    ("value", "kind"),
    [({1, 2}, "set"), (lambda: 1, "function"), ({"a": [object()]}, "object"), (b"x", "bytes"),
     (1j, "complex"), (np.int64(3), "int64"), (np.zeros(2), "ndarray"), (torch.float32, "dtype")],
)  # fmt: skip
def test_other_types_are_refused_by_name(value: Any, kind: str) -> None:
    with pytest.raises(
        InvalidArgument, match=f"holds a {kind}, which a checkpoint cannot keep: le"
    ):
        encode_state(value, {}, "t.")


@pytest.mark.parametrize(
    "encoded",
    [
        [],
        [1],
        {},
        {"list": [], "dict": []},
        {"tensor": "t.1"},
        {"tensor": ["t.0"]},
        {"tensor": {"t.0": 1}},
        {"set": [1]},
        {"list": 3},
        {"tuple": None},
        {"dict": [1, 2]},
        {"dict": [["a"]]},
        {"dict": [["a", 1, 2]]},
        {"dict": [[{"list": []}, 1]]},
        {"counter": [[{"dict": []}, 1]]},
        {"list": [{"list": [{"oops": 1}]}]},
        {"dict": 5},
    ],
    ids=repr,
)
def test_anything_else_is_a_damaged_file(encoded: Any) -> None:
    with pytest.raises(DamagedFile, match="not encoded state"):
        decode_state(encoded, {"t.0": torch.zeros(1)})
