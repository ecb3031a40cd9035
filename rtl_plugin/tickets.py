"""A set of tickets over one network (the ticket itself is in ticket.py)."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin import nni_masks, ticket_file, torch_prune
from rtl_plugin.diagnostics.similarity import Matrix, layer_similarity, similarity_matrix
from rtl_plugin.errors import CompactOnly, UnknownTicket
from rtl_plugin.fingerprint import model_structure
from rtl_plugin.structure import check_structure, install_state, persistent_buffers
from rtl_plugin.ticket import Ticket as Ticket
from rtl_plugin.ticket import moved, tickets_by_name
from rtl_plugin.ticket_summary import compact_only_reasons, summarised, union_of


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
        self.structure, self.theta_0 = structure, theta_0
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
        return tuple(self)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Masked parameter name -> shape."""
        return {n: tuple(m.shape) for n, m in next(iter(self.values())).masks.items()}

    @property
    def compact_only(self) -> tuple[str, ...]:
        """Why masked networks are not the small ones, one layer an entry; empty where they are."""
        return compact_only_reasons(self.values())

    @property
    def structured(self) -> bool:
        """Whether these are channel tickets, each of which is a smaller network."""
        return next(iter(self.values())).channels is not None

    def union(self) -> dict[str, torch.Tensor]:
        """Weights that at least one ticket keeps: parameter name -> bool tensor."""
        return union_of(self.values())

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
        similarity = layer_similarity if per_layer else similarity_matrix
        return similarity([ticket.masks for ticket in self.values()], excess=excess)

    def summary(self) -> str:
        """A table with one line a ticket, the union and the bytes of masks and own state."""
        return summarised(self.values())

    def check_fits(self, model: nn.Module) -> None:
        """Refuse a model of another structure.

        Args:
            model: the network these tickets are to mask.

        Raises:
            StructureMismatch: a masked parameter or a state entry is unknown or of another shape,
                or names and shapes are not those the tickets were found on.
        """
        states = {name: ticket.state for name, ticket in self.items()}
        check_structure(model, self.shapes, states, self.structure)
        for ticket in self.values():
            if ticket.channels is not None:
                ticket.channels.check_fits(model, ticket.masks)

    def check_maskable(self, use: str) -> None:
        """Refuse tickets whose masked network is not the small one.

        Args:
            use: what would run the masked network, for the message.

        Raises:
            CompactOnly: naming layers.
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
        there = copy.copy(self)
        there._tickets = {name: ticket.to(device) for name, ticket in self.items()}
        there.rewind_state = self.rewind_state and moved(self.rewind_state, device)
        return there

    def packed(self) -> "TicketSet":
        """The same tickets with masks at one bit a weight, sharing their state."""
        lean = copy.copy(self)
        lean._tickets = {name: ticket.packed() for name, ticket in self.items()}
        return lean

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
    def from_file(cls, content: ticket_file.TicketFile, packed: bool = False) -> "TicketSet":
        """Build the set from the plain data of a ticket file, its masks as packed as they lie."""
        masks = [r.masks if packed else dict(r.masks) for r in content.tickets]
        rows = zip(content.tickets, masks, strict=True)
        return cls(
            [Ticket(r.name, mask, dict(r.state), r.channels) for r, mask in rows],
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
            A set over the bare model's names; own state is each model's other buffers.

        Raises:
            NothingPrunable: a model carries no ``torch.nn.utils.prune`` mask.
            InvalidTicket: not a module, values other than 0 and 1, or models (or the uses of a tied
                parameter) that disagree.
        """
        named = models if isinstance(models, Mapping) else {name: models}
        return cls([Ticket(k, *torch_prune.read_masks(k, m)) for k, m in named.items()])

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
    def from_nni(cls, masks: Any, model: nn.Module, name: str = "pruned") -> "TicketSet":
        """Import mask dictionaries of NNI.

        Args:
            masks: module name -> target name -> tensor of zeros and ones (one ticket), or ticket
                name -> such a dictionary. A leading ``module.`` of module names is understood.
            model: the network they were made for, unwrapped.
            name: the ticket's name when one dictionary is given.

        Returns:
            A set over the masked parameters; own state is the model's buffers.

        Raises:
            StructureMismatch: a masked parameter is not in the model, or does not fit.
            InvalidTicket: values other than 0 and 1, nothing kept, or no mask dictionary.
        """
        read, state = nni_masks.read_nni_masks, persistent_buffers(model)
        found = nni_masks.masks_by_ticket(masks, name).items()
        tickets = [Ticket(key, read(key, mask, model), state) for key, mask in found]
        return cls(tickets, structure=model_structure(model))

    def to_nni(self, name: str) -> dict[str, dict[str, torch.Tensor]]:
        """One ticket as an NNI mask dictionary, for ``update_masks`` and the like.

        Args:
            name: which ticket.

        Returns:
            Module name -> target name -> float tensor of zeros and ones.

        Raises:
            UnknownTicket: no such ticket.
            CompactOnly: the masked network is not the small one.
        """
        self.check_maskable("NNI")
        return nni_masks.write_nni_masks(self[name].masks)

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
