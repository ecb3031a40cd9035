"""What the kernels refuse, and where they say they can run; no kernel runs here."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.mixture.kernels import (
    available,
    bitmask_linear,
    depthwise_conv2d,
    expand_masked,
    grouped_conv2d,
    grouped_linear,
    loading,
    pack_words,
    why_not,
)
from tests.kernels.oracle import offsets_of
from tests.kernels.processes import python

CPU = torch.device("cpu")
WORDS = pack_words([torch.ones(4, 3, dtype=torch.bool)] * 2)
TAPS = pack_words([torch.ones(3, 4, dtype=torch.bool)] * 2)
OFFSETS = offsets_of([2, 3])
INDICES = torch.tensor([0, 1, 1], dtype=torch.int32)

# Calls whose operands all fit, by argument name, so that a test changes one.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "grouped_linear": (
        grouped_linear,
        {"x": torch.ones(5, 3), "weights": torch.ones(2, 4, 3), "offsets": OFFSETS},
    ),
    "bitmask_linear": (
        bitmask_linear,
        {"x": torch.ones(5, 3), "weight": torch.ones(4, 3), "words": WORDS, "offsets": OFFSETS},
    ),
    "expand_masked": (
        expand_masked,
        {"weight": torch.ones(4, 3), "words": WORDS, "tickets": INDICES},
    ),
    "grouped_conv2d": (
        grouped_conv2d,
        {"x": torch.ones(5, 3, 6, 6), "weights": torch.ones(2, 4, 3, 2, 2), "offsets": OFFSETS},
    ),
    "depthwise_conv2d": (
        depthwise_conv2d,
        {
            "x": torch.ones(3, 3, 6, 6),
            "weight": torch.ones(3, 1, 2, 2),
            "ticket_of_sample": INDICES,
            "words": TAPS,
        },
    ),
}
NAN = float("nan")


def refused(call: str, message: str, **changed: Any) -> None:
    function, operands = CALLS[call]
    with pytest.raises(InvalidArgument, match=message):
        function(**{**operands, **changed})


@pytest.mark.skipif(available(CPU), reason="the interpreter runs on a CPU")
@pytest.mark.parametrize("call", CALLS)
def test_a_cpu_is_refused_with_the_way_out(call: str) -> None:
    refused(call, rf"{call} cannot run: .*; use the strategy slices")


@pytest.mark.parametrize("call", CALLS)
def test_double_precision_is_refused_with_the_way_out(call: str) -> None:
    operands = CALLS[call][1]
    doubled = {k: v.double() for k, v in operands.items() if v.is_floating_point()}
    refused(call, rf"{call} runs .*got torch.float64: use the strategy slices", **doubled)


@pytest.mark.parametrize("call", CALLS)
def test_gradients_are_not_dropped(call: str) -> None:
    operands = CALLS[call][1]
    for name, tensor in operands.items():
        if tensor.is_floating_point():
            wanting = tensor.clone().requires_grad_()
            refused(call, f"{call} has no backward, and {name} requires", **{name: wanting})


@pytest.mark.parametrize("call", [call for call in CALLS if call != "expand_masked"])
@pytest.mark.parametrize("name", ["bias", "scale", "shift"])
def test_epilogues_are_checked(call: str, name: str) -> None:
    outputs = 3 if call == "depthwise_conv2d" else 4
    wanting = torch.ones(2, outputs, requires_grad=True)
    refused(call, f"{call} has no backward, and {name} requires", **{name: wanting})
    wrong = rf"{name} must be floating of shape .*\(2, {outputs}\) for 2 tickets and {outputs}"
    refused(call, wrong, **{name: torch.ones(3, outputs)})
    refused(call, wrong, **{name: torch.ones(2, outputs, dtype=torch.int64)})
    if name != "bias":
        refused(call, wrong, **{name: torch.ones(outputs)})


@pytest.mark.parametrize(
    ("call", "changed", "message"),
    [
        ("grouped_linear", {"x": torch.ones(5, 2)}, r"weights \[T, N, K\], got shapes \(5, 2\)"),
        ("grouped_linear", {"x": torch.ones(1, 5, 3)}, "flatten other dimensions"),
        ("grouped_linear", {"weights": torch.ones(4, 3)}, r"weights \[T, N, K\]"),
        ("grouped_linear", {"weights": torch.ones(2, 0, 3)}, "weights is empty"),
        ("grouped_linear", {"weights": torch.ones(2, 3, 4).mT}, "weights must have stride 1"),
        ("grouped_linear", {"weights": torch.ones(3, 4, 3)}, "4 entries for 3 tickets, got 3"),
        ("grouped_linear", {"offsets": offsets_of([2, 2])}, "ascend from 0 to the 5 rows"),
        ("bitmask_linear", {"weight": torch.ones(2, 4, 3)}, r"weight \[N, K\]"),
        ("bitmask_linear", {"weight": torch.ones(3, 4).T}, "weight must have stride 1"),
        ("bitmask_linear", {"words": WORDS[:, :, :3]}, r"words must be int64 \[T, 1, 4\]"),
        ("bitmask_linear", {"words": WORDS.int()}, "got torch.int32"),
        ("bitmask_linear", {"words": WORDS.repeat(1, 1, 2)[..., ::2]}, "words must be contiguous"),
        ("bitmask_linear", {"offsets": offsets_of([5])}, "3 entries for 2 tickets, got 2"),
        ("expand_masked", {"weight": torch.ones(3, 4).T}, "with stride 1 along K"),
        ("expand_masked", {"weight": torch.ones(4, 3, 1)}, "flatten a convolution's weight"),
        ("expand_masked", {"words": TAPS}, r"words must be int64 \[T, 1, 4\]"),
        ("expand_masked", {"tickets": INDICES.long()}, "tickets must be int32"),
        ("expand_masked", {"tickets": INDICES + 1}, "must lie in 0 to 1, got values from 1 to 2"),
        ("expand_masked", {"tickets": INDICES - 1}, "got values from -1 to 0"),
        ("expand_masked", {"out": torch.ones(2, 4, 3)}, r"out must be contiguous of shape \(3, 4"),
        ("expand_masked", {"out": torch.ones(3, 3, 4).mT}, "out must be contiguous"),
        ("grouped_conv2d", {"x": torch.ones(5, 2, 6, 6)}, r"\(groups=1\), got shapes"),
        ("grouped_conv2d", {"x": torch.ones(5, 3, 1, 6)}, "does not fit into an image of 1 x 6"),
        ("grouped_conv2d", {"dilation": (6, 1)}, r"dilation \(6, 1\) does not fit"),
        ("grouped_conv2d", {"stride": 2}, "stride must be two whole numbers of at least 1, got 2"),
        ("grouped_conv2d", {"stride": (0, 1)}, "stride must be two whole numbers of at least 1"),
        ("grouped_conv2d", {"padding": "same"}, "padding must be two whole .*got 'same'"),
        ("grouped_conv2d", {"padding": (1, -1)}, "padding must be two whole numbers of at least 0"),
        ("grouped_conv2d", {"offsets": offsets_of([5])}, "3 entries for 2 tickets"),
        ("grouped_conv2d", {"offsets": offsets_of([2, 2])}, "ascend from 0 to the 5 rows"),
        ("depthwise_conv2d", {"words": None}, r"\[T, C, 1, kh, kw\] without words"),
        ("depthwise_conv2d", {"weight": torch.ones(6, 1, 2, 2)}, "one filter a channel"),
        ("depthwise_conv2d", {"words": WORDS}, r"words must be int64 \[T, 1, 3\]"),
        ("depthwise_conv2d", {"ticket_of_sample": INDICES[:2]}, "one index a sample, 3, got 2"),
        ("depthwise_conv2d", {"ticket_of_sample": INDICES * 2}, "must lie in 0 to 1, got values"),
    ],
)
def test_shapes_and_values(call: str, changed: dict[str, Any], message: str) -> None:
    refused(call, message, **changed)


@pytest.mark.skipif(available(CPU), reason="the interpreter runs on a CPU")
def test_why_not() -> None:
    assert not available(CPU)
    assert "installed" in why_not(CPU) or "and the tensors are on 'cpu'" in why_not(CPU)


def test_cuda_is_not_asked_about_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> bool:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    monkeypatch.setattr(torch.cuda, "get_device_capability", asked)
    assert available(CPU) == loading.interpreted()


@pytest.mark.parametrize(
    ("capability", "usable"), [((7, 5), False), ((8, 0), True), ((9, 0), True)]
)
def test_old_devices_are_refused(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], usable: bool
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    device = torch.device("cuda", 1)
    assert available(device) == usable
    if not usable:
        assert why_not(device) == (
            "the kernels need compute capability 8.0 (A100 or newer), cuda:1 has 7.5"
        )


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    loading._has_triton.cache_clear()
    loading._compiled.cache_clear()
    try:
        assert "Triton is not installed" in why_not(torch.device("cuda"))
        with pytest.raises(MissingExtra, match="pip install"):
            loading.kernel("linear_kernel")
    finally:
        loading._has_triton.cache_clear()
        loading._compiled.cache_clear()


def test_importing_the_kernels_imports_no_triton_and_starts_no_cuda() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import rtl_plugin.mixture.kernels;"
        "new = {m for m in set(sys.modules) - before if m.split('.')[0] == 'triton'};"
        "assert not new, new; assert not torch.cuda.is_initialized()"
    )
    done = python(["-W", "error", "-c", code])
    assert done.returncode == 0, done.stderr
