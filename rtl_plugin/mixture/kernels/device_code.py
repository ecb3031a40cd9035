"""The kernels in Triton's language: plain functions here, compiled by `loading` at first use.

Triton is not imported, so that this file can be read, checked and collected without it. Every
product is computed as weights @ rows.T: then a tile with few rows is the narrow side of the matrix
instruction, and masked weights, which are made in registers, are its left operand.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton types arguments at launch: they are pointers, integers and constants.

from __future__ import annotations

from typing import Any

# The language and its marker of compile-time arguments are put in by `loading.py`.
tl: Any = None
constexpr = Any


def grouped_order(index, n_tiles, n_blocks):
    """Program index -> (tile, block): eight tiles side by side, so that weights stay in L2."""
    group = index // (8 * n_blocks)
    first = group * 8
    height = tl.minimum(n_tiles - first, 8)
    within = index % (8 * n_blocks)
    return first + within % height, within // height


def accumulate(weights, rows, total, TF32: constexpr, UPCAST: constexpr):
    """``total + weights @ rows`` in float32."""
    if UPCAST:  # the interpreter multiplies the bit patterns of bfloat16
        weights = weights.to(tl.float32)
        rows = rows.to(tl.float32)
    if TF32:
        return tl.dot(weights, rows, total, input_precision="tf32")
    return tl.dot(weights, rows, total, input_precision="ieee")


def row_words(words, ticket, n_words, k, columns, live, N):
    """The word of every output row that holds column k, shifted so that k is bit 0."""
    place = (ticket * n_words + k // 64) * N + columns
    return tl.load(words + place, mask=live, other=0) >> (k % 64)


def keep_bits(weights, word, BLOCK_K: constexpr):
    """Weights [BLOCK_OUT, BLOCK_K] with those whose bit is 0 set to 0."""
    bits = (word[:, None] >> tl.arange(0, BLOCK_K)[None, :].to(tl.int64)) & 1
    return tl.where(bits != 0, weights, tl.zeros_like(weights))


def keep_pairs(pairs, word, BLOCK_K: constexpr, DTYPE: constexpr):
    """The same for 16-bit weights held two an integer: one AND masks both.

    Sixteen bits of the word are laid out so that one shift brings the two bits of a pair to bits 0
    and 16, and a product with 0xFFFF fills the halves from there.
    """
    pair = tl.arange(0, BLOCK_K // 2)[None, :]
    sixteen = (word[:, None] >> (pair // 8 * 16).to(tl.int64)).to(tl.int32)
    spread = (sixteen & 0xFFFF) | (sixteen << 15)
    kept = pairs & (((spread >> (pair % 8 * 2)) & 0x10001) * 0xFFFF)
    low = kept.to(tl.int16).to(DTYPE, bitcast=True)
    high = (kept >> 16).to(tl.int16).to(DTYPE, bitcast=True)
    return tl.interleave(low, high)


def load_weights(weights, row, columns, live, k, K, BLOCK_K: constexpr, PAIRS: constexpr):
    """Weights [BLOCK_OUT, BLOCK_K], or integers [BLOCK_OUT, BLOCK_K / 2] of two 16-bit weights."""
    if PAIRS:
        # Shifts, because Triton keeps track of multiples of 16 through them.
        row = row >> 1
        inner = (k >> 1) + tl.arange(0, BLOCK_K // 2)
        inside = inner < (K >> 1)
    else:
        inner = k + tl.arange(0, BLOCK_K)
        inside = inner < K
    place = columns.to(tl.int64)[:, None] * row + inner[None, :]
    return tl.load(weights + place, mask=live[:, None] & inside[None, :], other=0)


def load_rows(x, start, end, x_row, k, K, BLOCK_ROWS: constexpr, BLOCK_K: constexpr):
    """Rows start .. end of x, transposed: [BLOCK_K, BLOCK_ROWS]."""
    rows = start + tl.arange(0, BLOCK_ROWS)
    inner = k + tl.arange(0, BLOCK_K)
    place = rows.to(tl.int64)[None, :] * x_row + inner[:, None]
    return tl.load(x + place, mask=(rows < end)[None, :] & (inner < K)[:, None], other=0)


def finish(
    total, out, ticket, start, end, columns, N, bias, bias_ticket, scale, shift,
    BLOCK_ROWS: constexpr, HAS_BIAS: constexpr, HAS_SCALE: constexpr, HAS_SHIFT: constexpr,
):  # fmt: skip
    """Add the bias, apply the ticket's scale and shift, and store [BLOCK_OUT, BLOCK_ROWS]."""
    live = columns < N
    if HAS_BIAS:
        added = tl.load(bias + ticket * bias_ticket + columns, mask=live, other=0)
        total += added.to(tl.float32)[:, None]
    if HAS_SCALE:
        factor = tl.load(scale + ticket * N + columns, mask=live, other=0)
        total *= factor.to(tl.float32)[:, None]
    if HAS_SHIFT:
        added = tl.load(shift + ticket * N + columns, mask=live, other=0)
        total += added.to(tl.float32)[:, None]
    rows = start + tl.arange(0, BLOCK_ROWS)
    place = rows.to(tl.int64)[None, :] * N + columns[:, None]
    inside = (rows < end)[None, :] & live[:, None]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


def linear_kernel(
    x, weights, words, tiles, bias, scale, shift, out,
    N, K, n_tiles, n_words, x_row, weight_ticket, weight_row, bias_ticket,
    BLOCK_ROWS: constexpr, BLOCK_OUT: constexpr, BLOCK_K: constexpr,
    MASKED: constexpr, PAIRS: constexpr, TF32: constexpr, UPCAST: constexpr,
    HAS_BIAS: constexpr, HAS_SCALE: constexpr, HAS_SHIFT: constexpr,
):  # fmt: skip
    """One tile of rows of one ticket times BLOCK_OUT output columns."""
    tile, block = grouped_order(tl.program_id(0), n_tiles, tl.cdiv(N, BLOCK_OUT))
    ticket = tl.load(tiles + 3 * tile).to(tl.int64)
    start = tl.load(tiles + 3 * tile + 1)
    end = tl.load(tiles + 3 * tile + 2)
    if start >= end:
        return
    columns = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    live = columns < N
    weights += ticket * weight_ticket
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for k in range(0, K, BLOCK_K):
        tile_weights = load_weights(weights, weight_row, columns, live, k, K, BLOCK_K, PAIRS)
        if MASKED:
            word = row_words(words, ticket, n_words, k, columns, live, N)
            if PAIRS:
                tile_weights = keep_pairs(tile_weights, word, BLOCK_K, x.dtype.element_ty)
            else:
                tile_weights = keep_bits(tile_weights, word, BLOCK_K)
        rows = load_rows(x, start, end, x_row, k, K, BLOCK_ROWS, BLOCK_K)
        total = accumulate(tile_weights, rows, total, TF32, UPCAST)
    finish(
        total, out, ticket, start, end, columns, N, bias, bias_ticket, scale, shift,
        BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT,
    )  # fmt: skip
