"""Linear layers over rows that are sorted by ticket: masked copies, or packed bits."""

from typing import Optional

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels.configs import choose_config
from rtl_plugin.mixture.kernels.launch import (
    Epilogue,
    check_operands,
    check_words,
    constants,
    launch,
    refuse_gradients,
    tiles_of,
    well_aligned,
)
from rtl_plugin.mixture.kernels.tiles import check_offsets

FEW_ROWS = 16  # up to here four tiles share a tile of weights ...
FEW_TICKETS = 2  # ... unless there are so few tickets that two of the four would be empty


def grouped_linear(
    x: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    tiles: torch.Tensor | None = None,
    *,
    allow_tf32: bool = False,
    rows_per_ticket_hint: int | None = None,
) -> torch.Tensor:
    """One linear layer with a weight of its own for every ticket.

    Args:
        x: [M, K], rows sorted by ticket; float32, float16 or bfloat16.
        weights: [T, N, K] of the same dtype, masked copies; K must have stride 1.
        offsets: int32 [T + 1]: rows ``offsets[t]`` to ``offsets[t + 1]`` use ``weights[t]``. On a
            GPU their values are not checked.
        bias: floating [N], or [T, N] one a ticket.
        scale: floating [T, N], multiplied after the bias.
        shift: floating [T, N], added after the scale.
        tiles: of :func:`tile_table` for these offsets, where several layers share it.
        allow_tf32: let float32 products round their operands to 10 bits, as matrix units do.
        rows_per_ticket_hint: expected rows a ticket, which decides the tiles; None is M / T.

    Returns:
        [M, N] in the dtype of x; sums are kept in float32.

    Raises:
        InvalidArgument: a shape, dtype, device or layout does not fit, Triton cannot run there, or
            an operand requires a gradient.

    Example:
        >>> from rtl_plugin.mixture.kernels import available
        >>> x, weights = torch.ones(3, 4), torch.stack([torch.ones(2, 4), torch.zeros(2, 4)])
        >>> if available(x.device):
        ...     y = grouped_linear(x, weights, torch.tensor([0, 1, 3], dtype=torch.int32))
        ...     assert y.tolist() == [[4.0, 4.0], [0.0, 0.0], [0.0, 0.0]]
    """
    operands = {"x": x, "weights": weights, "bias": bias, "scale": scale, "shift": shift}
    refuse_gradients("grouped_linear", operands)
    run = _linear_op if torch.compiler.is_compiling() else _linear
    return run(
        x, weights, None, offsets, bias, scale, shift, tiles, rows_per_ticket_hint, allow_tf32
    )


def bitmask_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    words: torch.Tensor,
    offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    tiles: torch.Tensor | None = None,
    *,
    allow_tf32: bool = False,
    rows_per_ticket_hint: int | None = None,
) -> torch.Tensor:
    """One linear layer under every row's own mask, from one weight and packed bits.

    Masked weights are made in registers and are never stored.

    Args:
        x: [M, K], rows sorted by ticket; float32, float16 or bfloat16.
        weight: [N, K] of the same dtype, unmasked; K must have stride 1.
        words: int64 [T, ceil(K / 64), N] of :func:`pack_words`.
        offsets: int32 [T + 1]: rows ``offsets[t]`` to ``offsets[t + 1]`` use mask t. On a GPU
            their values are not checked.
        bias: floating [N], or [T, N] one a ticket.
        scale: floating [T, N], multiplied after the bias.
        shift: floating [T, N], added after the scale.
        tiles: of :func:`tile_table` for these offsets, where several layers share it.
        allow_tf32: let float32 products round their operands to 10 bits, as matrix units do.
        rows_per_ticket_hint: expected rows a ticket; up to 16, four tickets share a tile of
            weights. None is M / T.

    Returns:
        [M, N] in the dtype of x; sums are kept in float32.

    Raises:
        InvalidArgument: a shape, dtype, device or layout does not fit, Triton cannot run there, or
            an operand requires a gradient.

    Example:
        >>> from rtl_plugin.mixture.kernels import available, pack_words
        >>> x, masks = torch.ones(3, 4), torch.tensor([[[True] * 4], [[False] * 4]])
        >>> if available(x.device):
        ...     offsets = torch.tensor([0, 1, 3], dtype=torch.int32)
        ...     y = bitmask_linear(x, torch.ones(1, 4), pack_words(list(masks)), offsets)
        ...     assert y.tolist() == [[4.0], [0.0], [0.0]]
    """
    operands = {"x": x, "weight": weight, "bias": bias, "scale": scale, "shift": shift}
    refuse_gradients("bitmask_linear", operands)
    run = _linear_op if torch.compiler.is_compiling() else _linear
    return run(
        x, weight, words, offsets, bias, scale, shift, tiles, rows_per_ticket_hint, allow_tf32
    )


