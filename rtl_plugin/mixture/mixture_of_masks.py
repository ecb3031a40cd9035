"""One module that runs every sample of a batch through its own ticket."""

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin import ticket_file
from rtl_plugin.errors import InvalidArgument, StructureMismatch, UnknownTicket
from rtl_plugin.mixture.reference import ReferenceStrategy, ticket_tensors
from rtl_plugin.mixture.rows import batch_size, join_rows, take_rows
from rtl_plugin.nested import map_tensors, tensors_in
from rtl_plugin.routing import Router, RoutingDecision
from rtl_plugin.structure import install_state, persistent_buffers
from rtl_plugin.tickets import TicketSet

_STRATEGIES = {"reference": ReferenceStrategy}
Tickets = str | int | Sequence[str] | torch.Tensor | None


class MixtureOfMasks(nn.Module):
    """Serves K tickets from one network; a batch may mix them.

    The mixture holds references: it sees later changes of the model's parameters and of the
    tickets' state. It runs in eval mode on a replica that shares the model's storage, so the
    user's model is never touched, and there is no active ticket: threads may share a mixture.

    Args:
        model: the network.
        tickets: its tickets.
        router: decides where a call names no tickets; see :class:`rtl_plugin.Router`.
        strategy: ``"auto"`` or ``"reference"``; auto is the reference.

    Raises:
        StructureMismatch: the tickets do not fit the model.
        InvalidArgument: the strategy or the router is none, or the model cannot be copied.

    Example:
        >>> from rtl_plugin import Ticket
        >>> model = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> tickets = TicketSet(
        ...     [
        ...         Ticket("left", {"weight": torch.tensor([[True, False]])}),
        ...         Ticket("both", {"weight": torch.tensor([[True, True]])}),
        ...     ]
        ... )
        >>> mixture = MixtureOfMasks(model, tickets)
        >>> x = torch.tensor([[1.0, 10.0], [1.0, 10.0]])
        >>> mixture(x, tickets=["both", "left"]).flatten().tolist()
        [11.0, 1.0]

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, inference.
    """

    def __init__(
        self,
        model: nn.Module,
        tickets: TicketSet,
        router: Router | None = None,
        strategy: str = "auto",
    ) -> None:
        super().__init__()
        if strategy != "auto" and strategy not in _STRATEGIES:
            raise InvalidArgument(
                f"unknown strategy {strategy!r}: one of auto, {', '.join(_STRATEGIES)}"
            )
        if router is not None and not isinstance(router, Router):
            raise InvalidArgument(
                f"router must have route(x, context), {type(router).__name__} has none"
            )
        tickets.check_fits(model)
        # Not registered as a submodule: eval() of the mixture must not change the user's model.
        self._held = (model, tickets, router)
        self._strategy = _STRATEGIES["reference" if strategy == "auto" else strategy](
            model, tickets
        )
        self.training = False

    @property
    def model(self) -> nn.Module:
        """The network that is served."""
        return self._held[0]

    @property
    def tickets(self) -> TicketSet:
        """The tickets that are served."""
        return self._held[1]

    def train(self, mode: bool = True) -> "MixtureOfMasks":
        """Stay in eval mode.

        Raises:
            InvalidArgument: ``mode`` is True: a mixture serves, ``rtl_plugin.retrain`` trains.
        """
        if mode:
            raise InvalidArgument(
                "a mixture serves in eval mode only: train tickets with rtl_plugin.retrain"
            )
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "MixtureOfMasks":
        # to(), half() and the like speak of the network's tensors, which it owns.
        self.model._apply(fn, recurse)
        return self

    def forward(
        self, x: Any, *args: Any, tickets: Tickets = None, context: Any = None, **kwargs: Any
    ) -> Any:
        """Run a batch, every sample through its own ticket.

        Args:
            x: the network's first input, batch first where the batch is mixed.
            args: further inputs; tensors whose first dimension is B are split alike.
            tickets: one name (or index) for the batch, or B names, or an integer tensor [B]. None
                lets the router decide.
            context: for the router.
            kwargs: further inputs, as ``args``.

        Returns:
            The network's output, rows in the order of the input.

        Raises:
            UnknownTicket: a name or index is not in the set.
            InvalidArgument: neither tickets nor a router are given, the number of tickets is not
                the batch size, or an output of a mixed batch is not batch first.
        """
        inputs = (x, *args)
        if isinstance(tickets, (str, int)):
            return self._strategy.run(self._name(tickets), inputs, kwargs)
        if tickets is None:
            return self._routed(self._decision(x, context), inputs, kwargs)
        size = batch_size(x)
        indices = self._indices(tickets, size)
        return self._mixed(indices, inputs, kwargs, size)

    def one_vs_rest(self, x: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Score every sample under every ticket, for tickets that are binary detectors.

        Args:
            x: the network's first input, batch first.
            args: further inputs.
            kwargs: further inputs.

        Returns:
            Tensor [B, K], column k from ticket k.

        Raises:
            InvalidArgument: an output is not one value a sample.
        """
        columns = [self._strategy.run(name, (x, *args), kwargs) for name in self.tickets]
        size = batch_size(x)
        for name, column in zip(self.tickets, columns, strict=True):
            if not isinstance(column, torch.Tensor) or column.numel() != size:
                came = tuple(column.shape) if isinstance(column, torch.Tensor) else type(column)
                raise InvalidArgument(
                    f"one-vs-rest scoring needs one logit a sample; ticket {name!r} gave {came} "
                    f"for {size} samples"
                )
        return torch.stack([column.reshape(size) for column in columns], dim=1)

    def export(self, name: str) -> nn.Module:
        """One ticket as an ordinary module of the user's class, masks folded in.

        Args:
            name: which ticket.

        Returns:
            A snapshot in eval mode that shares nothing with the mixture.

        Raises:
            UnknownTicket: there is no such ticket.
        """
        parameters, buffers = ticket_tensors(self.model, self.tickets[self._name(name)])
        plain = copy.deepcopy(self.model)
        install_state(plain, {**{n: p.detach() for n, p in parameters.items()}, **buffers})
        return plain.eval()

    def explain(self, x: Any = None) -> str:
        """How batches are run, in words.

        Args:
            x: an example input; unused by the reference.
        """
        return (
            f"{type(self.model).__name__} with {len(self.tickets)} tickets, strategy "
            f"{self._strategy.name}: one pass a distinct ticket in the batch, weights masked at "
            "every call; cost grows with the number of distinct tickets"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write shared weights and tickets to one file, without pickle.

        Args:
            path: the file; written atomically. The router is not saved.

        Raises:
            OSError: the folder cannot be written.
        """
        weights = {n: p.detach() for n, p in self.model.named_parameters()}
        weights |= persistent_buffers(self.model)
        ticket_file.save(path, self.tickets.to_file(weights), kind="mixture")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nn.Module,
        router: Router | None = None,
        strategy: str = "auto",
    ) -> "MixtureOfMasks":
        """Read a mixture file into a copy of a model.

        Args:
            path: a file of :meth:`save`.
            model: a network of the same structure, with any weights; left as it is.
            router: as for the constructor.
            strategy: as for the constructor.

        Returns:
            The mixture.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFile: it is damaged, foreign, or of an unknown version.
            StructureMismatch: it belongs to a network of another structure.
        """
        content = ticket_file.load(path, kind="mixture")
        tickets = TicketSet.from_file(content)
        tickets.check_fits(model)
        own = {**dict(model.named_parameters()), **persistent_buffers(model)}
        for name in sorted(own.keys() ^ content.weights.keys()):
            raise StructureMismatch(f"{path}: {name!r} is not in both the file and the model")
        for name, value in content.weights.items():
            if own[name].shape != value.shape:
                raise StructureMismatch(f"{path}: {name!r} has another shape in the model")
        served = copy.deepcopy(model)
        install_state(served, content.weights)
        return cls(served, tickets, router, strategy)

    def _name(self, ticket: str | int) -> str:
        names = self.tickets.names
        if isinstance(ticket, str):
            return self.tickets[ticket].name
        if not 0 <= ticket < len(names):
            raise UnknownTicket(f"ticket index {ticket} is not in 0..{len(names) - 1}")
        return names[ticket]

    def _indices(self, tickets: Sequence[str] | torch.Tensor, size: int) -> torch.Tensor:
        if isinstance(tickets, torch.Tensor):
            indices = RoutingDecision(indices=tickets).indices
            assert indices is not None  # noqa: S101 - it was just given
        else:
            position = {name: k for k, name in enumerate(self.tickets)}
            indices = torch.tensor([position[self._name(t)] for t in tickets], dtype=torch.long)
        if indices.numel() != size:
            raise InvalidArgument(f"{indices.numel()} tickets for a batch of {size} samples")
        if size:
            self._name(int(indices.min()))
            self._name(int(indices.max()))
        return indices

    def _decision(self, x: Any, context: Any) -> RoutingDecision:
        router = self._held[2]
        if router is None:
            raise InvalidArgument(
                "say which tickets: mixture(x, tickets=...), or give the mixture a router"
            )
        decision = router.route(x, context)
        size = batch_size(x)
        if decision.batch_size != size:
            raise InvalidArgument(
                f"{type(router).__name__} decided on {decision.batch_size} of {size} samples"
            )
        return decision

    def _routed(
        self, decision: RoutingDecision, inputs: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if decision.indices is not None:
            size = decision.batch_size
            return self._mixed(self._indices(decision.indices, size), inputs, kwargs, size)
        assert decision.weights is not None  # noqa: S101 - a decision holds one of the two
        if decision.weights.shape[1] != len(self.tickets):
            raise InvalidArgument(
                f"routing weights have {decision.weights.shape[1]} columns for "
                f"{len(self.tickets)} tickets"
            )
        outputs = [self._strategy.run(name, inputs, kwargs) for name in self.tickets]
        return _weighted(outputs, decision.weights)

    def _mixed(
        self, indices: torch.Tensor, inputs: tuple[Any, ...], kwargs: dict[str, Any], size: int
    ) -> Any:
        if size == 0:
            return self._strategy.run(self.tickets.names[0], inputs, kwargs)
        parts, rows = [], []
        for index in indices.unique().tolist():
            chosen = (indices == index).nonzero().reshape(-1)
            args, options = take_rows((inputs, kwargs), chosen, size)
            parts.append(self._strategy.run(self.tickets.names[index], args, options))
            rows.append(chosen)
        return join_rows(parts, rows, size)


def _weighted(outputs: Sequence[Any], weights: torch.Tensor) -> Any:
    streams = [tensors_in(output) for output in outputs]

    def mix(_: torch.Tensor) -> torch.Tensor:
        pieces = torch.stack([next(stream) for stream in streams])  # [K, B, ...]
        shape = (*weights.T.shape, *(1,) * (pieces.dim() - 2))
        return (pieces * weights.T.reshape(shape).to(pieces)).sum(dim=0)

    return map_tensors(mix, outputs[0])
