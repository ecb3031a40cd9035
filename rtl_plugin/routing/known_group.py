"""The group of every sample is known: the router of the paper."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument, UnknownTicket
from rtl_plugin.routing.contract import RoutingDecision, batch_size
from rtl_plugin.routing.group_keys import checked_names, listed_keys
from rtl_plugin.routing.saved_fields import State, field, names_field


class KnownGroupRouter:
    """Routes by a context that names the group: one key a sample, or one for the batch.

    Args:
        tickets: a ticket set, or all ticket names in its order.
        mapping: context key -> ticket name, where keys are not the names themselves.

    Raises:
        InvalidArgument: the tickets are no list of different names.
        UnknownTicket: the mapping leads to a name that is no ticket.

    Example:
        >>> router = KnownGroupRouter(["indoor", "street"], mapping={0: "indoor", 1: "street"})
        >>> router.route(torch.zeros(3, 1), context=[1, 0, 1]).indices
        tensor([1, 0, 1])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141: context picks the ticket.
    """

    def __init__(
        self, tickets: Iterable[str], mapping: Mapping[Hashable, str] | None = None
    ) -> None:
        self.tickets = checked_names(tickets)
        position = {name: k for k, name in enumerate(self.tickets)}
        keys = mapping if mapping is not None else {name: name for name in self.tickets}
        for key, name in keys.items():
            if name not in position:
                raise UnknownTicket(
                    f"key {key!r} is mapped to {name!r}; the tickets are {list(self.tickets)}"
                )
        self._index = {key: position[name] for key, name in keys.items()}

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Look the context's keys up.

        Args:
            x: the network's first input; its first tensor's first dimension is the batch.
            context: one key for the whole batch, or a sequence, array or integer tensor of B keys.

        Returns:
            One index a sample, in a tensor on the CPU whatever the device of ``x``.

        Raises:
            InvalidArgument: there is no context, it is a set or a dict, or its length is not the
                batch's.
            UnknownTicket: a key is unknown.
        """
        if context is None:
            raise InvalidArgument(
                "KnownGroupRouter needs context=: the group of the batch, or one a sample"
            )
        size = batch_size(x)
        keys = listed_keys("context", context, size)
        if len(keys) != size:
            raise InvalidArgument(f"context has {len(keys)} keys for a batch of {size} samples")
        for key in keys:
            if not isinstance(key, Hashable) or key not in self._index:
                raise UnknownTicket(f"unknown group {key!r}; known are {list(self._index)}")
        chosen = [self._index[key] for key in keys]
        # On the CPU wherever x is: what the host knows need not be waited for.
        return RoutingDecision(indices=torch.tensor(chosen, dtype=torch.long))

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``.

        Raises:
            InvalidArgument: a key is no string, number, bool or None.
        """
        for key in self._index:
            if not isinstance(key, (str, int, float, type(None))):
                raise InvalidArgument(
                    f"the context key {key!r} is a {type(key).__name__}, which a file without "
                    "pickle cannot hold: map strings or numbers, or save(path, router=False)"
                )
        return {"tickets": self.tickets, "index": self._index}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "KnownGroupRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: not needed.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        names, index = names_field(state, "tickets"), field(state, "index", dict)
        if not all(type(k) is int and 0 <= k < len(names) for k in index.values()):
            raise DamagedFile("the saved router maps a key to no ticket")
        return cls(names, {key: names[k] for key, k in index.items()})
