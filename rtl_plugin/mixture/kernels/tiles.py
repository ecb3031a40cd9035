"""The tile table: which rows of the sorted batch a program computes, and for which ticket."""

import itertools

import torch

from rtl_plugin.errors import InvalidArgument

_MOST_ROWS = 2**31 - 1 - 1024  # the end of a tile that begins at the last row must be one too


def tile_table(offsets: torch.Tensor, rows: int, block_rows: int) -> torch.Tensor:
    """Cut rows that are sorted by ticket into tiles that never cross a ticket.

    The table's length depends on sizes alone, so it is made without reading the device and a
    CUDA graph replays it with other offsets.

    Args:
        offsets: int32 [T + 1] on any device, ascending from 0 to M: rows ``offsets[t]`` to
            ``offsets[t + 1]`` belong to ticket t. What is on a GPU is not read, hence not checked.
        rows: M, how many rows there are.
        block_rows: the most rows a tile has.

    Returns:
        int32 [ceil(M / block_rows) + T, 3]: ticket, first row, row after the last; tiles without
        rows stand at the end. Without any row the table is T empty tiles.

    Raises:
        InvalidArgument: the offsets are not int32 [T + 1], or do not ascend from 0 to M.

    Example:
        >>> tile_table(torch.tensor([0, 0, 5], dtype=torch.int32), 5, 4)
        tensor([[1, 0, 4],
                [1, 4, 5],
                [0, 5, 5],
                [0, 5, 5]], dtype=torch.int32)
    """
    check_offsets(offsets, rows)
    if block_rows < 1:
        raise InvalidArgument(f"block_rows must be at least 1, got {block_rows}")
    tickets = offsets.shape[0] - 1
    count = -(-rows // block_rows) + tickets
    tiles = (offsets.diff() + (block_rows - 1)) // block_rows
    ends = tiles.cumsum(0, dtype=torch.int32)
    place = torch.arange(count, dtype=torch.int32, device=offsets.device)
    found = torch.searchsorted(ends, place, right=True)
    used = found < tickets
    ticket = found.clamp(max=tickets - 1)
    start = offsets[ticket] + (place - (ends - tiles)[ticket]) * block_rows
    end = torch.minimum(start + block_rows, offsets[ticket + 1])
    table = torch.stack((ticket.to(torch.int32), start, end), dim=1)
    empty = torch.zeros_like(table[0])
    empty[1:] = rows
    return torch.where(used[:, None], table, empty)


def check_offsets(offsets: torch.Tensor, rows: int, tickets: int | None = None) -> None:
    """Refuse offsets that are malformed, or on a CPU: that do not ascend from 0 to the rows.

    Args:
        offsets: int32 [T + 1].
        rows: M, what the last offset must be.
        tickets: T, where the caller knows it.

    Raises:
        InvalidArgument: they are not what is expected.

    Example:
        >>> check_offsets(torch.tensor([0, 2, 3], dtype=torch.int32), 3, tickets=2)
    """
    if offsets.dtype != torch.int32 or offsets.dim() != 1 or offsets.shape[0] < 2:
        raise InvalidArgument(
            f"offsets must be int32 [T + 1] with T at least 1, got {offsets.dtype} of shape "
            f"{tuple(offsets.shape)}"
        )
    if tickets is not None and offsets.shape[0] != tickets + 1:
        raise InvalidArgument(
            f"offsets must have {tickets + 1} entries for {tickets} tickets, got {offsets.shape[0]}"
        )
    if not 0 <= rows <= _MOST_ROWS:
        raise InvalidArgument(f"rows are counted in int32, at most {_MOST_ROWS}, got {rows}")
    # Reading a GPU's values would wait for it, and a traced tensor has none.
    if offsets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    given = offsets.tolist()
    if given[0] != 0 or given[-1] != rows or any(a > b for a, b in itertools.pairwise(given)):
        raise InvalidArgument(f"offsets must ascend from 0 to the {rows} rows, got {given}")
