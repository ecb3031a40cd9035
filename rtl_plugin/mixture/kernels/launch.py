"""What every kernel's launch shares: checks of the operands, constants, and the launch itself."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.kernels.configs import (
    BLOCKS_OF_ROWS,
    DTYPES,
    KernelConfig,
    block_rows_for,
    largest_block_rows,
)
from rtl_plugin.mixture.kernels.loading import interpreted, kernel, why_not
from rtl_plugin.mixture.kernels.tiles import tile_table

# Kernel as in ShippedConfig -> function of the device code.
FUNCTIONS = {
    "grouped": "linear_kernel",
    "bitmask": "linear_kernel",
    "few_rows": "few_rows_kernel",
    "convolution": "convolution_kernel",
    "depthwise": "depthwise_kernel",
    "expand": "expand_kernel",
}
Tensors = Mapping[str, torch.Tensor | None]


class Epilogue(NamedTuple):
    """What is applied to the sums before they are stored; None where nothing is.

    Args:
        bias: floating [N], or [T, N] one a ticket.
        scale: floating [T, N], multiplied after the bias.
        shift: floating [T, N], added after the scale.
    """

    bias: torch.Tensor | None
    scale: torch.Tensor | None
    shift: torch.Tensor | None

    def flags(self) -> dict[str, bool]:
        """The kernels' constants that say what there is."""
        present = [each is not None for each in self]
        return dict(zip(("HAS_BIAS", "HAS_SCALE", "HAS_SHIFT"), present, strict=True))

    def pointers(self, placeholder: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The three tensors as the kernels read them; the placeholder is never read."""
        return tuple(placeholder if each is None else each.contiguous() for each in self)

    def bias_stride(self, outputs: int) -> int:
        """Steps from one ticket's bias to the next: 0 where they share one."""
        return outputs if self.bias is not None and self.bias.dim() == 2 else 0

    def check(self, tickets: int, outputs: int) -> None:
        """Refuse shapes that do not fit T tickets and N outputs.

        Args:
            tickets: T.
            outputs: N.

        Raises:
            InvalidArgument: the bias is neither [N] nor [T, N], or scale or shift is not [T, N].
        """
        allowed = {"bias": ((outputs,), (tickets, outputs))}
        for name, value in self._asdict().items():
            shapes = allowed.get(name, ((tickets, outputs),))
            if value is None:
                continue
            if tuple(value.shape) not in shapes or not value.is_floating_point():
                raise InvalidArgument(
                    f"{name} must be floating of shape {' or '.join(map(str, shapes))} for "
                    f"{tickets} tickets and {outputs} outputs, got {value.dtype} of shape "
                    f"{tuple(value.shape)}"
                )


def refuse_gradients(operation: str, tensors: Tensors) -> None:
    """Refuse operands that expect a gradient, which the kernels would drop.

    Args:
        operation: its name, for the message.
        tensors: argument name -> tensor.

    Raises:
        InvalidArgument: gradients are recorded and an operand requires one.
    """
    if not torch.is_grad_enabled():
        return
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad:
            raise InvalidArgument(
                f"{operation} has no backward, and {name} requires a gradient: run it under "
                "torch.no_grad() to serve, or use the strategy slices to train"
            )


def check_operands(operation: str, x: torch.Tensor, same: Tensors, others: Tensors) -> None:
    """Refuse devices and dtypes that the kernels do not run on.

    Args:
        operation: its name, for the message.
        x: the batch.
        same: argument name -> tensor that must have the dtype and the device of x.
        others: argument name -> tensor that must be on the device of x.

    Raises:
        InvalidArgument: the device or a dtype is not supported, or operands differ in them.
    """
    if x.dtype not in DTYPES:
        raise InvalidArgument(
            f"{operation} runs float32, float16 and bfloat16, got {x.dtype}: use the strategy "
            "slices, which runs every dtype"
        )
    reason = why_not(x.device)
    if reason is not None:
        raise InvalidArgument(f"{operation} cannot run: {reason}; use the strategy slices")
    for name, tensor in {**same, **others}.items():
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise InvalidArgument(f"{name} is on {tensor.device} and the batch on {x.device}")
        if name in same and tensor.dtype != x.dtype:
            raise InvalidArgument(
                f"{name} is {tensor.dtype} and the batch {x.dtype}: convert one of them"
            )


def check_words(words: torch.Tensor, outputs: int, columns: int) -> None:
    """Refuse words that are not int64 [T, ceil(columns / 64), outputs], contiguous.

    Args:
        words: packed masks.
        outputs: N.
        columns: K.

    Raises:
        InvalidArgument: they have another shape, dtype or layout.
    """
    count = -(-columns // 64)
    if words.dtype != torch.int64 or words.dim() != 3 or words.shape[1:] != (count, outputs):
        raise InvalidArgument(
            f"words must be int64 [T, {count}, {outputs}] for a weight of {outputs} rows and "
            f"{columns} columns (see pack_words), got {words.dtype} of shape {tuple(words.shape)}"
        )
    if not words.is_contiguous() or words.shape[0] == 0:
        raise InvalidArgument(
            f"words must be contiguous and of at least one ticket, got shape {tuple(words.shape)} "
            f"and strides {words.stride()}"
        )


def tiles_of(
    tiles: torch.Tensor | None, offsets: torch.Tensor, rows: int, kernel: str, dtype: torch.dtype,
    rows_per_ticket: int | None = None,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """The tile table to launch with, and how many rows its tiles have.

    Args:
        tiles: the caller's, or None to make one.
        offsets: int32 [T + 1].
        rows: M.
        kernel: as in ShippedConfig.
        dtype: of the batch.
        rows_per_ticket: what is expected; None is M / T.

    Returns:
        The table and its tiles' most rows.

    Raises:
        InvalidArgument: the table is malformed, or its length fits no size of tile.
    """
    tickets, most = offsets.shape[0] - 1, largest_block_rows(kernel, dtype)
    if tiles is None:
        expected = -(-rows // tickets) if rows_per_ticket is None else rows_per_ticket
        block = min(block_rows_for(expected), most)
        return tile_table(offsets, rows, block), block
    if tiles.dtype != torch.int32 or tiles.dim() != 2 or tiles.shape[1] != 3:
        raise InvalidArgument(
            f"tiles must be int32 [n_tiles, 3], got {tiles.dtype} of shape {tuple(tiles.shape)}"
        )
    # The length tells the size, since sizes are powers of two; where two fit, M is below both.
    for block in BLOCKS_OF_ROWS:
        if block <= most and -(-rows // block) + tickets == tiles.shape[0]:
            return tiles.contiguous(), block
    sizes = [block for block in BLOCKS_OF_ROWS if block <= most]
    raise InvalidArgument(
        f"tiles has {tiles.shape[0]} rows, which no table of {rows} rows and {tickets} tickets "
        f"has with tiles of {' or '.join(map(str, sizes))} rows: make it with tile_table"
    )


def well_aligned(tensors: Sequence[torch.Tensor], numbers: Sequence[int]) -> bool:
    """Whether tiles can be copied 16 bytes at a time.

    Args:
        tensors: what tiles are read from.
        numbers: sizes and strides that lead from one row to the next.

    Returns:
        True where all numbers are multiples of 16, and so are all addresses; Triton compiles a
        kernel of its own for this case.

    Example:
        >>> well_aligned([], [32, 64]), well_aligned([], [32, 27])
        (True, False)
    """
    return all(n % 16 == 0 for n in numbers) and all(t.data_ptr() % 16 == 0 for t in tensors)


def constants(kernel: str, dtype: torch.dtype, config: KernelConfig, **more: Any) -> dict[str, Any]:
    """The compile-time arguments of a kernel.

    Args:
        kernel: as in ShippedConfig.
        dtype: of the batch.
        config: its tile sizes.
        more: ``PAIRS``, ``TF32``, ``TAPS_Y``, ``TAPS_X``, ``MASKED``, ``HAS_BIAS``, ``HAS_SCALE``
            and ``HAS_SHIFT``, as far as the kernel has them.

    Returns:
        Argument name -> value.

    Example:
        >>> constants("expand", torch.float32, KernelConfig(1, 32, 64, 4, 1))
        {'BLOCK_OUT': 32, 'BLOCK_K': 64}
    """
    blocks = {"BLOCK_ROWS": config.block_rows, "BLOCK_OUT": config.block_out}
    depth = {"BLOCK_K": config.block_k}
    if kernel == "expand":
        return {"BLOCK_OUT": config.block_out, **depth}
    if kernel == "depthwise":
        return {**blocks, **more}
    upcast = {"UPCAST": interpreted() and dtype == torch.bfloat16}
    if kernel in ("grouped", "bitmask"):
        upcast["MASKED"] = kernel == "bitmask"
    return {**blocks, **depth, **upcast, **more}


def launch(
    name: str, programs: int, arguments: Sequence[Any], values: Mapping[str, Any],
    config: KernelConfig,
) -> None:  # fmt: skip
    """Run a kernel on the current stream of its operands' device.

    Args:
        name: as in ShippedConfig.
        programs: how many programs.
        arguments: the kernel's arguments in order; the first is the batch.
        values: its constants.
        config: warps and stages.

    Raises:
        InvalidArgument: there are more programs than a grid holds.
    """
    if programs >= 2**31:
        raise InvalidArgument(f"{name} would need {programs} programs, more than a grid: split it")
    if programs == 0:
        return
    device = arguments[0].device
    guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with guard:
        kernel(FUNCTIONS[name])[(programs,)](*arguments, **values, **options_of(config))


def options_of(config: KernelConfig) -> dict[str, Any]:
    """What a kernel is compiled with besides its constants.

    Args:
        config: warps and stages.

    Returns:
        Triton's option -> value.

    Example:
        >>> options_of(KernelConfig(16, 64, 64, 4, 3))["num_warps"]
        4
    """
    # Said outright, because Triton 3.9 warns that the default is going to change.
    fused = {"enable_fp_fusion": True}
    return {"num_warps": config.num_warps, "num_stages": config.num_stages, **fused}
