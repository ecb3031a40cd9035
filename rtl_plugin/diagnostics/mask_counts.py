"""How many weights every two tickets share: AND and bit counts of packed masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.errors import InvalidTicket

Masks = Mapping[str, torch.Tensor]
Words = npt.NDArray[np.uint64]
Octets = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
BitCount = Callable[[Words, Octets], None]

_WORD_BYTES = 8
# A block of this many rows and words has 1 MiB: still in a cache when the next call reads it.
_BLOCK_WORDS = 2048
_BLOCK_ROWS = 64
# Below some 10 ms of work, starting threads takes longer than they save.
_WORTH_THREADS = 1 << 24


class LayerCounts(NamedTuple):
    """One masked parameter: how many weights every two of K tickets both keep.

    Args:
        name: the parameter's name.
        size: its number of weights.
        shared: int64 array [K, K], symmetric; what each ticket keeps is on the diagonal.
    """

    name: str
    size: int
    shared: Counts


@dataclass(frozen=True, eq=False)
class MaskCounts:
    """What every two of K tickets share, layer by layer: enough for every similarity.

    Args:
        tickets: K.
        layers: one entry a masked parameter, in the order of the masks.
    """

    tickets: int
    layers: tuple[LayerCounts, ...]

    def __iter__(self) -> Iterator[LayerCounts]:
        return iter(self.layers)


def count_masks(tickets: Sequence[Masks], *, threads: int | None = None) -> MaskCounts:
    """Count once what every two tickets share, where several similarities are wanted.

    Args:
        tickets: one mapping parameter name -> bool mask each, all with the same names and shapes,
            on any device. Masks of a mapping that has ``words(name)`` (int64 words on the CPU, as
            ``PackedMasks`` has) are counted as packed as they lie.
        threads: how many to use; by default as many as torch does.

    Returns:
        Counts of all layers, ``8 K^2`` bytes a layer, for ``similarity_matrix`` and the others in
        place of the tickets.

    Raises:
        InvalidTicket: tickets that disagree about names or shapes, or a mask that is not bool.
        InvalidArgument: fewer than one thread.

    Example:
        >>> masks = [{"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])}]
        >>> count_masks(masks).layers[0].shared
        array([[2, 1],
               [1, 1]])
    """
    return MaskCounts(len(tickets), tuple(layer_counts(tickets, threads=threads)))


def layer_counts(tickets: Sequence[Masks], *, threads: int | None = None) -> Iterator[LayerCounts]:
    """The counts of :func:`count_masks` one layer at a time, none of them kept.

    Args:
        tickets: as in :func:`count_masks`.
        threads: as in :func:`count_masks`.

    Yields:
        One entry a masked parameter. The masks of one layer are packed at a time: K bits a weight.

    Raises:
        InvalidTicket: as in :func:`count_masks`.
        InvalidArgument: as in :func:`count_masks`.

    Example:
        >>> [(c.name, c.size) for c in layer_counts([{"w": torch.tensor([True, False])}])]
        [('w', 2)]
    """
    workers = torch.get_num_threads() if threads is None else whole_number("threads", threads, 1)
    check_names(tickets)
    with ThreadPoolExecutor(workers) as pool:
        for name in tickets[0] if tickets else ():
            rows, size = _packed_layer(tickets, name)
            yield LayerCounts(name, size, _shared(rows, pool, workers))


def check_names(tickets: Sequence[Masks]) -> None:
    """Refuse tickets that mask different parameters.

    Args:
        tickets: one mapping parameter name -> mask each.

    Raises:
        InvalidTicket: naming a ticket, by its place, and a parameter.

    Example:
        >>> check_names([{"w": torch.tensor([True])}, {"w": torch.tensor([False])}])
    """
    names = set(tickets[0]) if tickets else set()
    for place, ticket in enumerate(tickets):
        if differing := sorted(names ^ set(ticket)):
            has, lacks = (place, 0) if differing[0] in ticket else (0, place)
            raise InvalidTicket(
                f"expected masks of the same parameters, but ticket {has} has {differing[0]!r} and "
                f"ticket {lacks} does not (counted from 0): compare tickets of one network"
            )


def _packed_layer(tickets: Sequence[Masks], name: str) -> tuple[list[Words], int]:
    """One layer's masks as words, 64 weights each, and its number of weights."""
    rows: list[Words] = []
    expected: tuple[int, ...] = ()
    for place, ticket in enumerate(tickets):
        words, shape = _as_words(ticket, name, place)
        if place and shape != expected:
            raise InvalidTicket(
                f"expected masks of one shape, but {name!r} has {list(expected)} in ticket 0 and "
                f"{list(shape)} in ticket {place} (counted from 0): compare tickets of one network"
            )
        expected = shape
        rows.append(words)
    return rows, int(np.prod(expected, dtype=np.int64))


def _as_words(ticket: Masks, name: str, place: int) -> tuple[Words, tuple[int, ...]]:
    """A mask as words and its shape; a mapping without ``shape`` is looked at for it."""
    packed, shape_of = (getattr(ticket, method, None) for method in ("words", "shape"))
    if callable(packed):
        shape = shape_of(name) if callable(shape_of) else ticket[name].shape
        return packed(name).numpy().view(np.uint64), tuple(shape)
    mask = ticket[name]
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        came = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise InvalidTicket(
            f"expected torch.bool masks, got {came} for {name!r} of ticket {place} (counted from "
            "0): convert with mask.bool() if it holds zeros and ones"
        )
    octets = np.packbits(mask.detach().cpu().numpy().reshape(-1), bitorder="little")
    padding = -octets.size % _WORD_BYTES
    return np.pad(octets, (0, padding)).view(np.uint64), tuple(mask.shape)


def _shared(rows: Sequence[Words], pool: Executor, workers: int) -> Counts:
    """Common bits of every two rows, [K, K]; the columns are split among the workers."""
    words = rows[0].size
    parts = workers if len(rows) ** 2 * words // 2 >= _WORTH_THREADS else 1
    edges = [words * part // parts for part in range(parts + 1)]
    count = _bit_counter()

    def part(start: int, stop: int) -> Counts:
        return _shared_of_columns(rows, start, stop, count)

    run = map if parts == 1 else pool.map
    upper = np.zeros((len(rows), len(rows)), np.int64)
    for counts in run(part, edges[:-1], edges[1:]):
        upper += counts
    result: Counts = np.triu(upper) + np.triu(upper, 1).T
    return result


def _shared_of_columns(rows: Sequence[Words], start: int, stop: int, count: BitCount) -> Counts:
    """Common bits within some columns; pairs below the diagonal are left at zero.

    Blocks of columns are copied side by side, so that one call compares a row with many.
    """
    tickets = len(rows)
    result = np.zeros((tickets, tickets), np.int64)
    width, height = min(_BLOCK_WORDS, stop - start), min(_BLOCK_ROWS, tickets)
    block = np.empty((tickets, width), np.uint64)
    both = np.empty((height, width), np.uint64)
    bits = np.empty((height, width), np.uint8)
    for left in range(start, stop, width or 1):
        used = min(width, stop - left)
        for k, row in enumerate(rows):
            block[k, :used] = row[left : left + used]
        for i in range(tickets):
            for j in range(i, tickets, height):
                others = block[j : j + height, :used]
                shared, counted = both[: len(others), :used], bits[: len(others), :used]
                np.bitwise_and(block[i, :used], others, out=shared)
                count(shared, counted)
                result[i, j : j + height] += counted.sum(axis=1, dtype=np.uint32)
    return result


def _bit_counter() -> BitCount:
    """A function (words, out) that writes how many bits of every word are set."""
    native = getattr(np, "bitwise_count", None)  # numpy 1.26 has none
    if native is None:
        return _count_by_halves

    def count(words: Words, out: Octets) -> None:
        native(words, out=out)

    return count


def _count_by_halves(words: Words, out: Octets) -> None:
    """Bits of every word: summed within pairs, fours and eights of bits, then over the octets."""
    odd, low_pairs, low_fours, ones = (
        np.uint64(octet * 0x0101_0101_0101_0101) for octet in (0x55, 0x33, 0x0F, 0x01)
    )
    one, two, four, last_octet = (np.uint64(places) for places in (1, 2, 4, 56))
    pairs = words - ((words >> one) & odd)
    fours = (pairs & low_pairs) + ((pairs >> two) & low_pairs)
    octets = (fours + (fours >> four)) & low_fours
    np.copyto(out, (octets * ones) >> last_octet, casting="unsafe")
