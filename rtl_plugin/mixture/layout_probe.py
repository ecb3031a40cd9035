"""Find out where the samples of a batch are in every layer, with a handful of samples."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture.altered_samples import changed_rows, chosen_samples
from rtl_plugin.mixture.guarded_tensor import GuardedRead
from rtl_plugin.mixture.layouts import Layout, Layouts, fitted
from rtl_plugin.mixture.rows import Inputs
from rtl_plugin.mixture.workspace import ROOT, Forward, outermost
from rtl_plugin.nested import tensors_in

_FEWEST = 3  # with two, rows in reversed order could pass for position-major ones


class Untracked(MaskBypassed):
    """No layout explains which rows of a layer belong to which sample."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path or 'the network'}: {why}")
        self.path = path


class Inconclusive(MaskBypassed):
    """The samples at hand do not tell where they are: they are all alike, or NaN."""


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
        final: whether the next batch of the kind need not be looked at again.
    """

    units: tuple[str, ...]
    calls: dict[str, tuple[Call, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    final: bool = True

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

    One sample after the other is altered, and the rows that change with it are its own. A layer
    whose rows cannot be told apart, or whose weight is read from outside, gives way to the module
    that contains it, at last to the whole network.

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
        except Inconclusive as told:
            return Plan((ROOT,), notes=(*notes, str(told)), final=False)
        except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
            first = (str(error).splitlines() or [""])[0]
            note = f"the network does not run on altered samples: {type(error).__name__}: {first}"
            units = (ROOT,)
        notes.append(note)
    return Plan(units, {}, tuple(notes))


def _widened(units: tuple[str, ...], path: str, why: str) -> tuple[tuple[str, ...], str]:
    unit = next((u for u in units if path == u or path.startswith(f"{u}.")), ROOT)
    parent = unit.rpartition(".")[0]
    return outermost([parent, *units]), f"{why}; so {parent or 'the network'} runs once a ticket"


def sample_count(inputs: Inputs, size: int) -> int:
    """How many samples to look at: as few as cannot be mistaken for rows of an unbatched table.

    Args:
        inputs: args and kwargs of a batch.
        size: B.

    Returns:
        n, at least 3; no tensor beside the batch has n or n + 1 rows.

    Example:
        >>> sample_count(((torch.ones(8, 3), torch.ones(3, 3)), {}), 8)
        4
    """
    tables = {t.shape[0] for t in tensors_in(inputs) if t.dim() and t.shape[0] != size}
    return next(n for n in itertools.count(_FEWEST) if not tables & {n, n + 1})


def _tracked(
    run: RunPass, units: tuple[str, ...], inputs: Inputs, size: int
) -> dict[str, tuple[Call, ...]]:
    samples = sample_count(inputs, size)
    rows = torch.arange(samples + 1) % size
    few = rows[:samples]
    base = run(units, chosen_samples(inputs, few, size))
    longer = run(units, chosen_samples(inputs, rows, size))
    changed = [run(units, chosen_samples(inputs, few, size, i)) for i in range(samples)]
    passes = [base, longer, *changed]
    for layout in _layouts(ROOT, "an output", [p.outputs[ROOT][0] for p in passes]):
        if layout is None or layout != Layout(0):
            raise Untracked(ROOT, "an output does not have one row a sample along dimension 0")
    _check_noticed(base.outputs[ROOT][0], [seen.outputs[ROOT][0] for seen in changed])
    calls = {}
    for path in units:
        counts = {len(seen.inputs[path]) for seen in passes}
        if len(counts) > 1:
            raise Untracked(path, "how often it is called depends on the samples")
        calls[path] = tuple(_call(path, k, passes) for k in range(counts.pop()))
    return calls


def _check_noticed(base: list[torch.Tensor], changed: Sequence[list[torch.Tensor]]) -> None:
    if not base:
        raise Untracked(ROOT, "its output holds no tensors")
    for outputs in changed:
        pairs = zip(base, outputs, strict=True)
        if not any(bool(changed_rows(one, other, None)) for one, other in pairs):
            raise Inconclusive("these samples do not show where they are (all alike, or NaN)")


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
    samples = len(changed)
    if base.dim() != longer.dim() or any(tensor.shape != base.shape for tensor in changed):
        raise Untracked(path, f"the shape of {what} depends on the samples")
    pairs = enumerate(zip(base.shape, longer.shape, strict=True))
    growing = [axis for axis, (few, more) in pairs if few != more]
    if not growing:
        if any(bool(changed_rows(base, tensor, None).any()) for tensor in changed):
            raise Untracked(path, f"{what} of shape {tuple(base.shape)} mixes samples")
        return None
    axis = growing[0]
    proportional = base.shape[axis] * (samples + 1) == longer.shape[axis] * samples
    if len(growing) > 1 or not proportional or base.shape[axis] % samples:
        raise Untracked(path, f"{what} does not grow with the batch along one dimension")
    layout = fitted([changed_rows(base, tensor, axis) for tensor in changed], axis, samples)
    if layout is None:
        raise Untracked(path, f"{what} mixes samples, or has them in another order")
    return layout
