"""Run by `test_kernels_interpreted.py` in a process with TRITON_INTERPRET=1."""

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels import (
    bitmask_linear,
    expand_masked,
    expansion,
    grouped_linear,
    linear,
    pack_words,
    tile_table,
)
from tests.kernels import oracle
from tests.kernels.contract import check_expansion, check_linear

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
KINDS = ["grouped", "bitmask"]
ROUTINGS = {
    "empty ticket": [3, 0, 1, 20],
    "one row": [1],
    "one ticket": [70],
    "skew": [0, 1, 150, 1, 0],
    "whole tiles": [16, 32, 64, 128],
    "many tickets": [0] * 150 + [2] + [0] * 148 + [1],
    "no rows": [0, 0, 0],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_routings(kind: str, dtype: torch.dtype, routing: str) -> None:
    check_linear(kind, dtype, ROUTINGS[routing], (10, 34))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hint", [1, 40, 300])
# One column, odd rows of 16-bit weights, more than one block of outputs, more than one word; the
# last two are multiples of 16, which other configurations run.
@pytest.mark.parametrize("size", [(1, 1), (70, 27), (17, 200), (80, 64), (48, 144)])
def test_sizes(kind: str, dtype: torch.dtype, hint: int, size: tuple[int, int]) -> None:
    check_linear(kind, dtype, [2, 0, 19, 5], size, hint=hint, per_ticket=size[0] != 17)


@pytest.mark.parametrize(
    ("kind", "counts", "size", "expected"),
    [
        ("bitmask", [16] * 4, (32, 32), ("few_rows", 16, 64, 64, True)),
        ("bitmask", [16] * 2, (32, 32), ("bitmask", 16, 64, 64, True)),
        ("bitmask", [60] * 3, (32, 32), ("bitmask", 64, 64, 64, True)),
        ("bitmask", [60] * 3, (33, 32), ("bitmask", 64, 64, 32, True)),
        ("bitmask", [60] * 3, (32, 34), ("bitmask", 64, 64, 32, True)),
        ("bitmask", [60] * 3, (32, 33), ("bitmask", 64, 64, 32, False)),
        ("bitmask", [300], (80, 32), ("bitmask", 128, 128, 64, True)),
        ("grouped", [300], (80, 32), ("grouped", 128, 128, 64, False)),
        ("grouped", [1, 1], (80, 32), ("grouped", 16, 64, 128, False)),
    ],
)
def test_rows_and_alignment_decide_what_runs(
    monkeypatch: pytest.MonkeyPatch, kind: str, counts: list, size: tuple, expected: tuple
) -> None:
    seen, run = [], linear.launch

    def launch(name: str, programs: int, arguments: tuple, values: dict, config: object) -> None:
        sizes = (config.block_rows, config.block_out, config.block_k)
        seen.append((name, *sizes, values["PAIRS"]))
        run(name, programs, arguments, values, config)

    monkeypatch.setattr(linear, "launch", launch)
    check_linear(kind, torch.float16, counts, size)
    assert seen == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_more_tiles_than_run_side_by_side(kind: str) -> None:
    check_linear(kind, torch.float32, [40, 100, 60], (150, 20), hint=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_places_may_hold_anything(dtype: torch.dtype) -> None:
    x, weight = torch.ones(4, 66, dtype=dtype), torch.ones(8, 66, dtype=dtype)
    mask = torch.ones(8, 66, dtype=torch.bool)
    for place, value in ((0, float("nan")), (33, float("inf")), (65, float("-inf"))):
        weight[:, place], mask[:, place] = value, False
    for hint in (1, 60):
        offsets = oracle.offsets_of([4])
        y = bitmask_linear(x, weight, pack_words([mask]), offsets, rows_per_ticket_hint=hint)
        assert torch.equal(y, torch.full((4, 8), 63.0, dtype=dtype))


def test_an_epilogue_of_scale_or_shift_alone() -> None:
    x, weights, offsets = torch.ones(2, 3), torch.ones(2, 1, 3), oracle.offsets_of([1, 1])
    table = torch.tensor([[2.0], [5.0]])
    assert grouped_linear(x, weights, offsets).flatten().tolist() == [3, 3]
    assert grouped_linear(x, weights, offsets, scale=table).flatten().tolist() == [6, 15]
    assert grouped_linear(x, weights, offsets, shift=table).flatten().tolist() == [5, 8]


@pytest.mark.parametrize("block_rows", [16, 64, 128])
def test_a_table_of_tiles_is_taken_and_tells_its_size(block_rows: int) -> None:
    drawn, counts = oracle.Drawn(torch.float16), [130, 0, 3]
    x, weights, offsets = drawn.numbers(133, 8), drawn.numbers(3, 9, 8), oracle.offsets_of(counts)
    expected = oracle.linear(x, list(weights), oracle.tickets_of(counts), {})
    tiles = tile_table(offsets, 133, block_rows)
    oracle.close(grouped_linear(x, weights, offsets, tiles=tiles), expected, torch.float16)
    # Proof that the table decides, not the offsets.
    tiles[:, 0] = 2
    moved = grouped_linear(x, weights, offsets, tiles=tiles)
    oracle.close(moved, oracle.linear(x, list(weights), [2] * 133, {}), torch.float16)


def test_nothing_is_read_past_the_end_of_a_table() -> None:
    drawn, offsets = oracle.Drawn(torch.float32), oracle.offsets_of([1, 1, 46])
    x, weight, mask = drawn.numbers(48, 8), drawn.numbers(9, 8), drawn.masks(3, 9, 8)
    tiles = tile_table(offsets, 48, 16)
    assert len(tiles) == 6  # the fifth is the last with rows, in a group of four
    # Whoever reads on overwrites the rows of ticket 2 under ticket 0.
    poisoned = torch.cat((tiles, torch.tensor([[0, 40, 48]] * 2, dtype=torch.int32)))
    y = bitmask_linear(x, weight, pack_words(list(mask)), offsets, tiles=poisoned[: len(tiles)])
    copies, tickets = oracle.masked(weight, mask), oracle.tickets_of([1, 1, 46])
    oracle.close(y, oracle.linear(x, copies, tickets, {}), torch.float32)


def test_a_table_of_another_batch_is_refused() -> None:
    x, weights, offsets = torch.ones(133, 8), torch.ones(2, 4, 8), oracle.offsets_of([130, 3])
    for tiles in (tile_table(offsets, 133, 32), tile_table(offsets, 133, 128)):
        with pytest.raises(InvalidArgument, match="16 or 64 rows: make it with tile_table"):
            grouped_linear(x, weights, offsets, tiles=tiles)
    with pytest.raises(InvalidArgument, match=r"must be int32 \[n_tiles, 3\]"):
        grouped_linear(x, weights, offsets, tiles=tile_table(offsets, 133, 16).long())


def test_rows_in_columns_and_weights_in_a_larger_matrix() -> None:
    drawn = oracle.Drawn(torch.float16)
    x = drawn.numbers(6, 5).T
    assert x.stride(1) != 1
    wide = drawn.numbers(4, 9, 11)
    for first in (0, 1, 2):
        weights = wide[1:3, 2:7, first : first + 6]
        expected = oracle.linear(x, list(weights), [0, 0, 1, 1, 1], {})
        offsets = oracle.offsets_of([2, 3])
        oracle.close(grouped_linear(x, weights, offsets), expected, torch.float16)
        words = pack_words([torch.ones(5, 6, dtype=torch.bool)] * 2)
        y = bitmask_linear(x, weights[0], words, offsets, rows_per_ticket_hint=50)
        expected = oracle.linear(x, [weights[0]], [0] * 5, {})
        oracle.close(y, expected, torch.float16)


def test_a_result_does_not_depend_on_batch_mates() -> None:
    drawn = oracle.Drawn(torch.float32)
    x, weights = drawn.numbers(30, 70), drawn.numbers(3, 12, 70)
    together = grouped_linear(x, weights, oracle.offsets_of([10, 15, 5]))
    for row, ticket in enumerate(oracle.tickets_of([10, 15, 5])):
        counts = [int(t == ticket) for t in range(3)]
        alone = grouped_linear(x[row : row + 1], weights, oracle.offsets_of(counts))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tickets", [[0], [2, 0, 2], []], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (40, 130), (7, 64)])
def test_expansion(dtype: torch.dtype, tickets: list[int], size: tuple[int, int]) -> None:
    check_expansion(dtype, tickets, size)


def test_an_unknown_ticket_shows_in_its_copy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a GPU indices are not read beforehand, so the kernel must stay inside its tables.
    monkeypatch.setattr(expansion, "check_ticket_indices", lambda *_: None)
    words = pack_words([torch.ones(4, 70, dtype=torch.bool)] * 2)
    which = torch.tensor([0, 2, -1, 1], dtype=torch.int32)
    copies = expand_masked(torch.ones(4, 70, dtype=torch.bfloat16), words, which)
    assert [bool(copy.isnan().all()) for copy in copies] == [False, True, True, False]
    assert bool((copies[[0, 3]] == 1).all())


def test_the_graph_of_compiled_code_is_not_broken() -> None:
    masks = [torch.tensor([[True, False, True]] * 2), torch.tensor([[False, True, True]] * 2)]
    words, offsets = pack_words(masks), oracle.offsets_of([1, 2])

    def network(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        copies = expand_masked(weight, words, torch.tensor([0, 1], dtype=torch.int32))
        expand_masked(weight, words, torch.tensor([1], dtype=torch.int32), out)
        y = bitmask_linear(x, weight, words, offsets, bias=torch.ones(2))
        return y - grouped_linear(x, copies, offsets) + out.sum()

    x, weight, out = torch.randn(3, 3), torch.randn(2, 3), torch.zeros(1, 2, 3)
    with torch.no_grad():
        expected = network(x, weight, out)
        torch.testing.assert_close(expected, 1 + (weight * masks[1]).sum().expand(3, 2))
        out.zero_()
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, weight, out), expected)
        assert torch.equal(out[0], weight * masks[1])


def test_operators_keep_what_their_schemas_say() -> None:
    operators = torch.ops.rtl_plugin
    weight, words = torch.ones(2, 3), pack_words([torch.ones(2, 3, dtype=torch.bool)])
    which, offsets = torch.zeros(3, dtype=torch.int32), oracle.offsets_of([4])
    linear = (torch.ones(4, 3), weight, words, offsets, None, None, None, None, None, False)
    utilities = ("test_schema", "test_faketensor")
    for operator, arguments in (
        (operators.sorted_linear, linear),
        (operators.expand_masked, (weight, words, which)),
        (operators.expand_masked_into, (weight, words, which, torch.zeros(3, 2, 3))),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=utilities)
