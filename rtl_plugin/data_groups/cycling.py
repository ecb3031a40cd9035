"""Batches without end: a loader started again, freshly seeded, whenever it runs out."""

from collections.abc import Iterable, Iterator
from typing import Any

from rtl_plugin.data_groups.loading import fresh_iterator
from rtl_plugin.errors import InvalidGroups
from rtl_plugin.randomness import derived_seed


def cycled(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield batches forever, starting the loader again when it ends.

    Args:
        loader: a re-iterable of batches.
        seed: in [0, 2**63), for generators that the loader holds itself; torch's global generator
            is the caller's to seed.

    Returns:
        An endless iterator.

    Raises:
        InvalidGroups: a pass over the loader gave no batch.

    Example:
        >>> from itertools import islice
        >>> list(islice(cycled(["a", "b"], seed=0), 5))
        ['a', 'b', 'a', 'b', 'a']
    """
    turn = 0
    while True:
        empty = True
        for batch in fresh_iterator(loader, derived_seed(seed, turn)):
            empty = False
            yield batch
        if empty:
            raise InvalidGroups(f"pass {turn + 1} over a loader gave no batch: is it one-shot?")
        turn += 1
