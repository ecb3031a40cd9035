"""The fast strategies: sort the batch by ticket, pass it once, restore its order."""

import functools
import threading
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture.altered_samples import chosen_samples
from rtl_plugin.mixture.dispatch import Dispatch, dispatch, one_ticket_dispatch
from rtl_plugin.mixture.explanation import explained
from rtl_plugin.mixture.layer_choice import NETWORK, LayerChoice
from rtl_plugin.mixture.layout_probe import Pass, Plan, make_plan, sample_count
from rtl_plugin.mixture.masked_pass import LayoutChanged, MaskedPass
from rtl_plugin.mixture.masked_tensors import MaskedTensors
from rtl_plugin.mixture.plan_book import MAX_LOOKS, PlanBook
from rtl_plugin.mixture.reference import masked_copy
from rtl_plugin.mixture.replica import check_no_stored_references
from rtl_plugin.mixture.rows import Inputs, copied, join_rows
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.signature import Indescribable, close, signature
from rtl_plugin.mixture.workspace import ROOT, Workspace, outermost, owners, padding_encoders
from rtl_plugin.nested import tensors_in
from rtl_plugin.tickets import TicketSet

_WRITES = "the forward pass writes to its buffers, so every call gets its own"


class OnePassStrategy:
    """Runs layers without masks on the whole sorted batch and masked ones grouped by ticket.

    Outputs carry gradients to the inputs, not to weights: ``retrain`` trains. A write to a weight
    that leaves no trace is not seen: one through ``.data``, and a step of a fused optimizer outside
    ``retrain``. The first batch of every kind (shapes, dtypes, options) is preceded by a few passes
    of a few of its samples that find out where the samples are in every layer; forward hooks and
    other effects of a forward happen there too.

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
        self._plans = PlanBook()
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
        if not plan.one_pass:
            only = {"a pass a ticket": lambda given: self._loop(batch, given)}
            return self.choice.fastest((NETWORK, None), batch, only, inputs)
        ways = {"one pass": lambda given: batch.restored(self._one_pass(plan, batch, given))}
        if self.tensors.keeps(self.tensors.differing, active):
            # Else a pass a ticket would take a masked copy of the network where none is to be kept.
            ways["a pass a ticket"] = lambda given: self._loop(batch, given)
        try:
            kind = NETWORK, signature(inputs, batch.size)
            return self.choice.fastest(kind, batch, ways, inputs)
        except MaskBypassed as error:
            self._give_up(plan, inputs, batch.size, error)
            return self._loop(batch, batch.sorted((args, kwargs)))

    def plan(self, inputs: Inputs, size: int) -> Plan:
        """How this kind of input passes, found out when it is first seen.

        Args:
            inputs: args and kwargs of a batch.
            size: B, at least 1.

        Returns:
            A plan that agreed with a pass a ticket on a few samples.
        """
        try:
            key = signature(inputs, size), self.tensors.differing
        except Indescribable as error:
            return Plan((ROOT,), notes=(str(error),))
        plan = self._plans.get(key)
        if plan is None:
            plan = self._made_plan(inputs, size)
            self._plans.looked(key, plan)
        return plan

    def _give_up(self, plan: Plan, inputs: Inputs, size: int, error: MaskBypassed) -> None:
        """A batch did in the network what the samples that were looked at did not do."""
        key = signature(inputs, size), self.tensors.differing
        if self._plans.get(key) is plan:  # else the tickets changed meanwhile
            note = f"a later batch was not as the first ones: {error}"
            self._plans.keep(key, Plan((ROOT,), notes=(note,)))

    def export(self, ticket: str) -> nn.Module:
        """The network with one ticket's masks folded in, a snapshot in eval mode.

        Args:
            ticket: its name.
        """
        return masked_copy(self._model, self._tickets[ticket])

    def explain(self) -> str:
        """How batches are run, in words."""
        cached = self.tensors.cached_bytes()
        return explained(self.tensors.budget, cached, self.choice, self._plans.notes())

    def held_bytes(self) -> dict[str, int]:
        """What is kept between calls beside weights and tickets; scratch of this thread alone."""
        return {
            "masked copies": self.tensors.cached_bytes(),
            "own state": self.tensors.own_bytes(),
            "tables": self.tensors.table_bytes(),
            "masks for kernels": self.tensors.device_mask_bytes(),
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
            self._give_up(plan, (args, kwargs), size, error)
            return None

    def _made_plan(self, inputs: Inputs, size: int) -> Plan:
        if self._stateful:
            return Plan((ROOT,), notes=(_WRITES,))
        # What a forward keeps of these samples must not be met by the next batch.
        self._local.made = None
        try:
            plan = self._verified_plan(inputs, size)
        finally:
            self._local.made = None
        return Plan((ROOT,), notes=(_WRITES,)) if self._stateful else plan

    def _verified_plan(self, inputs: Inputs, size: int) -> Plan:
        plan = self._tracked_plan(inputs, size)
        if not plan.one_pass:
            return plan
        try:
            agree = self._agrees(plan, inputs, size)
            why = "one pass and a pass a ticket gave different outputs"
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            agree, why = False, f"one pass fails where a pass a ticket may not: {error}"
        if agree:
            return plan
        self.choice.layers.clear()  # they tell of a way that is not gone
        return Plan((ROOT,), notes=(*plan.notes, why))

    def _tracked_plan(self, inputs: Inputs, size: int) -> Plan:
        units = owners(self._model, self.tensors.differing)
        encoders = padding_encoders(self._model)
        inside = [e for e in encoders if any(unit.startswith(f"{e}.") for unit in units)]
        # A ticket may keep nothing of a layer, and then shows nothing of what is behind it.
        for ticket in self._tickets.names[:MAX_LOOKS]:
            record = functools.partial(self._recorded, ticket)
            plan = make_plan(record, outermost([*inside, *units]), inputs, size)
            if plan.final:
                break
        return plan

    def _agrees(self, plan: Plan, inputs: Inputs, size: int) -> bool:
        """Whether one pass gives what a pass a ticket gives, on a few samples."""
        samples = sample_count(inputs, size)
        few = chosen_samples(inputs, torch.arange(samples) % size, size)
        batch = dispatch(torch.arange(samples) % len(self._tickets), len(self._tickets))
        few = batch.sorted(few)
        # In the grad mode of the call: torch's encoders take another path under no_grad.
        one = batch.restored(self._one_pass(plan, batch, copied(few)))
        return close(one, self._loop(batch, few))

    def _recorded(self, ticket: str, units: tuple[str, ...], inputs: Inputs) -> Pass:
        runner = Runner(self._workspace(), self.tensors)
        seen = Pass(lambda path, forward, *given: runner.unit(path, ticket, forward, *given))
        with torch.no_grad():
            output, wrote = runner.passing(units, seen, *inputs)
        self._stateful = self._stateful or wrote
        seen.outputs[ROOT] = [list(tensors_in(output))]
        return seen

    def _one_pass(self, plan: Plan, batch: Dispatch, inputs: Inputs) -> Any:
        runner = Runner(self._workspace(), self.tensors)
        session = MaskedPass(runner, self._tickets.names, plan, batch, self.choice.run_layer)
        output, wrote = runner.passing(plan.units, session, *inputs)
        if wrote:
            self._stateful = True
            raise LayoutChanged(_WRITES)
        session.check_complete()
        return output

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
        # Its forward counts or averages: from now on every call has a workspace of its own.
        self._stateful = self._stateful or wrote
        return output

    def _workspace(self) -> Workspace:
        made: Workspace | None = getattr(self._local, "made", None)
        tensors, generation = self.tensors, self.tensors.generation
        if made is not None and not self._stateful and made.names == tensors.differing:
            if made.generation != generation:
                made.share(tensors.common(), generation)
            return made
        workspace = Workspace(self._model, tensors.differing)
        workspace.share(tensors.common(), generation)
        self._local.made = workspace
        return workspace
