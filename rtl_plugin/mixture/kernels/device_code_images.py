"""Convolutions over channels-last images, and the expansion of masked copies."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"
# Triton types arguments at launch: they are pointers, integers and constants.

from __future__ import annotations

from typing import Any

from rtl_plugin.mixture.kernels.device_code import accumulate, finish, grouped_order

# The language and its marker of compile-time arguments are put in by `loading.py`.
tl: Any = None
constexpr = Any


def convolution_kernel(
    x, weights, tiles, bias, scale, shift, out,
    N, K, n_tiles, height, width, out_height, out_width,
    weight_ticket, weight_out, weight_in, weight_y, weight_x, bias_ticket,
    stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
    TAPS_Y: constexpr, TAPS_X: constexpr,
    BLOCK_ROWS: constexpr, BLOCK_OUT: constexpr, BLOCK_K: constexpr,
    TF32: constexpr, UPCAST: constexpr,
    HAS_BIAS: constexpr, HAS_SCALE: constexpr, HAS_SHIFT: constexpr,
):  # fmt: skip
    """One tile of output pixels of one ticket times BLOCK_OUT channels, tap by tap.

    A row of the tile is an output pixel; N and K are output and input channels. Input pixels are
    read where they lie, so there is no unfolded copy.
    """
    tile, block = grouped_order(tl.program_id(0), n_tiles, tl.cdiv(N, BLOCK_OUT))
    ticket = tl.load(tiles + 3 * tile).to(tl.int64)
    start = tl.load(tiles + 3 * tile + 1)
    end = tl.load(tiles + 3 * tile + 2)
    if start >= end:
        return
    columns = block * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    rows = start + tl.arange(0, BLOCK_ROWS)
    sample = (rows // (out_height * out_width)).to(tl.int64)
    top = rows // out_width % out_height * stride_y - padding_y
    left = rows % out_width * stride_x - padding_x
    weights += ticket * weight_ticket
    blocks_k = tl.cdiv(K, BLOCK_K)
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for step in range(0, TAPS_Y * TAPS_X * blocks_k):
        tap = step // blocks_k
        inner = step % blocks_k * BLOCK_K + tl.arange(0, BLOCK_K)
        y = top + tap // TAPS_X * dilation_y
        z = left + tap % TAPS_X * dilation_x
        inside = (rows < end) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        pixel = ((sample * height + y) * width + z) * K
        pixels = tl.load(x + pixel[None, :] + inner[:, None],
                         mask=inside[None, :] & (inner < K)[:, None], other=0)  # fmt: skip
        place = columns.to(tl.int64)[:, None] * weight_out + inner.to(tl.int64)[None, :] * weight_in
        place += tap // TAPS_X * weight_y + tap % TAPS_X * weight_x
        taps = tl.load(weights + place, mask=(columns < N)[:, None] & (inner < K)[None, :], other=0)
        total = accumulate(taps, pixels, total, TF32, UPCAST)
    finish(total, out, ticket, start, end, columns, N, bias, bias_ticket, scale, shift,
           BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip


def depthwise_kernel(
    x, weights, words, tickets, bias, scale, shift, out,
    N, n_tickets, height, width, out_height, out_width,
    weight_ticket, weight_out, weight_y, weight_x, bias_ticket,
    stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x,
    TAPS_Y: constexpr, TAPS_X: constexpr, BLOCK_ROWS: constexpr, BLOCK_OUT: constexpr,
    MASKED: constexpr, HAS_BIAS: constexpr, HAS_SCALE: constexpr, HAS_SHIFT: constexpr,
):  # fmt: skip
    """BLOCK_ROWS output pixels of one sample times BLOCK_OUT channels, under its own ticket."""
    pixels = out_height * out_width
    blocks, blocks_row = tl.cdiv(N, BLOCK_OUT), tl.cdiv(pixels, BLOCK_ROWS)
    columns = tl.program_id(0) % blocks * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    pixel = tl.program_id(0) // blocks % blocks_row * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    sample = (tl.program_id(0) // (blocks * blocks_row)).to(tl.int64)
    ticket = tl.load(tickets + sample).to(tl.int64)
    known = (ticket >= 0) & (ticket < n_tickets)
    ticket = tl.where(known, ticket, 0)
    live = columns < N
    total = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for tap in range(0, TAPS_Y * TAPS_X):
        y = pixel // out_width * stride_y - padding_y + tap // TAPS_X * dilation_y
        z = pixel % out_width * stride_x - padding_x + tap % TAPS_X * dilation_x
        inside = (pixel < pixels) & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        place = ((sample * height + y) * width + z) * N
        values = tl.load(x + place[None, :] + columns[:, None],
                         mask=inside[None, :] & live[:, None], other=0)  # fmt: skip
        place = ticket * weight_ticket + columns * weight_out
        place += tap // TAPS_X * weight_y + tap % TAPS_X * weight_x
        weight = tl.load(weights + place, mask=live, other=0).to(tl.float32)
        if MASKED:
            place = (ticket * ((TAPS_Y * TAPS_X + 63) // 64) + tap // 64) * N + columns
            word = tl.load(words + place, mask=live, other=0)
            weight = tl.where(((word >> (tap % 64)) & 1) != 0, weight, 0.0)
        total += weight[:, None] * values.to(tl.float32)
    total = tl.where(known, total, float("nan"))
    first = tl.program_id(0) // blocks % blocks_row * BLOCK_ROWS
    finish(total, out + sample * pixels * N, ticket, first, pixels, columns, N, bias, bias_ticket,
           scale, shift, BLOCK_ROWS, HAS_BIAS, HAS_SCALE, HAS_SHIFT)  # fmt: skip


def expand_kernel(
    weights, words, tickets, out, N, K, n_tickets, n_words, weight_row,
    BLOCK_OUT: constexpr, BLOCK_K: constexpr,
):  # fmt: skip
    """BLOCK_OUT rows times 64 columns of one ticket's masked copy."""
    blocks, blocks_k = tl.cdiv(N, BLOCK_OUT), tl.cdiv(K, BLOCK_K)
    k = tl.program_id(0) % blocks_k * BLOCK_K
    columns = tl.program_id(0) // blocks_k % blocks * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    place = (tl.program_id(0) // (blocks_k * blocks)).to(tl.int64)
    ticket = tl.load(tickets + place).to(tl.int64)
    known = (ticket >= 0) & (ticket < n_tickets)
    ticket = tl.where(known, ticket, 0)
    inner = k + tl.arange(0, BLOCK_K)
    inside = (columns < N)[:, None] & (inner < K)[None, :]
    wide = columns.to(tl.int64)[:, None]
    value = tl.load(weights + wide * weight_row + inner[None, :], mask=inside, other=0)
    word = tl.load(words + (ticket * n_words + k // 64) * N + columns, mask=columns < N, other=0)
    bits = (word[:, None] >> (inner % 64)[None, :].to(tl.int64)) & 1
    value = tl.where(bits != 0, value, tl.zeros_like(value))
    nothing = tl.full((BLOCK_OUT, BLOCK_K), float("nan"), tl.float32).to(value.dtype)
    value = tl.where(known, value, nothing)
    tl.store(out + (place * N + wide) * K + inner[None, :], value, mask=inside)
