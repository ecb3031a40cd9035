"""Which tile sizes a kernel runs with: an explicit table and a rule, no search at run time.

Every entry is compiled ahead of time for each supported GPU generation and held to its limits of
shared memory and registers by `benchmarks/kernel_resources.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rtl_plugin.errors import InvalidArgument

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# How many rows of one ticket a tile holds. Powers of two: the host recovers a table's from its size
BLOCKS_OF_ROWS = (16, 64, 128)


@dataclass(frozen=True)
class KernelConfig:
    """Tile sizes and launch parameters of one kernel.

    Args:
        block_rows: rows (or output pixels) a program, a power of two.
        block_out: output columns (or channels) a program, a power of two.
        block_k: columns (or input channels) a step; at most 64 where bits are read.
        num_warps: warps of 32 threads a program.
        num_stages: depth of the pipeline that loads tiles ahead.

    Example:
        >>> KernelConfig(16, 64, 64, 4, 3).block_out
        64
    """

    block_rows: int
    block_out: int
    block_k: int
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class ShippedConfig:
    """A configuration that can be launched, with what decides the code it compiles to.

    Args:
        kernel: ``"grouped"``, ``"bitmask"``, ``"few_rows"``, ``"convolution"``, ``"depthwise"``
            or ``"expand"``.
        bits: 16 or 32, the width of the weights.
        config: the tile sizes.
        aligned: whether it serves sizes and strides that are multiples of 16, where tiles are
            copied past the registers, or the others; None where it serves both.
        wide: whether it serves more than 64 output columns; None where it serves both.

    Example:
        >>> ShippedConfig("expand", 16, KernelConfig(1, 32, 64, 4, 1)).bits
        16
    """

    kernel: str
    bits: int
    config: KernelConfig
    aligned: bool | None = None
    wide: bool | None = None


_TABLE = (
    # Weights of 64 rows feed one warp group of sm90's matrix instruction. More stages where few
    # rows leave the kernel waiting for weights.
    ShippedConfig("grouped", 16, KernelConfig(16, 64, 128, 4, 4), True),
    ShippedConfig("grouped", 16, KernelConfig(64, 64, 64, 4, 3), True, False),
    ShippedConfig("grouped", 16, KernelConfig(64, 128, 64, 4, 3), True, True),
    ShippedConfig("grouped", 16, KernelConfig(128, 64, 64, 4, 3), True, False),
    ShippedConfig("grouped", 16, KernelConfig(128, 128, 64, 8, 3), True, True),
    ShippedConfig("bitmask", 16, KernelConfig(16, 64, 64, 4, 4), True),
    ShippedConfig("bitmask", 16, KernelConfig(64, 64, 64, 4, 3), True),
    ShippedConfig("bitmask", 16, KernelConfig(128, 64, 64, 4, 3), True, False),
    ShippedConfig("bitmask", 16, KernelConfig(128, 128, 64, 8, 3), True, True),
    ShippedConfig("few_rows", 16, KernelConfig(16, 64, 64, 4, 3), True),
    ShippedConfig("convolution", 16, KernelConfig(16, 64, 64, 4, 3), True),
    ShippedConfig("convolution", 16, KernelConfig(64, 64, 64, 4, 3), True),
    ShippedConfig("convolution", 16, KernelConfig(128, 64, 64, 4, 3), True, False),
    ShippedConfig("convolution", 16, KernelConfig(128, 128, 64, 8, 3), True, True),
    # Rows that start anywhere pass through registers, and larger tiles would spill them.
    ShippedConfig("grouped", 16, KernelConfig(16, 64, 32, 4, 2), False),
    ShippedConfig("grouped", 16, KernelConfig(64, 64, 32, 4, 2), False),
    ShippedConfig("grouped", 16, KernelConfig(128, 64, 32, 8, 2), False),
    ShippedConfig("bitmask", 16, KernelConfig(16, 64, 32, 4, 2), False),
    ShippedConfig("bitmask", 16, KernelConfig(64, 64, 32, 4, 2), False),
    ShippedConfig("bitmask", 16, KernelConfig(128, 64, 32, 8, 2), False),
    ShippedConfig("few_rows", 16, KernelConfig(16, 64, 32, 8, 2), False),
    # The first layer of most networks has three channels, so short steps waste least.
    ShippedConfig("convolution", 16, KernelConfig(16, 64, 16, 4, 2), False),
    ShippedConfig("convolution", 16, KernelConfig(64, 64, 16, 4, 2), False),
    ShippedConfig("convolution", 16, KernelConfig(128, 64, 16, 8, 2), False),
    # float32 without TF32 multiplies in ordinary lanes, where small tiles keep registers free.
    ShippedConfig("grouped", 32, KernelConfig(16, 64, 32, 4, 3)),
    ShippedConfig("grouped", 32, KernelConfig(64, 64, 32, 8, 3)),
    ShippedConfig("bitmask", 32, KernelConfig(16, 64, 32, 4, 3)),
    ShippedConfig("bitmask", 32, KernelConfig(64, 64, 32, 8, 3)),
    ShippedConfig("few_rows", 32, KernelConfig(16, 32, 32, 4, 2)),
    ShippedConfig("convolution", 32, KernelConfig(16, 64, 32, 4, 3)),
    ShippedConfig("convolution", 32, KernelConfig(64, 64, 32, 8, 3), True),
    ShippedConfig("convolution", 32, KernelConfig(64, 64, 16, 8, 3), False),
    ShippedConfig("depthwise", 16, KernelConfig(16, 64, 1, 4, 1)),
    ShippedConfig("depthwise", 32, KernelConfig(16, 64, 1, 4, 1)),
    ShippedConfig("expand", 16, KernelConfig(1, 32, 64, 4, 1)),
    ShippedConfig("expand", 32, KernelConfig(1, 32, 64, 4, 1)),
)


def shipped_configs() -> Iterator[ShippedConfig]:
    """Every configuration that a call can choose.

    Returns:
        An iterator over the table.

    Example:
        >>> {shipped.bits for shipped in shipped_configs()} == {16, 32}
        True
    """
    return iter(_TABLE)


def block_rows_for(rows_per_ticket: int) -> int:
    """The number of rows of a tile that suits a ticket's share of the batch.

    Args:
        rows_per_ticket: how many rows (of a convolution: output pixels) a ticket has on average.

    Returns:
        16, 64 or 128, for :func:`tile_table`; float32 kernels take at most 64.

    Example:
        >>> [block_rows_for(rows) for rows in (1, 16, 17, 400)]
        [16, 16, 64, 128]
    """
    return 16 if rows_per_ticket <= 16 else 64 if rows_per_ticket <= 256 else 128


def choose_config(
    kernel: str, dtype: torch.dtype, block_rows: int, outputs: int, *, aligned: bool = True
) -> KernelConfig:
    """The configuration of a launch.

    Args:
        kernel: as in :class:`ShippedConfig`.
        dtype: float32, float16 or bfloat16.
        block_rows: rows a tile.
        outputs: N, how many output columns there are.
        aligned: sizes, strides and addresses are multiples of 16.

    Returns:
        The first line of the table that fits.

    Raises:
        InvalidArgument: no line has tiles of this many rows.

    Example:
        >>> choose_config("grouped", torch.float16, 128, 1000).block_out
        128
        >>> choose_config("grouped", torch.float16, 128, 1001, aligned=False).block_out
        64
    """
    bits = 8 * dtype.itemsize
    lines = [line for line in _TABLE if (line.kernel, line.bits) == (kernel, bits)]
    for line in lines:
        fits = line.aligned in (None, aligned) and line.wide in (None, outputs > 64)
        if fits and line.config.block_rows == block_rows:
            return line.config
    sizes = sorted({line.config.block_rows for line in lines})
    raise InvalidArgument(
        f"the kernel {kernel!r} has tiles of {' or '.join(map(str, sizes))} rows for {dtype}, "
        f"not of {block_rows}: make the tile table with one of these"
    )


def largest_block_rows(kernel: str, dtype: torch.dtype) -> int:
    """The tallest tile a kernel has for a dtype.

    Args:
        kernel: as in :class:`ShippedConfig`.
        dtype: float32, float16 or bfloat16.

    Returns:
        16, 64 or 128.

    Example:
        >>> largest_block_rows("grouped", torch.float32)
        64
    """
    bits = 8 * dtype.itemsize
    return max(
        line.config.block_rows for line in _TABLE if (line.kernel, line.bits) == (kernel, bits)
    )
