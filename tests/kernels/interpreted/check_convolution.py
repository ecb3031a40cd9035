"""Run by `test_kernels_interpreted.py` in a process with TRITON_INTERPRET=1."""

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels import (
    convolution,
    depthwise_conv2d,
    grouped_conv2d,
    pack_depthwise,
    tile_table,
)
from tests.kernels import oracle
from tests.kernels.contract import check_convolution, check_depthwise

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
SAME = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
# Every number differs from its mate and from what the other pairs have there.
UNEVEN = {"stride": (2, 3), "padding": (3, 1), "dilation": (1, 2)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((3, 5, 4, 5, 3, 3), SAME),
        ((70, 9, 3, 2, 1, 1), PLAIN),
        ((2, 67, 6, 7, 2, 3), UNEVEN),
        ((16, 32, 4, 5, 3, 3), SAME),
        ((80, 80, 3, 3, 2, 1), PLAIN),
        ((1, 1, 1, 1, 1, 1), PLAIN),
    ],
    ids=str,
)
def test_grouped(dtype: torch.dtype, shape: tuple[int, ...], window: dict) -> None:
    check_convolution(dtype, [2, 0, 1, 3], shape, window, per_ticket=shape[0] != 70)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("counts", [[1], [0, 5, 0], [9, 1]], ids=str)
def test_tiles_of_every_size(dtype: torch.dtype, counts: list[int]) -> None:
    check_convolution(dtype, counts, (4, 6, 9, 11, 3, 2), SAME)


def test_grouped_without_samples() -> None:
    y = grouped_conv2d(
        torch.ones(0, 2, 5, 4), torch.ones(3, 7, 2, 3, 3), oracle.offsets_of([0] * 3)
    )
    assert y.shape == (0, 7, 3, 2)


def test_a_shared_table_counts_output_pixels() -> None:
    drawn, offsets = oracle.Drawn(torch.float32), oracle.offsets_of([1, 2])
    x, weights = drawn.numbers(3, 4, 5, 5), drawn.numbers(2, 6, 4, 3, 3)
    tiles = tile_table(offsets * 9, 27, 16)
    y = grouped_conv2d(x, weights, offsets, tiles=tiles)
    oracle.close(y, oracle.convolution(x, list(weights), [0, 1, 1], {}, PLAIN), torch.float32)
    with pytest.raises(InvalidArgument, match="which no table of 27 rows and 2 tickets has"):
        grouped_conv2d(x, weights, offsets, tiles=tile_table(offsets, 3, 1))


def test_weights_with_channels_last_give_the_same() -> None:
    drawn, offsets = oracle.Drawn(torch.float16), oracle.offsets_of([1, 2])
    x, weights = drawn.numbers(3, 5, 4, 4), drawn.numbers(2, 6, 5, 3, 3).contiguous()
    last = weights.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert last.stride(2) == 1
    assert torch.equal(grouped_conv2d(x, weights, offsets), grouped_conv2d(x, last, offsets))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("shape", "window"),
    [((5, 4, 5, 3, 3), SAME), ((67, 3, 2, 2, 1), PLAIN), ((3, 6, 9, 3, 2), UNEVEN)],
    ids=str,
)
def test_depthwise(dtype: torch.dtype, packed: bool, shape: tuple[int, ...], window: dict) -> None:
    check_depthwise(dtype, [2, 0, 2, 1], shape, window, packed=packed, per_ticket=shape[0] != 67)


def test_depthwise_taps_of_more_than_one_word() -> None:
    check_depthwise(torch.float32, [1, 0], (3, 9, 9, 9, 8), PLAIN, packed=True)


def test_depthwise_masked_taps_may_hold_anything() -> None:
    weight = torch.tensor([1.0, float("nan"), float("inf"), 3.0]).reshape(1, 1, 2, 2)
    words = pack_depthwise([weight.isfinite()])
    x, ticket = torch.ones(1, 1, 2, 2), torch.zeros(1, dtype=torch.int32)
    assert depthwise_conv2d(x, weight, ticket, words).item() == 4


def test_depthwise_with_many_tickets() -> None:
    check_depthwise(torch.float32, [299, 0, 150], (2, 3, 3, 3, 3), SAME, packed=True)


def test_an_unknown_ticket_shows_in_its_samples_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU indices are not read beforehand, so the kernel must stay inside its tables.
    monkeypatch.setattr(convolution, "check_ticket_indices", lambda *_: None)
    which = torch.tensor([0, 2, -1, 1], dtype=torch.int32)
    y = depthwise_conv2d(torch.ones(4, 5, 6, 6), torch.ones(2, 5, 1, 3, 3), which)
    assert [bool(image.isnan().all()) for image in y] == [False, True, True, False]
    assert bool((y[[0, 3]] == 9).all())


def test_the_graph_of_compiled_code_is_not_broken() -> None:
    drawn, offsets = oracle.Drawn(torch.float32), oracle.offsets_of([1, 1])
    weights, channelwise = drawn.numbers(2, 3, 3, 3, 3), drawn.numbers(2, 3, 1, 3, 3)
    ticket = torch.tensor([1, 0], dtype=torch.int32)

    def network(x: torch.Tensor) -> torch.Tensor:
        y = grouped_conv2d(x, weights, offsets, padding=(1, 1)).relu()
        return depthwise_conv2d(y, channelwise, ticket, stride=(2, 2))

    x = drawn.numbers(2, 3, 6, 5)
    with torch.no_grad():
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), network(x))


def test_operators_keep_what_their_schemas_say() -> None:
    operators, window = torch.ops.rtl_plugin, [2, 1, 1, 0, 1, 1]
    x, ticket = torch.ones(2, 3, 6, 5), torch.zeros(2, dtype=torch.int32)
    grouped = (x, torch.ones(1, 4, 3, 3, 2), oracle.offsets_of([2]), None, None, None, None)
    depthwise = (x, torch.ones(1, 3, 1, 3, 2), ticket, None, None, None, None, window)
    for operator, arguments in (
        (operators.grouped_conv2d, (*grouped, window, False)),
        (operators.depthwise_conv2d, depthwise),
    ):
        utilities = ("test_schema", "test_faketensor")
        torch.library.opcheck(operator.default, arguments, test_utils=utilities)
