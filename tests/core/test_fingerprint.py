"""Fingerprints and bit equality look at bits, not at numbers."""

import pytest
import torch
from torch import nn

from rtl_plugin.fingerprint import (
    bit_equal,
    model_structure,
    model_values,
    raw_bytes,
    structure_fingerprint,
    values_fingerprint,
)
from tests.models import ZOO, Network, mlp

NAN = float("nan")
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)], ids=str)
def test_raw_bytes_of_every_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    assert len(raw_bytes(tensor)) == tensor.numel() * tensor.element_size()
    assert bit_equal(tensor, tensor.clone())


def test_raw_bytes_are_row_major() -> None:
    matrix = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    assert raw_bytes(matrix) == b"\x01\x02\x03\x04"
    assert raw_bytes(matrix.t()) == b"\x01\x03\x02\x04"
    assert raw_bytes(torch.tensor([1.0], dtype=torch.bfloat16)) == b"\x80\x3f"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_bit_equality_of_special_values(dtype: torch.dtype) -> None:
    def value(number: float) -> torch.Tensor:
        return torch.tensor([1.0, number], dtype=dtype)

    assert bit_equal(value(NAN), value(NAN))
    assert not bit_equal(value(0.0), value(-0.0))
    assert bit_equal(value(-0.0), value(-0.0))
    assert not bit_equal(value(float("inf")), value(-float("inf")))


def test_two_kinds_of_nan_differ() -> None:
    other = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert not bit_equal(torch.tensor([NAN]), other)


def test_one_bit_makes_the_difference() -> None:
    one = torch.ones(3, dtype=torch.bfloat16)
    other = one.clone()
    other.view(torch.int16)[1] += 1
    assert not bit_equal(one, other)


def test_dtype_and_shape_make_a_difference() -> None:
    assert not bit_equal(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
    assert not bit_equal(torch.zeros(2, 3), torch.zeros(3, 2))
    assert not bit_equal(torch.zeros(1), torch.zeros(()))
    assert not bit_equal(torch.zeros(0, 2), torch.zeros(0, 3))


def test_layout_and_gradients_make_none() -> None:
    matrix = torch.randn(3, 4)
    assert bit_equal(matrix.t().contiguous().t(), matrix)
    assert bit_equal(nn.Parameter(matrix.clone()), matrix)


def test_the_values_fingerprint_follows_names_order_dtypes_shapes_and_bits() -> None:
    base = {"a": torch.zeros(2), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(2), "c": torch.ones(2)},
        {"b": torch.ones(2), "a": torch.zeros(2)},
        {"a": torch.zeros(2), "b": torch.ones(2, dtype=torch.float64)},
        {"a": torch.zeros(1, 2), "b": torch.ones(2)},
        {"a": torch.tensor([0.0, -0.0]), "b": torch.ones(2)},
        {"a": torch.zeros(2)},
        {},
    ]
    prints = [values_fingerprint(tensors) for tensors in (base, *others)]
    assert len(set(prints)) == len(prints)
    assert values_fingerprint({n: t.clone() for n, t in base.items()}) == prints[0]


def test_the_structure_fingerprint_follows_names_and_shapes() -> None:
    base = structure_fingerprint([("a", (2, 3)), ("b", (4,))])
    assert structure_fingerprint([("a", torch.Size([2, 3])), ("b", [4])]) == base
    others = [
        [("b", (4,)), ("a", (2, 3))],
        [("a", (3, 2)), ("b", (4,))],
        [("a", (2, 3)), ("c", (4,))],
        [("a", (2,)), ("b", (3, 4))],
    ]
    assert len({structure_fingerprint(shapes) for shapes in others} | {base}) == 5


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_two_builds_share_a_structure_and_differ_in_values(network: Network) -> None:
    torch.manual_seed(0)
    one, other = network.build(), network.build()
    assert model_structure(one) == model_structure(other)
    assert model_values(one) != model_values(other)
    other.load_state_dict(one.state_dict())
    assert model_values(one) == model_values(other)


def test_training_changes_values_and_not_the_structure() -> None:
    model = mlp()
    structure, values = model_structure(model), model_values(model)
    with torch.no_grad():
        model[2].bias[3] += 1e-3
    assert model_structure(model) == structure
    assert model_values(model) != values


def test_a_fingerprint_is_the_same_everywhere() -> None:
    # Another value would refuse every file that was written before.
    tensors = {"ä/b": torch.arange(3.0), "c": torch.ones(2, dtype=torch.bfloat16)}
    assert (
        values_fingerprint(tensors)
        == "35504f0f49ce9102706c14c52addb7299e2e31d3b9c4aeb074e81d9913ffb03a"
    )
    assert (
        structure_fingerprint((name, tensor.shape) for name, tensor in tensors.items())
        == "74c4851de2cc03d53a5a6d7a25da42563333d152e3c9a37c15eea8cb0efa9d2a"
    )
