"""One module that runs every sample of a batch through its own ticket."""

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.dense_network import DenseNetwork
from rtl_plugin.mixture.memory import Memory, memory_of
from rtl_plugin.mixture.mixture_file import load_mixture, save_mixture
from rtl_plugin.mixture.routed_call import RoutedCall, checked_fallback
from rtl_plugin.mixture.router_checks import check_router
from rtl_plugin.mixture.rows import copied
from rtl_plugin.mixture.strategies import Strategy, make_strategy
from rtl_plugin.mixture.structure_stamp import StructureStamp, structure_stamp
from rtl_plugin.mixture.ticket_choice import Tickets, is_one_ticket, ticket_indices, ticket_named
from rtl_plugin.routing import Router
from rtl_plugin.routing.contract import batch_size
from rtl_plugin.tickets import TicketSet


class _Served(NamedTuple):
    """What runs a network, and how the network was built then."""

    stamp: StructureStamp
    strategy: Strategy
    dense: DenseNetwork


class MixtureOfMasks(nn.Module):
    """Serves K tickets from one network; a batch may mix them.

    The mixture holds references: it sees later changes of the model's parameters and of the
    tickets' state. It runs in eval mode on a replica that shares the model's storage, so running
    it never touches the user's model, and there is no active ticket: threads may share a mixture.
    ``to()`` and the like move or convert the model that it serves; copying or pickling a mixture
    copies model and tickets too.

    Args:
        model: the network.
        tickets: its tickets.
        router: decides where a call names no tickets; see :class:`rtl_plugin.Router`.
        strategy: how batches are run. ``"auto"`` sorts a batch by ticket, passes it once and times
            the ways to run a layer; for channel tickets it is ``"compact"``, which runs their small
            networks. ``"slices"``, ``"grouped"``, ``"cached"``, ``"scratch"`` and ``"dense"`` force
            one way (see the guide), ``"reference"`` is the slow one that all are held against.
        budget: bytes of masked weights that are kept between calls. None keeps those of all tickets
            on a CPU and none on a GPU; 0 masks at every call, so that memory is one network and
            one bit a weight and ticket.
        fallback: where samples go that the router says no ticket knows: a ticket's name, or
            ``"dense"`` for the unmasked network. None where the router never says so.

    Raises:
        StructureMismatch: the tickets do not fit the model.
        InvalidArgument: the strategy or the router is none, the router knows other tickets, the
            model cannot be copied, compact is asked of tickets that are no channel tickets, or the
            budget is no number of bytes or contradicts the strategy.
        MaskBypassed: the model keeps a masked parameter in a second place.
        CompactOnly: the reference is asked of channel tickets whose masked networks compute
            something else than the small ones.

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
        budget: int | None = None,
        fallback: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not isinstance(tickets, TicketSet):
            raise InvalidArgument(
                "a mixture takes an nn.Module and a TicketSet, in this order, got "
                f"{type(model).__name__} and {type(tickets).__name__}"
            )
        check_router(router, tickets)
        tickets.check_fits(model)
        lean = tickets.packed()
        # Not registered as a submodule: eval() of the mixture must not change the user's model.
        self._held = (model, lean, router)
        self._asked = (strategy, budget, checked_fallback(fallback, lean))
        self._lock = threading.Lock()
        self._served = self._made(structure_stamp(model))
        self.training = False

    def _made(self, stamp: StructureStamp) -> _Served:
        model, tickets, _ = self._held
        strategy, budget, _ = self._asked
        return _Served(stamp, make_strategy(strategy, model, tickets, budget), DenseNetwork(model))

    def _serving(self) -> _Served:
        """What runs the network as it is built now: modules may be exchanged, or moved."""
        stamp = structure_stamp(self.model)
        if not stamp.same(self._served.stamp):
            with self._lock:
                if not stamp.same(self._served.stamp):
                    self.tickets.check_fits(self.model)
                    self._served = self._made(stamp)
        return self._served

    @property
    def _strategy(self) -> Strategy:
        return self._serving().strategy

    @property
    def model(self) -> nn.Module:
        """The network that is served."""
        return self._held[0]

    @property
    def tickets(self) -> TicketSet:
        """The tickets that are served, with masks at one bit a weight."""
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

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (*self._held, *self._asked))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "MixtureOfMasks":
        # to(), half() and the like speak of the network's tensors; it has no others.
        self.model._apply(fn, recurse)
        return self

    def forward(
        self, *inputs: Any, tickets: Tickets = None, context: Any = None, **kwargs: Any
    ) -> Any:
        """Run a batch, every sample through its own ticket.

        Args:
            inputs: the network's inputs. The first tensor (of ``kwargs``, where there are no
                others) is batch first where the batch is mixed; every tensor whose first
                dimension is B too is split alike, and others pass whole. So an unbatched table
                must not have B rows: give it a leading dimension of 1.
            tickets: one name (or index) for the batch, or B names, or an integer tensor [B]. None
                lets the router decide.
            context: for the router; never reaches the network.
            kwargs: further inputs, treated alike.

        Returns:
            The network's output, rows in the order of the input.

        Raises:
            UnknownTicket: a name or index is not in the set.
            InvalidArgument: neither tickets nor a router are given, both tickets and context are,
                the number of tickets is not the batch size, or an output of a mixed batch is not
                batch first.
        """
        if tickets is None:
            serving, router, fallback = self._serving(), self._held[2], self._asked[2]
            call = RoutedCall(serving.strategy, self.tickets, router, fallback, serving.dense)
            return call.run((inputs, kwargs), context)
        if context is not None:
            raise InvalidArgument(
                "tickets= leaves a router nothing to decide, so context= would be ignored: give "
                "one of the two; an input of the network of that name goes in by position"
            )
        if is_one_ticket(tickets):
            return self._strategy.run(ticket_named(self.tickets, tickets), inputs, kwargs)
        size = batch_size((inputs, kwargs))
        indices = ticket_indices(self.tickets, tickets, size)
        return self._strategy.run_mixed(indices, inputs, kwargs)

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
        strategy, inputs = self._strategy, ((x, *args), kwargs)
        columns = [strategy.run(name, *copied(inputs)) for name in self.tickets]
        size = batch_size(x)
        for name, column in zip(self.tickets, columns, strict=True):
            if not isinstance(column, torch.Tensor) or column.numel() != size:
                alone = isinstance(column, torch.Tensor)
                came = tuple(column.shape) if alone else f"a {type(column).__name__}"
                raise InvalidArgument(
                    f"one-vs-rest scoring needs one logit a sample; ticket {name!r} gave {came} "
                    f"for {size} samples"
                )
        return torch.stack([column.reshape(size) for column in columns], dim=1)

    def export(self, name: str) -> nn.Module:
        """One ticket as an ordinary module of the user's class.

        Masks are folded in; under the strategy compact it is the small network.

        Args:
            name: which ticket.

        Returns:
            A snapshot in eval mode that shares nothing with the mixture.

        Raises:
            UnknownTicket: there is no such ticket.
        """
        return self._strategy.export(ticket_named(self.tickets, name))

    def explain(self, *inputs: Any, **kwargs: Any) -> str:
        """How batches are run and why, in words.

        Args:
            inputs: an example batch; it is run once, with tickets in turn. Without one, what was
                seen so far is told.
            kwargs: further inputs of the network.

        Returns:
            A text to print: where weights come from, what runs once a batch and what once a ticket,
            and for every layer with masks the way it runs and why.
        """
        if inputs or kwargs:
            size = batch_size((inputs, kwargs))
            turns = torch.arange(size) % len(self.tickets)
            with torch.no_grad():
                self._strategy.run_mixed(turns, inputs, kwargs)
        head = f"{type(self.model).__name__} with {len(self.tickets)} tickets, strategy "
        return f"{head}{self._strategy.name}: {self._strategy.explain()}"

    def memory(self) -> Memory:
        """Bytes by part: what one network, its tickets and what is kept between calls take."""
        return memory_of(self.model, self.tickets, self._strategy)

    def save(self, path: str | os.PathLike[str], router: bool = True) -> None:
        """Write shared weights, tickets and router to one file, without pickle.

        Args:
            path: the file; written atomically.
            router: False leaves the router out.

        Raises:
            InvalidArgument: the router cannot be written without pickle.
            OSError: the folder cannot be written.
        """
        save_mixture(path, self.model, self.tickets, self._held[2] if router else None)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nn.Module,
        router: Router | None = None,
        strategy: str = "auto",
        budget: int | None = None,
        fallback: str | None = None,
    ) -> "MixtureOfMasks":
        """Read a mixture file into a copy of a model.

        Args:
            path: a file of :meth:`save`.
            model: a network of the same structure, with any weights; left as it is.
            router: as for the constructor; None takes the one in the file. A router with networks
                of its own (or a function) is needed as a skeleton into which the file is read.
            strategy: as for the constructor.
            budget: as for the constructor.
            fallback: as for the constructor.

        Returns:
            The mixture.

        Raises:
            MissingFile: there is no such file, or the path is a folder.
            DamagedFile: it is damaged, foreign, or of an unknown version.
            StructureMismatch: it belongs to a network of another structure.
        """
        return cls(*load_mixture(path, model, router), strategy, budget, fallback)
