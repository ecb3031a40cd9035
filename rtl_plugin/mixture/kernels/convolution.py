"""Convolutions of channels-last images: grouped by ticket, and depthwise with a lookup."""

from typing import Optional

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels.configs import KernelConfig, choose_config
from rtl_plugin.mixture.kernels.expansion import check_ticket_indices
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
from rtl_plugin.mixture.kernels.window import Pair, Window, window_of


def grouped_conv2d(
    x: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    *,
    tiles: torch.Tensor | None = None,
    allow_tf32: bool = False,
) -> torch.Tensor:
    """One convolution (groups=1) with a weight of its own for every ticket.

    Args:
        x: [B, C, H, W], samples sorted by ticket; float32, float16 or bfloat16. Other layouts than
            channels-last are copied.
        weights: [T, O, C, kh, kw] of the same dtype, masked copies. Any strides; fastest where C
            has stride 1.
        offsets: int32 [T + 1]: samples ``offsets[t]`` to ``offsets[t + 1]`` use ``weights[t]``.
        stride: (down, right).
        padding: zeros on every side, (down, right).
        dilation: (down, right).
        bias: floating [O], or [T, O] one a ticket.
        scale: floating [T, O], multiplied after the bias.
        shift: floating [T, O], added after the scale.
        tiles: of :func:`tile_table` for ``offsets * H' * W'`` and B * H' * W' rows.
        allow_tf32: let float32 products round their operands to 10 bits, as matrix units do.

    Returns:
        [B, O, H', W'], channels-last; sums are kept in float32.

    Raises:
        InvalidArgument: a shape, dtype, device or value does not fit, Triton cannot run there, or
            an operand requires a gradient.

    Example:
        >>> from rtl_plugin.mixture.kernels import available
        >>> x, offsets = torch.ones(2, 1, 3, 3), torch.tensor([0, 2], dtype=torch.int32)
        >>> if available(x.device):
        ...     y = grouped_conv2d(x, torch.ones(1, 1, 1, 3, 3), offsets)
        ...     assert y.flatten().tolist() == [9.0, 9.0]
    """
    operands = {"x": x, "weights": weights, "bias": bias, "scale": scale, "shift": shift}
    refuse_gradients("grouped_conv2d", operands)
    run = _convolution_op if torch.compiler.is_compiling() else _convolution
    window = Window(stride, padding, dilation).numbers()
    return run(x, weights, offsets, bias, scale, shift, tiles, window, allow_tf32)


def depthwise_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    ticket_of_sample: torch.Tensor,
    words: torch.Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """One depthwise convolution under every sample's own ticket; samples need no order.

    Args:
        x: [B, C, H, W]; float32, float16 or bfloat16. Other layouts than channels-last are copied.
        weight: [C, 1, kh, kw] with words, or masked copies [T, C, 1, kh, kw] without; same dtype.
        ticket_of_sample: int32 [B], each in [0, T). On a GPU the values are not checked first: the
            output of a sample whose index is out of range is NaN.
        words: int64 [T, ceil(kh * kw / 64), C] of :func:`pack_depthwise`, or None.
        stride: (down, right).
        padding: zeros on every side, (down, right).
        dilation: (down, right).
        bias: floating [C], or [T, C] one a ticket.
        scale: floating [T, C], multiplied after the bias.
        shift: floating [T, C], added after the scale.

    Returns:
        [B, C, H', W'], channels-last; sums are kept in float32.

    Raises:
        InvalidArgument: a shape, dtype, device or value does not fit, Triton cannot run there, or
            an operand requires a gradient.

    Example:
        >>> from rtl_plugin.mixture.kernels import available
        >>> x, ticket = torch.ones(1, 1, 2, 2), torch.tensor([0], dtype=torch.int32)
        >>> if available(x.device):
        ...     assert depthwise_conv2d(x, torch.ones(1, 1, 1, 2, 2), ticket).item() == 4.0
    """
    operands = {"x": x, "weight": weight, "bias": bias, "scale": scale, "shift": shift}
    refuse_gradients("depthwise_conv2d", operands)
    run = _depthwise_op if torch.compiler.is_compiling() else _depthwise
    window = Window(stride, padding, dilation).numbers()
    return run(x, weight, ticket_of_sample, words, bias, scale, shift, window)


