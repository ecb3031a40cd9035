"""The fast strategies: sort the batch by ticket, pass it once, restore its order."""

import threading
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture.dispatch import Dispatch, dispatch, one_ticket_dispatch
from rtl_plugin.mixture.explanation import explained
from rtl_plugin.mixture.layer_choice import NETWORK, LayerChoice
from rtl_plugin.mixture.layout_probe import SAMPLES, Inputs, Pass, Plan, make_plan
from rtl_plugin.mixture.masked_pass import MaskedPass
from rtl_plugin.mixture.masked_tensors import MaskedTensors
from rtl_plugin.mixture.reference import masked_copy
from rtl_plugin.mixture.replica import check_no_stored_references
from rtl_plugin.mixture.rows import join_rows, take_rows
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.signature import close, signature
from rtl_plugin.mixture.workspace import ROOT, Session, Workspace, owners
from rtl_plugin.nested import tensors_in
from rtl_plugin.tickets import TicketSet

MAX_PLANS = 1024  # a server that sees every length of text would otherwise keep plans for ever
_WRITES = "the forward pass writes to its buffers, so every call gets its own"


class OnePassStrategy:
    """Runs layers without masks on the whole sorted batch and masked ones grouped by ticket.

    Outputs carry gradients to the inputs, not to weights: ``retrain`` trains. A write to a weight
    that leaves no trace is not seen: one through ``.data``, and a step of a fused optimizer outside
    ``retrain``. The first batch of every kind (shapes, dtypes, options) is preceded by a few passes
    of three samples that find out where the samples are in every layer.

    Args:
        model: the network whose present parameters are used at every call.
        tickets: packed tickets, whose present state is used at every call.
        choice: how layers are run.
        budget: bytes of masked copies that are kept, None for no limit.

    Raises:
        CompactOnly: masked networks are not the small ones.
        MaskBypassed: the model keeps a masked parameter in a second place.
        InvalidArgument: the model cannot be copied.
    """

    def __init__(
        self, model: nn.Module, tickets: TicketSet, choice: LayerChoice, budget: int | None
    ) -> None:
        tickets.check_maskable(f"strategy={choice.name!r}")
        check_no_stored_references(model, tickets.shapes)
        self.name = choice.name
        self._model, self._tickets, self.choice = model, tickets, choice
        self.tensors = MaskedTensors(model, tickets, budget)
        self._plans: dict[Any, Plan] = {}
        self._fallbacks: dict[str, int] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._stateful = False
        self.tensors.begin_run(tickets)
        self._workspace()

    def run(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network under one ticket.

        Args:
            ticket: its name.
            args: of the network's forward.
            kwargs: of the network's forward.

        Returns:
            The network's output.
        """
        self.tensors.begin_run([ticket])
        if not self.tensors.keeps(self.tensors.differing, [ticket]):
            # Masking the whole network would take a copy of it; layer by layer it takes a layer.
            output = self._layer_by_layer(ticket, args, kwargs)
            if output is not None:
                return output[0]
        return self._whole(ticket, args, kwargs)

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

        Raises:
            InvalidArgument: an output is not batch first.
        """
        names = self._tickets.names
        batch = dispatch(indices, len(names))
        if batch.size == 0:
            return self.run(names[0], args, kwargs)
        if batch.on_host and len(batch.spans) == 1:
            return self.run(names[batch.spans[0].ticket], args, kwargs)
        active = [names[span.ticket] for span in batch.spans] if batch.on_host else names
        self.tensors.begin_run(active)
        inputs: Inputs = batch.sorted((args, kwargs))
        plan = self.plan(inputs, batch.size)
        ways = {"a pass a ticket": lambda: self._loop(batch, inputs)}
        if plan.one_pass:
            one_pass = {"one pass": lambda: batch.restored(self._one_pass(plan, batch, inputs))}
            ways = one_pass | ways
        try:
            return self.choice.fastest((NETWORK, signature(inputs, batch.size)), batch, ways)
        except MaskBypassed as error:
            self._fell_back(error)
            return self._loop(batch, inputs)

    def plan(self, inputs: Inputs, size: int) -> Plan:
        """How this kind of input passes, found out when it is first seen.

        Args:
            inputs: args and kwargs of a batch.
            size: B, at least 1.

        Returns:
            A plan that agreed with a pass a ticket on a few samples.
        """
        key = signature(inputs, size), self.tensors.differing
        plan = self._plans.get(key)
        if plan is None:
            plan = self._made_plan(inputs, size)
            self._workspace().scratch.free()  # the probe runs units that batches run otherwise
            with self._lock:
                if len(self._plans) >= MAX_PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        return plan

    def export(self, ticket: str) -> nn.Module:
        """The network with one ticket's masks folded in, a snapshot in eval mode.

        Args:
            ticket: its name.
        """
        return masked_copy(self._model, self._tickets[ticket])

    def explain(self) -> str:
        """How batches are run, in words."""
        notes = list(dict.fromkeys(note for plan in self._plans.values() for note in plan.notes))
        notes += [f"{n} batches passed once a ticket: {why}" for why, n in self._fallbacks.items()]
        return explained(self.tensors.budget, self.tensors.cached_bytes(), self.choice, notes)

    def held_bytes(self) -> dict[str, int]:
        """What is kept between calls beside weights and tickets; scratch of this thread alone."""
        return {
            "masked copies": self.tensors.cached_bytes(),
            "own state": self.tensors.own_bytes(),
            "scratch": self._workspace().scratch.nbytes,
        }

    def _layer_by_layer(
        self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any] | None:
        """One ticket through the units of a plan; None where the input is no batch."""
        first = next(tensors_in((args, kwargs)), None)
        if first is None or first.dim() == 0 or first.shape[0] == 0:
            return None
        names, size = self._tickets.names, first.shape[0]
        plan = self.plan((args, kwargs), size)
        if not plan.one_pass:
            return None
        batch = one_ticket_dispatch(names.index(ticket), len(names), size, first.device)
        try:
            return (self._one_pass(plan, batch, (args, kwargs)),)
        except MaskBypassed as error:
            self._fell_back(error)
            return None

    def _fell_back(self, error: MaskBypassed) -> None:
        """Note that a batch did in the network what the samples that were looked at did not do."""
        with self._lock:
            self._fallbacks[str(error)] = self._fallbacks.get(str(error), 0) + 1

    def _made_plan(self, inputs: Inputs, size: int) -> Plan:
        plan = Plan((ROOT,), notes=(_WRITES,))
        if not self._stateful:
            units = owners(self._model, self.tensors.differing)
            plan = make_plan(self._recorded, units, inputs, size)
        if self._stateful:
            return Plan((ROOT,), notes=(_WRITES,))
        return (
            plan
            if not plan.one_pass or self._agrees(plan, inputs, size)
            else Plan(
                (ROOT,), notes=(*plan.notes, "one pass and a pass a ticket gave different outputs")
            )
        )

    def _agrees(self, plan: Plan, inputs: Inputs, size: int) -> bool:
        """Whether one pass gives what a pass a ticket gives, on a few samples."""
        few = take_rows(inputs, torch.arange(SAMPLES) % size, size)
        batch = dispatch(torch.arange(SAMPLES) % len(self._tickets), len(self._tickets))
        few = batch.sorted(few)
        with torch.no_grad():
            one = batch.restored(self._one_pass(plan, batch, few))
            return close(one, self._loop(batch, few))

    def _recorded(self, units: tuple[str, ...], inputs: Inputs) -> Pass:
        workspace, ticket = self._workspace(), self._tickets.names[0]
        runner = Runner(workspace, self.tensors)
        seen = Pass(lambda path, forward, *given: runner.unit(path, ticket, forward, *given))
        with torch.no_grad():
            output, wrote = runner.passing(units, seen, *inputs)
        if wrote:
            self._stateful = True
            self.tensors.forget()
        seen.outputs[ROOT] = [list(tensors_in(output))]
        return seen

    def _one_pass(self, plan: Plan, batch: Dispatch, inputs: Inputs) -> Any:
        runner = Runner(self._workspace(), self.tensors)
        names = self._tickets.names
        session: Session = MaskedPass(runner, names, plan, batch, self.choice.run_layer)
        return runner.passing(plan.units, session, *inputs)[0]

    def _loop(self, batch: Dispatch, inputs: Inputs) -> Any:
        parts, rows = [], []
        order = torch.arange(batch.size) if batch.order is None else batch.order
        for ticket, start, stop in batch.spans:
            args, kwargs = batch.part(inputs, start, stop)
            parts.append(self._whole(self._tickets.names[ticket], args, kwargs))
            rows.append(order[start:stop])
        return join_rows(parts, rows, batch.size)

    def _whole(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        runner = Runner(self._workspace(), self.tensors)
        output, wrote = runner.whole(ticket, args, kwargs)
        if wrote:
            # Its forward counts or averages: what it wrote to must reach no other call.
            self._stateful = True
            self.tensors.forget()
        return output

    def _workspace(self) -> Workspace:
        made: tuple[Any, Workspace] | None = getattr(self._local, "made", None)
        tensors = self.tensors
        if made is not None and not self._stateful:
            (generation, differing), workspace = made
            if differing == tensors.differing:
                if generation != tensors.generation:
                    workspace.share(tensors.common())
                    self._local.made = ((tensors.generation, differing), workspace)
                return workspace
        key = tensors.generation, tensors.differing
        workspace = Workspace(self._model, tensors.differing, tensors.common())
        self._local.made = (key, workspace)
        return workspace