def _linear(
    x: torch.Tensor,
    weights: torch.Tensor,
    words: Optional[torch.Tensor],  # noqa: UP045  (torch 2.6 reads a schema from these types)
    offsets: torch.Tensor,
    bias: Optional[torch.Tensor],  # noqa: UP045
    scale: Optional[torch.Tensor],  # noqa: UP045
    shift: Optional[torch.Tensor],  # noqa: UP045
    tiles: Optional[torch.Tensor],  # noqa: UP045
    rows_per_ticket: Optional[int],  # noqa: UP045
    allow_tf32: bool,
) -> torch.Tensor:
    epilogue = Epilogue(bias, scale, shift)
    tickets = _check(x, weights, words, epilogue)
    check_offsets(offsets, x.shape[0], tickets)
    check_operands(
        "grouped_linear" if words is None else "bitmask_linear",
        x,
        {"weights": weights},
        {"words": words, "offsets": offsets, "tiles": tiles, **epilogue._asdict()},
    )
    rows = x.shape[0]
    kernel = "grouped" if words is None else "bitmask"
    tiles, block = tiles_of(tiles, offsets, rows, kernel, x.dtype, rows_per_ticket)
    if words is not None and block <= FEW_ROWS and tickets > FEW_TICKETS:
        kernel = "few_rows"
    out = x.new_empty(rows, weights.shape[-2])
    if rows:
        x = x if x.stride(1) == 1 else x.contiguous()
        tf32 = allow_tf32 and x.dtype == torch.float32
        _launch(kernel, x, weights, words, tiles, block, epilogue, out, tf32)
    return out


def _launch(
    kernel: str, x: torch.Tensor, weights: torch.Tensor, words: torch.Tensor | None,
    tiles: torch.Tensor, block: int, epilogue: Epilogue, out: torch.Tensor, tf32: bool,
) -> None:  # fmt: skip
    outputs, columns = weights.shape[-2:]
    aligned = well_aligned((x, weights), (outputs, columns, x.stride(0), *weights.stride()[:-1]))
    config = choose_config(kernel, x.dtype, block, outputs, aligned=aligned)
    pairs = words is not None and reads_pairs(weights)
    n_words = 0 if words is None else words.shape[1]
    per_ticket = () if kernel == "few_rows" else (weights.stride(0) if words is None else 0,)
    arguments = (
        x, weights.view(torch.int32) if pairs else weights, x if words is None else words, tiles,
        *epilogue.pointers(x), out,
        outputs, columns, tiles.shape[0], n_words, x.stride(0), *per_ticket, weights.stride(-2),
        epilogue.bias_stride(outputs),
    )  # fmt: skip
    values = constants(kernel, x.dtype, config, PAIRS=pairs, TF32=tf32, **epilogue.flags())
    at_once = 4 if kernel == "few_rows" else 1
    programs = -(-tiles.shape[0] // at_once) * -(-outputs // config.block_out)
    launch(kernel, programs, arguments, values, config)


_linear_op = torch.library.custom_op("rtl_plugin::sorted_linear", _linear, mutates_args=())


@_linear_op.register_fake
def _(x: torch.Tensor, weights: torch.Tensor, *_: object) -> torch.Tensor:
    return x.new_empty(x.shape[0], weights.shape[-2])


def reads_pairs(weight: torch.Tensor) -> bool:
    """Whether a weight can be read as integers that hold two 16-bit numbers each.

    Args:
        weight: [N, K] with K of stride 1.

    Returns:
        True where rows of 16-bit numbers start at multiples of four bytes and have even length.

    Example:
        >>> reads_pairs(torch.ones(2, 4).half()), reads_pairs(torch.ones(2, 3).half())
        (True, False)
    """
    even = (weight.shape[-1], weight.stride(-2), weight.storage_offset())
    return weight.dtype.itemsize == 2 and all(each % 2 == 0 for each in even)


def _check(
    x: torch.Tensor, weights: torch.Tensor, words: torch.Tensor | None, epilogue: Epilogue
) -> int:
    """The number of tickets, where shapes fit."""
    name, dimensions = ("weights", 3) if words is None else ("weight", 2)
    if x.dim() != 2 or weights.dim() != dimensions or x.shape[-1] != weights.shape[-1]:
        wanted = "[T, N, K]" if words is None else "[N, K]"
        raise InvalidArgument(
            f"expected x [M, K] and {name} {wanted}, got shapes {tuple(x.shape)} and "
            f"{tuple(weights.shape)}: flatten other dimensions of x into rows"
        )
    if weights.numel() == 0:
        raise InvalidArgument(f"{name} is empty, of shape {tuple(weights.shape)}")
    if weights.stride(-1) != 1 and weights.shape[-1] > 1:
        raise InvalidArgument(
            f"{name} must have stride 1 along its last dimension, got strides {weights.stride()}: "
            "store it contiguous once, since copying it at every call would cost more than the "
            "product"
        )
    if words is not None:
        check_words(words, weights.shape[0], weights.shape[1])
    tickets = weights.shape[0] if words is None else words.shape[0]
    epilogue.check(tickets, weights.shape[-2])
    return int(tickets)
