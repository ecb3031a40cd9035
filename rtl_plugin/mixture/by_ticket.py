"""Mixed batches one ticket after the other, for strategies that know no better."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from rtl_plugin.mixture.rows import run_by_ticket
from rtl_plugin.tickets import TicketSet


class ByTicket(ABC):
    """Runs a mixed batch as a pass a distinct ticket.

    Args:
        tickets: what is served.
    """

    def __init__(self, tickets: TicketSet) -> None:
        self._tickets = tickets

    @abstractmethod
    def run(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network under one ticket."""

    def run_mixed(
        self, indices: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a batch, every sample through its own ticket.

        Args:
            indices: integer tensor [B] of positions in the set.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output, rows in the order of the batch.
        """
        names = self._tickets.names
        return run_by_ticket(lambda k, a, kw: self.run(names[k], a, kw), indices, args, kwargs)
