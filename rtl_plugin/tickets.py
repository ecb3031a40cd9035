"""A set of tickets over one network (the ticket itself is in ticket.py)."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

from rtl_plugin import ticket_file, torch_prune
from rtl_plugin.diagnostics.similarity import (
    Matrix,
    layer_similarity,
    mean_similarity,
    similarity_matrix,
)
from rtl_plugin.errors import CompactOnly, UnknownTicket
from rtl_plugin.structure import check_structure, install_state
from rtl_plugin.ticket import Ticket as Ticket
from rtl_plugin.ticket import moved, tickets_by_name


class TicketSet(Mapping[str, Ticket]):
    """K tickets over one network, in order.

    Args:
        tickets: the tickets; different names, the same parameter names and shapes.
        structure: fingerprint of the network's parameter names and shapes, where known.
        theta_0: fingerprint of the initial weights, where known.
        schedule: description of the sparsity schedule, where there was one.
        history: one JSON-able object a (round, group).
        rewind_state: parameters and buffers of a late rewind point, otherwise None.

    Raises:
        InvalidTicket: no tickets, two of one name, or tickets that disagree.

    Example:
        >>> a = Ticket("a", {"w": torch.tensor([True, True, False, False])})
        >>> b = Ticket("b", {"w": torch.tensor([False, True, True, False])})
        >>> tickets = TicketSet([a, b])
        >>> tickets.active_parameters(), tickets.density("a")
        (3, 0.5)
        >>> tickets.similarity()[0, 1].round(3)
        np.float64(0.333)
    """

    def __init__(
        self,
        tickets: Sequence[Ticket],
        *,
        structure: str | None = None,
        theta_0: str | None = None,
        schedule: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
        rewind_state: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self._tickets = tickets_by_name(tickets)
        self.structure = structure
        self.theta_0 = theta_0
        self.schedule = dict(schedule) if schedule is not None else None
        self.history = [dict(row) for row in history]
        self.rewind_state = dict(rewind_state) if rewind_state is not None else None

    def __getitem__(self, name: str) -> Ticket:
        try:
            return self._tickets[name]
        except (KeyError, TypeError):
            raise UnknownTicket(
                f"unknown ticket {name!r}; this set has {', '.join(map(repr, self._tickets))}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._tickets

    def __iter__(self) -> Iterator[str]:
        return iter(self._tickets)

    def __len__(self) -> int:
        return len(self._tickets)

    def __repr__(self) -> str:
        return f"TicketSet({', '.join(f'{n}: {self.density(n):.1%}' for n in self)})"

    @property
    def names(self) -> tuple[str, ...]:
        """The tickets' names, in order."""
        return tuple(self._tickets)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Masked parameter name -> shape."""
        first = next(iter(self._tickets.values()))
        return {name: tuple(mask.shape) for name, mask in first.masks.items()}

    @property
    def compact_only(self) -> tuple[str, ...]:
        """Why masked networks are not the small ones, one layer an entry; empty where they are."""
        plans = [ticket.channels for ticket in self.values() if ticket.channels is not None]
        return tuple(dict.fromkeys(reason for plan in plans for reason in plan.compact_only))

    @property
    def structured(self) -> bool:
        """Whether these are channel tickets, each of which is a smaller network."""
        return next(iter(self._tickets.values())).channels is not None

    def union(self) -> dict[str, torch.Tensor]:
        """Weights that at least one ticket keeps: parameter name -> bool tensor."""
        tickets = list(self.values())
        result = {name: mask.clone() for name, mask in tickets[0].masks.items()}
        for ticket in tickets[1:]:
            for name, mask in ticket.masks.items():
                result[name] |= mask.to(result[name].device)
        return result

    def active_parameters(self) -> int:
        """Size of the union: prunable weights that at least one ticket keeps."""
        return sum(int(mask.sum()) for mask in self.union().values())

    def density(self, name: str) -> float:
        """Fraction of the prunable weights that a ticket keeps, in (0, 1].

        Args:
            name: a ticket's name.

        Raises:
            UnknownTicket: there is no such ticket.
        """
        return self[name].density

    def similarity(
        self, per_layer: bool = False, *, excess: bool = False
    ) -> Matrix | dict[str, Matrix]:
        """Jaccard similarity of every pair of tickets.

        Args:
            per_layer: one matrix a masked parameter instead of one over all.
            excess: subtract what two random masks of the same densities would share.

        Returns:
            float64 array [K, K], or parameter name -> such an array.
        """
        masks = [ticket.masks for ticket in self.values()]
        if per_layer:
            return layer_similarity(masks, excess=excess)
        return similarity_matrix(masks, excess=excess)

    def summary(self) -> str:
        """A table with one line a ticket, the union and the bytes of masks and own state."""
        masks = [ticket.masks for ticket in self.values()]
        raw = mean_similarity(similarity_matrix(masks))
        excess = mean_similarity(similarity_matrix(masks, excess=True))
        rows = [
            [t.name, f"{t.kept:,}", f"{1 - t.density:.2%}", raw[k], excess[k], _own_bytes(t)]
            for k, t in enumerate(self.values())
        ]
        headers = ["ticket", "kept", "sparsity", "similarity", "over chance", "own bytes"]
        table = tabulate(
            rows, headers=headers, floatfmt=".3f", intfmt=",", disable_numparse=[0, 1, 2]
        )
        total = sum(mask.numel() for mask in masks[0].values())
        lines = [table, "", f"union {self.active_parameters():,} of {total:,} prunable weights"]
        empty = {t.name: ", ".join(t.empty_masks) for t in self.values() if t.empty_masks}
        lines += [f"nothing kept in {name}: {masks}" for name, masks in empty.items()]
        lines += [f"runs as a small network only: {reason}" for reason in self.compact_only]
        return "\n".join(lines)

    def check_fits(self, model: nn.Module) -> None:
        """Refuse a model of another structure.

        Args:
            model: the network these tickets are to mask.

        Raises:
            StructureMismatch: a masked parameter or a state entry is unknown or of another
                shape, or the parameter names and shapes are not those the tickets were found on.
        """
        states = {ticket.name: ticket.state for ticket in self.values()}
        check_structure(model, self.shapes, states, self.structure)
        for ticket in self.values():
            if ticket.channels is not None:
                ticket.channels.check_fits(model, ticket.masks)

    def check_maskable(self, use: str) -> None:
        """Refuse tickets whose masked network is not the small one.

        Args:
            use: what would run the masked network, for the message.

        Raises:
            CompactOnly: naming the layers.
        """
        if self.compact_only:
            raise CompactOnly(
                f"{use} would compute something else than the small networks do, because of "
                f"{'; '.join(self.compact_only)}: use rtl_plugin.compact, "
                'MixtureOfMasks(strategy="compact") or retrain, which run the small networks'
            )

    def to(self, device: torch.device | str) -> "TicketSet":
        """The same tickets with masks, own state and rewind state on a device.

        Args:
            device: as for ``torch.Tensor.to``.
        """
        rewind_state = self.rewind_state
        return TicketSet(
            [ticket.to(device) for ticket in self.values()],
            structure=self.structure,
            theta_0=self.theta_0,
            schedule=self.schedule,
            history=self.history,
            rewind_state=None if rewind_state is None else moved(rewind_state, device),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ticket file: masks at one bit a weight, own state, fingerprints, no pickle.

        Args:
            path: the file; written atomically.

        Raises:
            OSError: the folder cannot be written.
        """
        ticket_file.save(path, self.to_file())

    def to_file(self, weights: Mapping[str, torch.Tensor] | None = None) -> ticket_file.TicketFile:
        """The set as the plain data of a ticket file, with shared weights for a mixture."""
        return ticket_file.TicketFile(
            [ticket_file.TicketRecord(t.name, t.masks, t.state, t.channels) for t in self.values()],
            {"structure": self.structure, "theta_0": self.theta_0},
            self.schedule,
            self.history,
            self.rewind_state or {},
            weights or {},
        )

    @classmethod
    def from_file(cls, content: ticket_file.TicketFile) -> "TicketSet":
        """Build the set from the plain data of a ticket file."""
        return cls(
            [Ticket(r.name, r.masks, dict(r.state), r.channels) for r in content.tickets],
            structure=content.fingerprint["structure"],
            theta_0=content.fingerprint["theta_0"],
            schedule=content.schedule,
            history=content.history,
            rewind_state=content.rewind_state or None,
        )

    @classmethod
    def from_torch_prune(
        cls, models: nn.Module | Mapping[str, nn.Module], name: str = "pruned"
    ) -> "TicketSet":
        """Import the masks that ``torch.nn.utils.prune`` left in one or several models.

        Args:
            models: a pruned model (one ticket), or ticket name -> pruned copy of one network.
            name: the ticket's name when one model is given.

        Returns:
            A set over the names of the bare model; own state is each model's other buffers.

        Raises:
            NothingPrunable: a model carries no ``torch.nn.utils.prune`` mask.
            InvalidTicket: not a module, a mask holds values other than 0 and 1, the models
                disagree, or the uses of a tied parameter do.
        """
        named = models if isinstance(models, Mapping) else {name: models}
        return cls([Ticket(key, *torch_prune.read_masks(key, m)) for key, m in named.items()])

    def to_torch_prune(self, name: str, model: nn.Module) -> nn.Module:
        """Put one ticket on a model as ``torch.nn.utils.prune`` masks, in place.

        Args:
            name: which ticket.
            model: a bare model of the tickets' structure; pass a copy to keep yours bare.

        Returns:
            The same model, with the ticket's masks, own buffers and private parameters.

        Raises:
            UnknownTicket: there is no such ticket.
            StructureMismatch: the tickets do not fit the model.
            CompactOnly: the masked network is not the small one.
        """
        ticket = self[name]
        self.check_fits(model)
        self.check_maskable("torch.nn.utils.prune")
        install_state(model, ticket.state)
        torch_prune.apply_masks(model, ticket.masks)
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TicketSet":
        """Read a ticket file.

        Args:
            path: a file of :meth:`save`.

        Returns:
            The set, tensors on the CPU; whatever binds it to a model checks that it fits.

        Raises:
            MissingFile: there is no such file, or the path is a folder.
            DamagedFile: it is damaged, truncated, foreign, or of an unknown version.
        """
        return cls.from_file(ticket_file.load(path))


def _own_bytes(ticket: Ticket) -> int:
    masks = sum((mask.numel() + 7) // 8 for mask in ticket.masks.values())
    return masks + sum(value.nbytes for value in ticket.state.values())
