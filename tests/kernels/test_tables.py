"""Tile tables, packed words and the choice of configurations: plain torch, any machine."""

import itertools

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels import (
    KernelConfig,
    block_rows_for,
    pack_depthwise,
    pack_words,
    shipped_configs,
    tile_table,
    unpack_words,
)
from rtl_plugin.mixture.kernels.configs import BLOCKS_OF_ROWS, choose_config, largest_block_rows
from tests.kernels.oracle import offsets_of

ROUTINGS = {
    "mixed": [3, 0, 9, 1, 0, 16, 0],
    "one ticket": [7],
    "one row": [0, 1],
    "no rows": [0, 0],
    "skew": [1, 200, 0, 1],
    "many tickets": [0] * 150 + [2] + [0] * 149,
}


def plain_tiles(counts: list[int], block_rows: int) -> list[list[int]]:
    tiles, start = [], 0
    for ticket, count in enumerate(counts):
        for first in range(start, start + count, block_rows):
            tiles.append([ticket, first, min(first + block_rows, start + count)])
        start += count
    empty = -(-start // block_rows) + len(counts) - len(tiles)
    return tiles + [[0, start, start]] * empty


@pytest.mark.parametrize("block_rows", [1, 4, 16, 128])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_tiles(routing: str, block_rows: int) -> None:
    counts = ROUTINGS[routing]
    table = tile_table(offsets_of(counts), sum(counts), block_rows)
    assert table.dtype == torch.int32
    assert table.tolist() == plain_tiles(counts, block_rows)


def test_tiles_need_no_value_of_the_device() -> None:
    # A meta tensor has none, so anything that reads one (item, nonzero, bincount) fails here.
    offsets = torch.empty(11, dtype=torch.int32, device="meta")
    assert tile_table(offsets, 100, 16).shape == (17, 3)


def test_tiles_are_made_without_breaking_a_graph() -> None:
    make = torch.compile(
        lambda offsets: tile_table(offsets, 9, 4), backend="aot_eager", fullgraph=True
    )
    for counts in ([9, 0, 0], [4, 3, 2]):
        assert make(offsets_of(counts)).tolist() == plain_tiles(counts, 4)


@pytest.mark.parametrize(
    ("offsets", "rows", "message"),
    [
        ([0, 3, 2, 5], 5, r"must ascend from 0 to the 5 rows, got \[0, 3, 2, 5\]"),
        ([1, 5], 5, "must ascend from 0"),
        ([0, 4], 5, "must ascend from 0 to the 5 rows"),
        ([0], 0, r"int32 \[T \+ 1\] with T at least 1"),
        ([[0, 5]], 5, r"of shape \(1, 2\)"),
    ],
)
def test_wrong_offsets_are_refused(offsets: list, rows: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        tile_table(torch.tensor(offsets, dtype=torch.int32), rows, 4)


def test_wrong_kinds_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="int64"):
        tile_table(torch.tensor([0, 5]), 5, 4)
    with pytest.raises(InvalidArgument, match="block_rows must be at least 1, got 0"):
        tile_table(offsets_of([5]), 5, 0)
    with pytest.raises(InvalidArgument, match="rows are counted in int32"):
        tile_table(torch.empty(2, dtype=torch.int32, device="meta"), 2**31, 4)


@pytest.mark.parametrize("columns", [1, 7, 8, 63, 64, 65, 130])
def test_words_hold_the_bits_where_the_kernels_look(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    masks = torch.rand(3, 5, columns, generator=generator) < 0.5
    masks[0, 0] = True
    words = pack_words(list(masks))
    assert words.shape == (3, -(-columns // 64), 5)
    assert words.is_contiguous()
    for ticket, row, column in itertools.product(range(3), range(5), range(words.shape[1] * 64)):
        kept = column < columns and bool(masks[ticket, row, column])
        word = int(words[ticket, column // 64, row])
        assert (word >> (column % 64)) & 1 == kept
    assert torch.equal(unpack_words(words, columns), masks)


def test_depthwise_words_hold_taps() -> None:
    masks = torch.rand(2, 4, 1, 9, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    words = pack_depthwise(list(masks))
    assert words.shape == (2, 2, 4)
    assert torch.equal(unpack_words(words, 72), masks.reshape(2, 4, 72))


def test_wrong_masks_are_refused() -> None:
    good = torch.ones(2, 3, dtype=torch.bool)
    for masks, message in (
        ([], "at least one mask"),
        ([good, good.float()], "mask 1 must be a bool matrix"),
        ([good[0]], "mask 0 must be a bool matrix"),
        ([good[:0]], "that is not empty"),
        ([good, good.T], r"mask 1 has shape \(3, 2\)"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            pack_words(masks)
    with pytest.raises(InvalidArgument, match=r"must be \[C, 1, kh, kw\], got shape \(2, 3\)"):
        pack_depthwise([good])
    with pytest.raises(InvalidArgument, match="past the 3 of the weight"):
        unpack_words(pack_words([torch.ones(2, 4, dtype=torch.bool)]), 3)
    with pytest.raises(InvalidArgument, match=r"must be int64 \[T, 2, N\] for 65 columns"):
        unpack_words(pack_words([good]), 65)


def test_every_line_of_the_table_is_chosen_by_some_call() -> None:
    chosen = set()
    for kernel in {line.kernel for line in shipped_configs()}:
        for dtype in (torch.float32, torch.float16):
            sizes = {"depthwise": [16], "expand": [1], "few_rows": [16]}.get(kernel)
            for block in sizes or [
                b for b in BLOCKS_OF_ROWS if b <= largest_block_rows(kernel, dtype)
            ]:
                for outputs, aligned in itertools.product((10, 1000), (True, False)):
                    config = choose_config(kernel, dtype, block, outputs, aligned=aligned)
                    assert config.block_rows == block
                    chosen.add((kernel, dtype.itemsize * 8, config))
    assert chosen == {(line.kernel, line.bits, line.config) for line in shipped_configs()}


def test_the_table_obeys_what_the_kernels_assume() -> None:
    for line in shipped_configs():
        config: KernelConfig = line.config
        for size in (config.block_rows, config.block_out, config.block_k):
            assert size & (size - 1) == 0
        if line.kernel in ("bitmask", "few_rows", "expand"):
            assert config.block_k <= 64  # one word holds the bits of a step


def test_rows_decide_the_tiles() -> None:
    assert [block_rows_for(rows) for rows in (0, 16, 17, 256, 257)] == [16, 16, 64, 64, 128]
    with pytest.raises(
        InvalidArgument, match=r"tiles of 16 or 64 rows for torch.float32, not of 128"
    ):
        choose_config("grouped", torch.float32, 128, 10)
