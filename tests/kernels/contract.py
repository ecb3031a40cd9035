"""Each kernel against the oracle, for any device; shapes and dtypes are the callers'."""

from collections.abc import Sequence

import torch

from rtl_plugin.mixture.kernels import (
    bitmask_linear,
    depthwise_conv2d,
    expand_masked,
    grouped_conv2d,
    grouped_linear,
    pack_depthwise,
    pack_words,
)
from tests.kernels import oracle
from tests.kernels.oracle import Drawn

Pair = tuple[int, int]


def check_linear(
    kind: str,
    dtype: torch.dtype,
    counts: Sequence[int],
    size: Pair,
    *,
    per_ticket: bool = True,
    hint: int | None = None,
    device: str = "cpu",
    allow_tf32: bool = False,
) -> torch.Tensor:
    """``kind`` is "grouped" or "bitmask", ``size`` is (N, K)."""
    drawn, tickets = Drawn(dtype, device), len(counts)
    x = drawn.numbers(max(sum(counts), 1), size[1])[: sum(counts)]
    weight, masks = drawn.numbers(*size), drawn.masks(tickets, *size)
    epilogue = drawn.epilogue(tickets, size[0], per_ticket)
    copies = oracle.masked(weight, masks)
    more = {"rows_per_ticket_hint": hint, "allow_tf32": allow_tf32, **epilogue}
    offsets = oracle.offsets_of(counts, device)
    if kind == "grouped":
        y = grouped_linear(x, torch.stack(copies), offsets, **more)
    else:
        y = bitmask_linear(x, weight, pack_words(list(masks)), offsets, **more)
    expected = oracle.linear(x, copies, oracle.tickets_of(counts), epilogue)
    assert y.shape == expected.shape
    oracle.close(y, expected, dtype, size[1])
    return y


def check_expansion(
    dtype: torch.dtype, tickets: Sequence[int], size: Pair, device: str = "cpu"
) -> None:
    drawn = Drawn(dtype, device)
    weight, masks = drawn.numbers(*size), drawn.masks(max(tickets, default=0) + 1, *size)
    weight[~masks.any(0)] = float("nan")
    weight[0, 0] = float("inf")
    masks[1:, 0, 0] = False
    expected = [torch.where(masks[t], weight, torch.zeros_like(weight)) for t in tickets]
    indices = torch.tensor(tickets, dtype=torch.int32, device=device)
    copies = expand_masked(weight, pack_words(list(masks)), indices)
    assert copies.shape == (len(tickets), *size)
    # Bit for bit: a masked copy is no computation.
    assert all(torch.equal(a, b) for a, b in zip(copies, expected, strict=True))
    out = torch.full_like(copies, 7)
    assert expand_masked(weight, pack_words(list(masks)), indices, out) is out
    assert torch.equal(out, copies)


def check_convolution(
    dtype: torch.dtype,
    counts: Sequence[int],
    shape: Sequence[int],
    window: dict[str, Pair],
    *,
    per_ticket: bool = True,
    device: str = "cpu",
) -> None:
    """``shape`` is (C, O, H, W, kh, kw)."""
    channels, outputs, height, width, *taps = shape
    drawn, tickets = Drawn(dtype, device), len(counts)
    x = drawn.numbers(sum(counts), channels, height, width)
    masks = drawn.masks(tickets, outputs, channels, *taps)
    copies = oracle.masked(drawn.numbers(outputs, channels, *taps), masks)
    epilogue = drawn.epilogue(tickets, outputs, per_ticket)
    offsets = oracle.offsets_of(counts, device)
    weights = torch.stack(copies)
    if channels % 16 == 0:
        # As a mixture stores them; other layouts are right too, and slower.
        weights = weights.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    y = grouped_conv2d(x, weights, offsets, **window, **epilogue)
    expected = oracle.convolution(x, copies, oracle.tickets_of(counts), epilogue, window)
    assert y.shape == expected.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    oracle.close(y, expected, dtype, channels * taps[0] * taps[1])


def check_depthwise(
    dtype: torch.dtype,
    tickets: Sequence[int],
    shape: Sequence[int],
    window: dict[str, Pair],
    *,
    packed: bool,
    per_ticket: bool = True,
    device: str = "cpu",
) -> None:
    """``shape`` is (C, H, W, kh, kw); ``tickets`` one a sample, in any order."""
    channels, height, width, *taps = shape
    drawn, count = Drawn(dtype, device), max(tickets) + 1
    x = drawn.numbers(len(tickets), channels, height, width)
    weight, masks = drawn.numbers(channels, 1, *taps), drawn.masks(count, channels, 1, *taps)
    copies = oracle.masked(weight, masks)
    epilogue = drawn.epilogue(count, channels, per_ticket)
    indices = torch.tensor(tickets, dtype=torch.int32, device=device)
    operands = (weight, indices, pack_depthwise(list(masks)))
    if not packed:
        operands = (torch.stack(copies), indices, None)
    y = depthwise_conv2d(x, *operands, **window, **epilogue)
    expected = oracle.convolution(x, copies, tickets, epilogue, window, groups=channels)
    assert y.shape == expected.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    oracle.close(y, expected, dtype)
