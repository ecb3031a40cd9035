"""The kernel for few rows a ticket: several tickets share one tile of unmasked weights."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton types arguments at launch: they are pointers, integers and constants.

from __future__ import annotations

from typing import Any

from rtl_plugin.mixture.kernels.device_code import (
    accumulate,
    finish,
    keep_bits,
    keep_pairs,
    load_rows,
    load_weights,
    row_words,
)

# The language and its marker of compile-time arguments are put in by `loading.py`.
tl: Any = None
constexpr = Any


def tile_entry(tiles, tile, n_tiles):
    """Ticket, first row and end of a tile; past the table's end an empty one."""
    inside = tile < n_tiles
    ticket = tl.load(tiles + 3 * tile, mask=inside, other=0).to(tl.int64)
    start = tl.load(tiles + 3 * tile + 1, mask=inside, other=0)
    return ticket, start, tl.load(tiles + 3 * tile + 2, mask=inside, other=0)


def ticket_step(
    total, weights, words, x, ticket, start, end, columns, live, k, K, N, n_words, x_row,
    BLOCK_ROWS: constexpr, BLOCK_K: constexpr,
    PAIRS: constexpr, TF32: constexpr, UPCAST: constexpr,
):  # fmt: skip
    """Mask the shared tile of weights for one ticket and multiply with its rows."""
    word = row_words(words, ticket, n_words, k, columns, live, N)
    if PAIRS:
        masked = keep_pairs(weights, word, BLOCK_K, x.dtype.element_ty)
    else:
        masked = keep_bits(weights, word, BLOCK_K)
    rows = load_rows(x, start, end, x_row, k, K, BLOCK_ROWS, BLOCK_K)
    return accumulate(masked, rows, total, TF32, UPCAST)


def few_rows_kernel(
    x, weights, words, tiles, bias, scale, shift, out,
    N, K, n_tiles, n_words, x_row, weight_row, bias_ticket,
    BLOCK_ROWS: constexpr, BLOCK_OUT: constexpr, BLOCK_K: constexpr,
    PAIRS: constexpr, TF32: constexpr, UPCAST: constexpr,
    HAS_BIAS: constexpr, HAS_SCALE: constexpr, HAS_SHIFT: constexpr,
):  # fmt: skip
    """Four tiles (of any tickets) times BLOCK_OUT output columns; weights are read once."""
    groups = tl.cdiv(n_tiles, 4)
    first = tl.program_id(0) % groups * 4
    t0, s0, e0 = tile_entry(tiles, first, n_tiles)
    t1, s1, e1 = tile_entry(tiles, first + 1, n_tiles)
    t2, s2, e2 = tile_entry(tiles, first + 2, n_tiles)
    t3, s3, e3 = tile_entry(tiles, first + 3, n_tiles)
    if s0 >= e0:  # empty tiles stand at the end of the table
        return
    columns = tl.program_id(0) // groups * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    live = columns < N
    y0 = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    y1 = y0
    y2 = y0
    y3 = y0
    for k in range(0, K, BLOCK_K):
        w = load_weights(weights, weight_row, columns, live, k, K, BLOCK_K, PAIRS)
        y0 = ticket_step(y0, w, words, x, t0, s0, e0, columns, live, k, K, N, n_words, x_row,
                         BLOCK_ROWS, BLOCK_K, PAIRS, TF32, UPCAST)  # fmt: skip
        y1 = ticket_step(y1, w, words, x, t1, s1, e1, columns, live, k, K, N, n_words, x_row,
                         BLOCK_ROWS, BLOCK_K, PAIRS, TF32, UPCAST)  # fmt: skip
        y2 = ticket_step(y2, w, words, x, t2, s2, e2, columns, live, k, K, N, n_words, x_row,
                         BLOCK_ROWS, BLOCK_K, PAIRS, TF32, UPCAST)  # fmt: skip
        y3 = ticket_step(y3, w, words, x, t3, s3, e3, columns, live, k, K, N, n_words, x_row,
                         BLOCK_ROWS, BLOCK_K, PAIRS, TF32, UPCAST)  # fmt: skip
    finish(y0, out, t0, s0, e0, columns, N, bias, bias_ticket, scale, shift,
           BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip
    finish(y1, out, t1, s1, e1, columns, N, bias, bias_ticket, scale, shift,
           BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip
    finish(y2, out, t2, s2, e2, columns, N, bias, bias_ticket, scale, shift,
           BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip
    finish(y3, out, t3, s3, e3, columns, N, bias, bias_ticket, scale, shift,
           BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip
