"""Iterating a group's loader from its start, repeatably."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from rtl_plugin.errors import InvalidGroups
from rtl_plugin.randomness import derived_seed, forked

if TYPE_CHECKING:
    from rtl_plugin.data_groups.group import DataGroup


class CompositeLoader:
    """Batches made from the batches of other loaders.

    Args:
        parts: the loaders underneath, in order.
    """

    def __init__(self, parts: Iterable[Iterable[Any]]) -> None:
        self.parts = tuple(parts)


def number_of_batches(loader: Iterable[Any], what: str = "loader") -> int:
    """How many batches one pass over a loader gives.

    A loader without a length is counted by one pass, which leaves all random states as they were.

    Args:
        loader: a re-iterable of batches.
        what: what to call the loader in an error.

    Returns:
        The number of batches, at least 1.

    Raises:
        InvalidGroups: the loader gives no batch.

    Example:
        >>> number_of_batches([torch.zeros(2), torch.zeros(2)])
        2
    """
    count = known_length(loader)
    if count is None:
        with forked(0), _restored(own_generators(loader)):
            count = sum(1 for _ in loader)
    if count == 0:
        raise InvalidGroups(
            f"the {what} is empty, expected at least one batch: drop the group, give it data, or "
            "use a smaller batch (drop_last=True leaves nothing of less than one batch)"
        )
    return count


def known_length(loader: Iterable[Any]) -> int | None:
    """The length of a loader, without iterating it.

    Args:
        loader: a re-iterable of batches.

    Returns:
        The number of batches, or None if only a pass can tell.

    Example:
        >>> known_length([1, 2]), known_length(iter([1, 2]))
        (2, None)
    """
    try:
        return len(cast(Sized, loader))
    except (TypeError, NotImplementedError):  # a DataLoader over an IterableDataset has no length
        return None


def own_generators(loader: Any) -> list[torch.Generator]:
    """The random generators that a loader holds itself, instead of using torch's global one.

    Args:
        loader: a DataLoader (its samplers are searched too) or any other re-iterable of batches.

    Returns:
        Every generator once, in a fixed order; empty for a loader that uses the global one.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> generator = torch.Generator()
        >>> loader = DataLoader(torch.zeros(4), shuffle=True, generator=generator)
        >>> own_generators(loader) == [generator]
        True
    """
    if isinstance(loader, CompositeLoader):
        return _distinct(held for part in loader.parts for held in own_generators(part))
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    held = (getattr(holder, "generator", None) for holder in holders)
    return _distinct(item for item in held if isinstance(item, torch.Generator))


def _distinct(generators: Iterable[torch.Generator]) -> list[torch.Generator]:
    return list({id(generator): generator for generator in generators}.values())


def fresh_iterator(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Iterate a loader from its start, as if its own generators had just been made.

    Torch's global generator is the caller's to seed, see :func:`rtl_plugin.randomness.forked`.

    Args:
        loader: a re-iterable of batches.
        seed: an integer in [0, 2**63) for the loader's own generator; any further generator gets a
            seed derived from it.

    Returns:
        An iterator of batches.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(range(5), shuffle=True, generator=torch.Generator())
        >>> with forked(0):
        ...     first = [int(x) for x in fresh_iterator(loader, 3)]
        ...     again = [int(x) for x in fresh_iterator(loader, 3)]
        >>> first == again
        True
    """
    for position, generator in enumerate(own_generators(loader)):
        generator.manual_seed(seed if position == 0 else derived_seed(seed, position))
    return iter(loader)


@contextmanager
def preserved_generators(groups: Mapping[str, "DataGroup"]) -> Iterator[None]:
    """Restore the state of every loader's own generators on exit, also after an exception.

    Args:
        groups: data groups by name; training, validation and test loaders are covered.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from rtl_plugin.data_groups import DataGroups
        >>> generator = torch.Generator().manual_seed(1)
        >>> loader = DataLoader(range(5), shuffle=True, generator=generator)
        >>> with preserved_generators(DataGroups.from_loaders({"a": loader})):
        ...     batches = list(fresh_iterator(loader, 3))
        >>> generator.initial_seed()
        1
    """
    loaders = (loader for group in groups.values() for _, loader in group.loaders())
    with _restored(_distinct(held for loader in loaders for held in own_generators(loader))):
        yield


@contextmanager
def _restored(generators: list[torch.Generator]) -> Iterator[None]:
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
