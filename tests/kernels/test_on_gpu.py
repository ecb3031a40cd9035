"""The kernels on a GPU: real shapes, no waiting for the device, graphs that are routed anew."""

import itertools
from collections.abc import Callable

import pytest
import torch

from rtl_plugin.mixture.kernels import (
    bitmask_linear,
    depthwise_conv2d,
    expand_masked,
    grouped_conv2d,
    grouped_linear,
    pack_depthwise,
    pack_words,
    why_not,
)
from tests.kernels import oracle
from tests.kernels.contract import (
    check_convolution,
    check_depthwise,
    check_expansion,
    check_linear,
)

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SAME = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
UNEVEN = {"stride": (2, 3), "padding": (3, 1), "dilation": (1, 2)}
Operation = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def usable() -> None:
    reason = why_not(torch.device("cuda"))
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["grouped", "bitmask"])
@pytest.mark.parametrize("counts", [[16] * 10, [3, 0, 1, 60], [500, 0, 20, 1], [1], [2] * 300])
@pytest.mark.parametrize("size", [(512, 1024), (1000, 512), (10, 784), (257, 333)])
def test_linear(kind: str, dtype: torch.dtype, counts: list[int], size: tuple[int, int]) -> None:
    check_linear(kind, dtype, counts, size, device="cuda")


@pytest.mark.parametrize("kind", ["grouped", "bitmask"])
def test_tf32_is_taken_only_when_it_is_asked_for(kind: str) -> None:
    routing = ([64, 64], (256, 1024))
    exact = check_linear(kind, torch.float32, *routing, device="cuda")
    with pytest.raises(AssertionError, match="not close"):
        check_linear(kind, torch.float32, *routing, device="cuda", allow_tf32=True)
    assert exact.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_expansion(dtype: torch.dtype) -> None:
    check_expansion(dtype, [3, 0, 3, 9], (1000, 333), device="cuda")
    check_expansion(dtype, [1], (1, 1), device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("window", [SAME, UNEVEN], ids=["same", "uneven"])
@pytest.mark.parametrize(
    "shape", [(64, 128, 16, 16, 3, 3), (3, 64, 32, 32, 3, 3), (24, 72, 8, 7, 1, 1)]
)
def test_convolution(dtype: torch.dtype, shape: tuple[int, ...], window: dict) -> None:
    check_convolution(dtype, [5, 0, 1, 9], shape, window, device="cuda")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("packed", [True, False])
def test_depthwise(dtype: torch.dtype, packed: bool) -> None:
    for shape, window in (((96, 16, 16, 3, 3), SAME), ((67, 9, 11, 5, 3), UNEVEN)):
        tickets = [2, 0, 2, 1, 7]
        check_depthwise(dtype, tickets, shape, window, packed=packed, device="cuda")


def test_an_unknown_ticket_shows_in_its_samples_alone() -> None:
    words = pack_words([torch.ones(4, 70, dtype=torch.bool, device="cuda")] * 2)
    weight = torch.ones(4, 70, device="cuda")
    which = torch.tensor([0, 2, -1, 1], dtype=torch.int32, device="cuda")
    copies = expand_masked(weight, words, which)
    assert [bool(copy.isnan().all()) for copy in copies] == [False, True, True, False]
    assert bool((copies[[0, 3]] == 1).all())
    x, taps = torch.ones(4, 5, 6, 6, device="cuda"), torch.ones(2, 5, 1, 3, 3, device="cuda")
    y = depthwise_conv2d(x, taps, which)
    assert [bool(image.isnan().all()) for image in y] == [False, True, True, False]
    assert bool((y[[0, 3]] == 9).all())


def test_products_of_more_than_two_to_the_31_elements() -> None:
    rows, outputs = 2**16 + 40, 2**15
    if torch.cuda.mem_get_info()[0] < 14 * 2**30:
        pytest.skip("needs 14 GiB of free GPU memory")
    x = torch.ones(rows, 16, dtype=torch.float16, device="cuda")
    weights = torch.ones(2, outputs, 16, dtype=torch.float16, device="cuda")
    weights[1] = 2
    y = grouped_linear(x, weights, oracle.offsets_of([rows - 30, 30], "cuda"))
    assert bool((y[: rows - 30] == 16).all())
    assert bool((y[rows - 30 :] == 32).all())


def operations() -> dict[str, tuple[tuple[int, ...], Callable[[torch.Tensor], Operation]]]:
    """Name -> shape of x, and what makes an operation for int32 offsets of 16 samples."""
    drawn = oracle.Drawn(torch.bfloat16, "cuda")
    weight, masks = drawn.numbers(96, 64).contiguous(), drawn.masks(4, 96, 64)
    words, copies = pack_words(list(masks)), torch.stack(oracle.masked(weight, masks))
    kernels = drawn.numbers(4, 24, 16, 3, 3).contiguous()
    channelwise, taps = drawn.numbers(16, 1, 3, 3).contiguous(), drawn.masks(4, 16, 1, 3, 3)
    packed = pack_depthwise(list(taps))

    def depthwise(offsets: torch.Tensor) -> Operation:
        def run(x: torch.Tensor) -> torch.Tensor:
            rows = torch.arange(16, dtype=torch.int32, device="cuda")
            ticket = torch.searchsorted(offsets[1:], rows, right=True, out_int32=True)
            return depthwise_conv2d(x, channelwise, ticket, packed)

        return run

    return {
        "grouped": ((16, 64), lambda o: lambda x: grouped_linear(x, copies, o)),
        "bitmask": (
            (16, 64),
            lambda o: lambda x: bitmask_linear(x, weight, words, o, rows_per_ticket_hint=60),
        ),
        "few_rows": ((16, 64), lambda o: lambda x: bitmask_linear(x, weight, words, o)),
        "convolution": ((16, 16, 6, 6), lambda o: lambda x: grouped_conv2d(x, kernels, o)),
        "depthwise": ((16, 16, 6, 6), depthwise),
    }


@pytest.mark.parametrize("name", ["grouped", "bitmask", "few_rows", "convolution", "depthwise"])
def test_graphs_are_routed_anew_and_nothing_waits(name: str) -> None:
    shape, make = operations()[name]
    x = oracle.Drawn(torch.bfloat16, "cuda", seed=1).numbers(*shape).contiguous()
    offsets = oracle.offsets_of([4, 4, 4, 4], "cuda")
    run = make(offsets)
    run(x)  # compiles
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(x)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run(x)
    seen = []
    for counts in ([4, 4, 4, 4], [16, 0, 0, 0], [0, 1, 15, 0]):
        offsets.copy_(oracle.offsets_of(counts))
        graph.replay()
        assert torch.equal(y, run(x))
        seen.append(y.clone())
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))
