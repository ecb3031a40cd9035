"""Run a network, or one module of it, under one ticket."""

from dataclasses import dataclass
from typing import Any

import torch

from rtl_plugin.mixture.guarded_tensor import GuardedTensor
from rtl_plugin.mixture.masked_tensors import MaskedTensors
from rtl_plugin.mixture.versions import version
from rtl_plugin.mixture.workspace import ROOT, Forward, Session, Workspace
from rtl_plugin.nested import tensors_in


class Runner:
    """One thread's workspace and the tensors that all threads share.

    Args:
        workspace: the thread's own.
        tensors: of all tickets.
    """

    def __init__(self, workspace: Workspace, tensors: MaskedTensors) -> None:
        self.workspace, self.tensors = workspace, tensors

    def unit(
        self, path: str, ticket: str, forward: Forward, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        """Run one module under a ticket.

        Args:
            path: its name.
            ticket: the ticket's name.
            forward: its original forward.
            args: of that.
            kwargs: of that.

        Returns:
            The module's output.
        """
        workspace, outer = self.workspace, self.workspace.session
        names = workspace.names_in(path)
        # A graph for gradients keeps the weights, so the next ticket may not write over them; nor
        # may a unit inside a unit.
        inside = isinstance(outer, _UnderOneTicket)
        scratch = None if inside or _needs_graph(args, kwargs) else workspace.scratch
        workspace.install(path, names, self.tensors.take(ticket, names, scratch))
        workspace.session = _UnderOneTicket(self, ticket)
        try:
            return forward(*args, **kwargs)
        finally:
            workspace.session = outer
            workspace.clear(path)

    def whole(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool]:
        """Run the network under a ticket.

        Args:
            ticket: the ticket's name.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output, and whether the forward pass wrote to a buffer.
        """
        names = self.workspace.names_in(ROOT)
        scratch = None if _needs_graph(args, kwargs) else self.workspace.scratch
        self.workspace.install(ROOT, names, self.tensors.take(ticket, names, scratch))
        return self.passing((), None, args, kwargs)

    def passing(
        self,
        units: tuple[str, ...],
        session: Session | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, bool]:
        """Run the network while a session runs its units.

        Args:
            units: modules that ask the session.
            session: runs them; None where a ticket is installed already.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output, and whether the forward pass wrote to a buffer.
        """
        workspace = self.workspace
        before = _versions(workspace)
        try:
            if session is not None:
                workspace.use_units(units)
                workspace.session = session
            # With gradients on, torch does not take the fused path for weights that want some.
            workspace.allow_fused(not torch.is_grad_enabled())
            output = workspace.replica(*args, **kwargs)
            return output, before != _versions(workspace)
        finally:
            workspace.session = None
            workspace.clear(ROOT)


@dataclass(frozen=True)
class _UnderOneTicket:
    """The session inside a unit: a layer that is used there too runs under the unit's ticket."""

    runner: Runner
    ticket: str

    def unit(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a unit under the ticket of the unit around it."""
        return self.runner.unit(path, self.ticket, forward, args, kwargs)


def _versions(workspace: Workspace) -> list[tuple[int, tuple[int, int]]]:
    return [(id(b), version(b)) for b in workspace.buffers() if type(b) is not GuardedTensor]


def _needs_graph(args: tuple[Any, ...], kwargs: Any) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors_in((args, kwargs)))