def _convolution(
    x: torch.Tensor,
    weights: torch.Tensor,
    offsets: torch.Tensor,
    bias: Optional[torch.Tensor],  # noqa: UP045  (torch 2.6 reads a schema from these types)
    scale: Optional[torch.Tensor],  # noqa: UP045
    shift: Optional[torch.Tensor],  # noqa: UP045
    tiles: Optional[torch.Tensor],  # noqa: UP045
    window: list[int],
    allow_tf32: bool,
) -> torch.Tensor:
    moves, epilogue = window_of(window), Epilogue(bias, scale, shift)
    if x.dim() != 4 or weights.dim() != 5 or x.shape[1] != weights.shape[2]:
        raise InvalidArgument(
            "expected x [B, C, H, W] and weights [T, O, C, kh, kw] (groups=1), got shapes "
            f"{tuple(x.shape)} and {tuple(weights.shape)}"
        )
    tickets, outputs = weights.shape[:2]
    size = _check(x, weights, moves, epilogue, (tickets, outputs))
    check_offsets(offsets, x.shape[0], tickets)
    others = {"offsets": offsets, "tiles": tiles, **epilogue._asdict()}
    check_operands("grouped_conv2d", x, {"weights": weights}, others)
    rows = x.shape[0] * size[0] * size[1]
    pixels = offsets * (size[0] * size[1])
    check_offsets(pixels, rows)
    tiles, block = tiles_of(tiles, pixels, rows, "convolution", x.dtype)
    out = _images(x, outputs, size)
    if rows:
        x = x.contiguous(memory_format=torch.channels_last)
        tf32 = allow_tf32 and x.dtype == torch.float32
        _launch_convolution(x, weights, tiles, block, epilogue, out, window, tf32)
    return out


