"""What ``similarity`` compares: tickets of a ResNet-50, and ways to count what they share."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.packed_masks import PackedMasks

COLUMNS = 1 << 14  # of a float block: 6.5 MB of 100 tickets

PACKED, BOOLS = "words, masks packed", "words, bool masks"
BLOCKS_PACKED, BLOCKS = "float blocks, masks packed", "float blocks, bool masks"
WHOLE = "float whole, bool masks"

Masks = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Counts = np.ndarray


class Setting(NamedTuple):
    """How much there is to compare: K tickets of a ResNet-50 with its widths divided.

    Args:
        tickets: K.
        divisor: of the widths.
        rounds: in which every program runs once with one thread.
        rounds_of_two: the first so many have runs with two threads, too.
    """

    tickets: int
    divisor: int
    rounds: int
    rounds_of_two: int


def resnet50_shapes(divisor: int = 1) -> dict[str, tuple[int, ...]]:
    """Convolutions and classifier of a ResNet-50, 25.5 M weights, at widths divided."""
    stem = 64 // divisor
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (stem, 3, 7, 7)}
    before = stem
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        inner, outer = width // divisor, 4 * width // divisor
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (inner, before, 1, 1)
            shapes[f"{name}.conv2.weight"] = (inner, inner, 3, 3)
            shapes[f"{name}.conv3.weight"] = (outer, inner, 1, 1)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outer, before, 1, 1)
            before = outer
    return {**shapes, "fc.weight": (1000, before)}


def weights_of(shapes: Shapes) -> int:
    """How many weights there are."""
    return sum(int(np.prod(shape)) for shape in shapes.values())


def random_ticket(shapes: Shapes, place: int, tickets: int) -> dict[str, torch.Tensor]:
    """One ticket: weights whose random byte is low; odd places share half of their bytes."""
    own, common = np.random.default_rng([1, place]), np.random.default_rng(0)
    level = round(256 * (0.05 + 0.9 * place / max(tickets - 1, 1)))
    masks = {}
    for name, shape in shapes.items():
        ranks = own.integers(0, 256, shape, dtype=np.uint8)
        if place % 2:
            shared = common.integers(0, 256, shape, dtype=np.uint8)
            ranks = np.where(own.integers(0, 2, shape, dtype=np.uint8), shared, ranks)
        masks[name] = torch.from_numpy(ranks < level)
    return masks


def words(tickets: Sequence[Masks]) -> Counts:
    """Common weights of every two tickets, by our counting."""
    return sum(layer.shared for layer in count_masks(tickets).layers)


def float_blocks(tickets: Sequence[Masks]) -> Counts:
    """The same by float products of blocks of columns, summed in float64."""
    total = torch.zeros(len(tickets), len(tickets), dtype=torch.float64)
    for name in tickets[0]:
        rows = [ticket[name].reshape(-1) for ticket in tickets]
        block = torch.empty(len(rows), min(COLUMNS, rows[0].numel()))
        for start in range(0, rows[0].numel(), COLUMNS):
            used = block[:, : rows[0][start : start + COLUMNS].numel()]
            for k, row in enumerate(rows):
                used[k] = row[start : start + COLUMNS]
            total += used @ used.T
    return total.numpy().astype(np.int64)


def float_whole(tickets: Sequence[Masks]) -> Counts:
    """The same by one float product; float32 stops counting one by one at 2^24."""
    size = sum(mask.numel() for mask in tickets[0].values())
    matrix = torch.empty(len(tickets), size)
    for k, ticket in enumerate(tickets):
        start = 0
        for mask in ticket.values():
            matrix[k, start : start + mask.numel()] = mask.reshape(-1)
            start += mask.numel()
    return (matrix @ matrix.T).double().numpy()


COUNTERS: dict[str, tuple[bool, Callable[[Sequence[Masks]], Counts]]] = {
    PACKED: (True, words),
    BOOLS: (False, words),
    BLOCKS_PACKED: (True, float_blocks),
    BLOCKS: (False, float_blocks),
    WHOLE: (False, float_whole),
}


def made(setting: Setting, packed: bool) -> list[Masks]:
    """The tickets, made one at a time."""
    shapes = resnet50_shapes(setting.divisor)
    tickets = (random_ticket(shapes, k, setting.tickets) for k in range(setting.tickets))
    return [PackedMasks(masks) if packed else masks for masks in tickets]


def check(program: str, found: Counts, expected: Counts) -> float:
    """Greatest error of the counts; only the whole float32 product may have one, a small one.

    Raises:
        AssertionError: a program counts something else.
    """
    error = float(np.abs(found - expected).max())
    if error > (1e-4 * float(expected.max()) if program == WHOLE else 0):
        raise AssertionError(f"{program}: counts differ by up to {error:,.0f}")
    return error
