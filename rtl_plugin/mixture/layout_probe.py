"""Find out where the samples of a batch are in every layer, with a handful of samples."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture.guarded_tensor import GuardedRead
from rtl_plugin.mixture.layouts import Layout, Layouts, fitted
from rtl_plugin.mixture.poison import changed_rows, poisoned
from rtl_plugin.mixture.rows import take_rows
from rtl_plugin.mixture.workspace import ROOT, Forward, outermost
from rtl_plugin.nested import tensors_in

SAMPLES = 3  # with two, rows in reversed order could pass for position-major ones
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class Untracked(MaskBypassed):
    """No layout explains which rows of a layer belong to which sample."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path or 'the network'}: {why}")
        self.path = path


@dataclass(frozen=True)
class Call:
    """Layouts of the tensors that go into and come out of one call of one unit."""

    inputs: Layouts
    outputs: Layouts


@dataclass(frozen=True)
class Plan:
    """How one kind of input passes through a network.

    Args:
        units: modules that run grouped by ticket; ``("",)`` is the loop over tickets.
        calls: unit -> layouts of its calls, in order.
        notes: why a unit is larger than the layer that holds the tensors.
    """

    units: tuple[str, ...]
    calls: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def one_pass(self) -> bool:
        """Whether the batch passes once, and not once a ticket."""
        return self.units != (ROOT,)


@dataclass
class Pass:
    """What was seen of one pass: a session that records tensors of every call of every unit."""

    run_unit: Callable[..., Any]
    inputs: dict[str, list[list[torch.Tensor]]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[str, list[list[torch.Tensor]]] = field(default_factory=lambda: defaultdict(list))

    def unit(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a unit under some ticket, and keep what went in and came out."""
        self.inputs[path].append(list(tensors_in((args, kwargs))))
        output = self.run_unit(path, forward, args, kwargs)
        self.outputs[path].append(list(tensors_in(output)))
        return output


RunPass = Callable[[tuple[str, ...], Inputs], Pass]  # the network's outputs are those of ROOT


def make_plan(run: RunPass, units: tuple[str, ...], inputs: Inputs, size: int) -> Plan:
    """Track the samples of a batch through a network, in larger units where it takes them.

    One sample after the other is poisoned with NaN (or, where it is made of integers, changed), and
    the rows that it reaches are its own. A layer whose rows cannot be told apart, or whose weight
    is read from outside, gives way to the module that contains it, at last to the whole network.

    Args:
        run: passes inputs through the network with these units, under one ticket.
        units: modules that hold tickets' tensors.
        inputs: args and kwargs of a real batch; a few of its samples are used.
        size: B, at least 1.

    Returns:
        A plan whose units each see rows that belong to one sample.
    """
    notes: list[str] = []
    while units != (ROOT,):
        try:
            return Plan(units, _tracked(run, units, inputs, size), tuple(notes))
        except GuardedRead as read:
            units, note = _widened(units, read.name.rpartition(".")[0], str(read))
        except Untracked as refused:
            units, note = _widened(units, refused.path, str(refused))
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything on NaN
            first = (str(error).splitlines() or [""])[0]
            note = f"the network does not run on poisoned samples: {type(error).__name__}: {first}"
            units = (ROOT,)
        notes.append(note)
    return Plan(units, {}, tuple(notes))


def _widened(units: tuple[str, ...], path: str, why: str) -> tuple[tuple[str, ...], str]:
    unit = next((u for u in units if path == u or path.startswith(f"{u}.")), ROOT)
    parent = unit.rpartition(".")[0]
    return outermost([parent, *units]), f"{why}; so {parent or 'the network'} runs once a ticket"


def _tracked(
    run: RunPass, units: tuple[str, ...], inputs: Inputs, size: int
) -> dict[str, tuple[Call, ...]]:
    rows = torch.arange(SAMPLES + 1) % size
    few = take_rows(inputs, rows[:SAMPLES], size)
    base, longer = run(units, few), run(units, take_rows(inputs, rows, size))
    changed = [run(units, poisoned(few, sample, SAMPLES)) for sample in range(SAMPLES)]
    passes = [base, longer, *changed]
    for layout in _layouts(ROOT, "an output", [p.outputs[ROOT][0] for p in passes]):
        if layout is None or layout != Layout(0):
            raise Untracked(ROOT, "an output does not have one row a sample along dimension 0")
    calls = {}
    for path in units:
        counts = {len(seen.inputs[path]) for seen in passes}
        if len(counts) > 1:
            raise Untracked(path, "how often it is called depends on the samples")
        calls[path] = tuple(_call(path, k, passes) for k in range(counts.pop()))
    return calls


def _call(path: str, k: int, passes: Sequence[Pass]) -> Call:
    inputs = _layouts(path, "an input", [seen.inputs[path][k] for seen in passes])
    outputs = _layouts(path, "an output", [seen.outputs[path][k] for seen in passes])
    if all(layout is None for layout in inputs):
        raise Untracked(path, "it is called without a batch")
    if None in outputs or not outputs:
        raise Untracked(path, "an output has no rows of single samples")
    return Call(inputs, outputs)


def _layouts(path: str, what: str, seen: Sequence[list[torch.Tensor]]) -> Layouts:
    """Layouts of the tensors at one place, from the same place of all passes."""
    if len({len(tensors) for tensors in seen}) > 1:
        raise Untracked(path, f"the number of tensors in {what} depends on the samples")
    return tuple(_layout(path, what, column) for column in zip(*seen, strict=True))


def _layout(path: str, what: str, column: Sequence[torch.Tensor]) -> Layout | None:
    base, longer, *changed = column
    if base.dim() != longer.dim() or any(tensor.shape != base.shape for tensor in changed):
        raise Untracked(path, f"the shape of {what} depends on the samples")
    pairs = enumerate(zip(base.shape, longer.shape, strict=True))
    growing = [axis for axis, (few, more) in pairs if few != more]
    if not growing:
        if any(bool(changed_rows(base, tensor, None).any()) for tensor in changed):
            raise Untracked(path, f"{what} of shape {tuple(base.shape)} mixes samples")
        return None
    axis = growing[0]
    proportional = base.shape[axis] * (SAMPLES + 1) == longer.shape[axis] * SAMPLES
    if len(growing) > 1 or not proportional or base.shape[axis] % SAMPLES:
        raise Untracked(path, f"{what} does not grow with the batch along one dimension")
    layout = fitted([changed_rows(base, tensor, axis) for tensor in changed], axis, SAMPLES)
    if layout is None:
        raise Untracked(path, f"{what} mixes samples, or has them in another order")
    return layout