def _launch_convolution(
    x: torch.Tensor, weights: torch.Tensor, tiles: torch.Tensor, block: int, epilogue: Epilogue,
    out: torch.Tensor, window: list[int], tf32: bool,
) -> None:  # fmt: skip
    (_, outputs, columns, *taps), (*strides, inner, down, right) = weights.shape, weights.stride()
    numbers = (outputs, columns, *strides, down, right)
    aligned = inner == 1 and well_aligned((x, weights), numbers)
    config = choose_config("convolution", x.dtype, block, outputs, aligned=aligned)
    arguments = (
        x, weights, tiles, *epilogue.pointers(x), out,
        outputs, columns, tiles.shape[0], *x.shape[2:], *out.shape[2:],
        *weights.stride(), epilogue.bias_stride(outputs), *window,
    )  # fmt: skip
    values = constants(
        "convolution", x.dtype, config, TAPS_Y=taps[0], TAPS_X=taps[1], TF32=tf32,
        **epilogue.flags(),
    )  # fmt: skip
    programs = tiles.shape[0] * -(-outputs // config.block_out)
    launch("convolution", programs, arguments, values, config)


def _depthwise(
    x: torch.Tensor,
    weight: torch.Tensor,
    ticket_of_sample: torch.Tensor,
    words: Optional[torch.Tensor],  # noqa: UP045
    bias: Optional[torch.Tensor],  # noqa: UP045
    scale: Optional[torch.Tensor],  # noqa: UP045
    shift: Optional[torch.Tensor],  # noqa: UP045
    window: list[int],
) -> torch.Tensor:
    moves, epilogue = window_of(window), Epilogue(bias, scale, shift)
    wanted = "[T, C, 1, kh, kw] without words" if words is None else "[C, 1, kh, kw] with words"
    shape = weight.shape if words is not None else weight.shape[1:]
    if x.dim() != 4 or len(shape) != 4 or shape[0] != x.shape[1] or shape[1] != 1:
        raise InvalidArgument(
            f"expected x [B, C, H, W] and weight {wanted} (groups=C, one filter a channel), got "
            f"shapes {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    channels, taps = x.shape[1], (shape[2], shape[3])
    if words is not None:
        check_words(words, channels, taps[0] * taps[1])
    tickets = weight.shape[0] if words is None else words.shape[0]
    size = _check(x, weight, moves, epilogue, (tickets, channels))
    check_ticket_indices("ticket_of_sample", ticket_of_sample, tickets)
    if ticket_of_sample.shape[0] != x.shape[0]:
        raise InvalidArgument(
            f"ticket_of_sample must have one index a sample, {x.shape[0]}, got "
            f"{ticket_of_sample.shape[0]}"
        )
    others = {"ticket_of_sample": ticket_of_sample, "words": words, **epilogue._asdict()}
    check_operands("depthwise_conv2d", x, {"weight": weight}, others)
    out = _images(x, channels, size)
    _launch_depthwise(x, weight, ticket_of_sample, words, epilogue, out, tickets, window)
    return out


def _launch_depthwise(
    x: torch.Tensor, weight: torch.Tensor, indices: torch.Tensor, words: torch.Tensor | None,
    epilogue: Epilogue, out: torch.Tensor, tickets: int, window: list[int],
) -> None:  # fmt: skip
    x = x.contiguous(memory_format=torch.channels_last)
    (samples, channels), size = out.shape[:2], out.shape[2:]
    config: KernelConfig = choose_config("depthwise", x.dtype, 16, channels)
    out_stride, _, down, right = weight.stride()[-4:]
    arguments = (
        x, weight, x if words is None else words, indices.contiguous(), *epilogue.pointers(x), out,
        channels, tickets, *x.shape[2:], *size,
        weight.stride(0) if words is None else 0, out_stride, down, right,
        epilogue.bias_stride(channels), *window,
    )  # fmt: skip
    values = constants(
        "depthwise", x.dtype, config, TAPS_Y=weight.shape[-2], TAPS_X=weight.shape[-1],
        MASKED=words is not None, **epilogue.flags(),
    )  # fmt: skip
    blocks = -(-channels // config.block_out) * -(-(size[0] * size[1]) // config.block_rows)
    launch("depthwise", samples * blocks, arguments, values, config)


def _check(
    x: torch.Tensor, weight: torch.Tensor, window: Window, epilogue: Epilogue, counts: Pair
) -> Pair:
    """The output's height and width, where everything fits."""
    if weight.numel() == 0 or (x.numel() == 0 and x.shape[0] > 0):
        raise InvalidArgument(
            f"the images or the weights are empty, of shapes {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    taps = (weight.shape[-2], weight.shape[-1])
    window.check((x.shape[2], x.shape[3]), taps)
    epilogue.check(*counts)
    return window.output((x.shape[2], x.shape[3]), taps)


def _images(x: torch.Tensor, channels: int, size: Pair) -> torch.Tensor:
    return torch.empty(
        (x.shape[0], channels, *size),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


_convolution_op = torch.library.custom_op(
    "rtl_plugin::grouped_conv2d", _convolution, mutates_args=()
)
_depthwise_op = torch.library.custom_op("rtl_plugin::depthwise_conv2d", _depthwise, mutates_args=())


@_convolution_op.register_fake
def _(
    x: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor, bias: object, scale: object,
    shift: object, tiles: object, window: list[int], allow_tf32: bool,
) -> torch.Tensor:  # fmt: skip
    size = window_of(window).output(x.shape[2:], weights.shape[3:])
    return _images(x, weights.shape[1], size)


@_depthwise_op.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, indices: torch.Tensor, words: object, bias: object,
    scale: object, shift: object, window: list[int],
) -> torch.Tensor:  # fmt: skip
    size = window_of(window).output(x.shape[2:], weight.shape[-2:])
    return _images(x, x.shape[1], size)
