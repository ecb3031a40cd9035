"""Samples with the ticket that each belongs to: what trainable routers learn from."""

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from rtl_plugin.errors import InvalidArgument, InvalidGroups, UnknownTicket
from rtl_plugin.nested import map_tensors
from rtl_plugin.routing.contract import batch_size

Batches = Callable[[], Iterator[tuple[Any, torch.Tensor]]]


def checked_names(tickets: Iterable[str]) -> tuple[str, ...]:
    """The names of tickets in their order.

    Args:
        tickets: a ticket set, or all ticket names in its order.

    Returns:
        The names.

    Raises:
        InvalidArgument: there is none, one is no string, or one comes twice.

    Example:
        >>> checked_names(["indoor", "street"])
        ('indoor', 'street')
    """
    alone = isinstance(tickets, (str, bytes)) or not isinstance(tickets, Iterable)
    names = () if alone else tuple(tickets)
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidArgument(
            f"tickets= must be a ticket set or a list of ticket names, got {tickets!r}"
        )
    if len(set(names)) != len(names):
        raise InvalidArgument(f"tickets= holds a name twice: {list(names)}")
    return names


def ticket_positions(groups: Any, tickets: tuple[str, ...], size: int) -> torch.Tensor:
    """Which ticket every sample belongs to, as positions.

    Args:
        groups: B ticket names, or B positions (a sequence, an array or an integer tensor); one
            name stands for the whole batch.
        tickets: all names, in order.
        size: B.

    Returns:
        int64 tensor [B] on the CPU.

    Raises:
        InvalidArgument: not one key a sample.
        UnknownTicket: a key is neither a name nor a position.

    Example:
        >>> ticket_positions(["street", "indoor"], ("indoor", "street"), 2)
        tensor([1, 0])
    """
    listed = listed_keys("groups", groups, size)
    if len(listed) != size:
        raise InvalidArgument(f"{len(listed)} groups for a batch of {size} samples: give one each")
    known = {name: k for k, name in enumerate(tickets)}
    positions = []
    for key in listed:
        position = known.get(key) if isinstance(key, str) else _whole(key)
        if position is None or not 0 <= position < len(tickets):
            raise UnknownTicket(
                f"group {key!r} is neither a ticket nor a position in 0..{len(tickets) - 1}; the "
                f"tickets are {list(tickets)}"
            )
        positions.append(position)
    return torch.tensor(positions, dtype=torch.long)


def listed_keys(name: str, given: Any, size: int) -> Sequence[Any]:
    """One key a sample.

    Args:
        name: of the argument, for the message.
        given: a sequence, tensor or array of keys, or one key for the whole batch.
        size: B, how often one key stands for.

    Returns:
        The keys in their order, numbers out of tensors and arrays as Python's own.

    Raises:
        InvalidArgument: a set, a dict or the like, which says of no key whose it is.

    Example:
        >>> listed_keys("context", torch.tensor([1, 0]), 2), listed_keys("context", "a", 2)
        ([1, 0], ['a', 'a'])
    """
    listed = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Collection):
        return [listed] * size
    if not isinstance(listed, Sequence):
        raise InvalidArgument(
            f"{name} must be one key, or a sequence, tensor or array with one key a sample, got a "
            f"{type(given).__name__}, which gives samples no keys in order"
        )
    return [key.tolist() if isinstance(key, torch.Tensor) else key for key in listed]


def _whole(key: Any) -> int | None:
    """A key as position, or None: also one of numpy's integers, but no bool."""
    plain = key.tolist() if hasattr(key, "tolist") else key
    if isinstance(plain, bool):
        return None
    try:
        return operator.index(plain)
    except TypeError:
        return None


def labelled_batches(
    x: Any, groups: Any, tickets: tuple[str, ...], rows: int | None = None
) -> Batches:
    """What ``fit`` was given, as batches with a position for every sample.

    Args:
        x: the network's first inputs, batch first, with ``groups``; or, where ``groups`` is None,
            an iterable of batches ``(x, groups)`` such as a DataLoader.
        groups: see :func:`ticket_positions`, or None.
        tickets: all names, in order.
        rows: for one batch: cut it into batches of so many rows, in a new order at every pass. A
            last one of a single row joins the one before it: batch norm cannot train on it.

    Returns:
        A function whose every call is one pass over ``(x, int64 tensor [B])``.

    Raises:
        InvalidArgument: there are no groups, or a batch is no pair.

    Example:
        >>> batches = labelled_batches(torch.zeros(2, 1), ["b", "a"], ("a", "b"))
        >>> [positions.tolist() for _, positions in batches()]
        [[1, 0]]
    """
    if groups is not None:
        positions = ticket_positions(groups, tickets, batch_size(x))
        return lambda: _shuffled(x, positions, rows)
    if isinstance(x, torch.Tensor) or not isinstance(x, Iterable):
        raise InvalidArgument(
            "fit needs the group of every sample: fit(x, groups), or fit(batches) with an "
            f"iterable of pairs (x, groups), got a {type(x).__name__} alone"
        )
    return lambda: _checked_pairs(x, tickets)


def _checked_pairs(
    batches: Iterable[Any], tickets: tuple[str, ...]
) -> Iterator[tuple[Any, torch.Tensor]]:
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InvalidArgument(
                f"fit takes batches (x, groups), got a {type(batch).__name__}: pass pairs, or "
                "fit(x, groups) with everything in one batch"
            )
        yield batch[0], ticket_positions(batch[1], tickets, batch_size(batch[0]))


def _shuffled(
    x: Any, positions: torch.Tensor, rows: int | None
) -> Iterator[tuple[Any, torch.Tensor]]:
    if rows is None:
        yield x, positions
        return
    size = len(positions)

    def taken(chosen: torch.Tensor) -> Any:
        def take(tensor: torch.Tensor) -> torch.Tensor:
            is_batch = tensor.dim() > 0 and tensor.shape[0] == size
            return tensor.index_select(0, chosen.to(tensor.device)) if is_batch else tensor

        return map_tensors(take, x)

    parts = list(torch.randperm(size).split(rows))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    for chosen in parts:
        yield taken(chosen), positions[chosen]


def check_every_ticket(counts: torch.Tensor, tickets: tuple[str, ...]) -> None:
    """Refuse data in which a ticket has no sample.

    Args:
        counts: tensor [K], samples seen a ticket.
        tickets: all names, in order.

    Raises:
        InvalidGroups: a count is zero.

    Example:
        >>> check_every_ticket(torch.tensor([3, 1]), ("a", "b"))
    """
    missing = [name for name, count in zip(tickets, counts.tolist(), strict=True) if not count]
    if missing:
        raise InvalidGroups(
            f"fit saw no sample of {missing[:5]}: give every ticket samples, or make the router "
            "for the tickets that have some"
        )
