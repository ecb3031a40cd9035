"""One pass of a sorted batch: a session that runs every unit grouped by ticket."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from rtl_plugin.errors import MaskBypassed
from rtl_plugin.mixture.dispatch import Dispatch
from rtl_plugin.mixture.layout_probe import Call, Plan
from rtl_plugin.mixture.layouts import take_samples
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.workspace import Forward
from rtl_plugin.nested import map_tensors, tensors_in


class LayoutChanged(MaskBypassed):
    """A layer saw other rows than its plan says, so this batch passes once a ticket."""


@dataclass(frozen=True)
class UnitCall:
    """One call of one unit with a sorted batch.

    Args:
        path: the unit's name.
        forward: its original forward.
        args: of that.
        kwargs: of that.
        layouts: of its tensors.
        dispatch: where every ticket's samples are.
    """

    path: str
    forward: Forward
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layouts: Call
    dispatch: Dispatch


# How one unit is run for all tickets, whose names are given.
LayerRunner = Callable[[Runner, tuple[str, ...], UnitCall], Any]


def run_slices(runner: Runner, names: tuple[str, ...], call: UnitCall) -> Any:
    """One call of the stock operator for every ticket in the batch, on its slice.

    Args:
        runner: runs a unit under a ticket.
        names: of the tickets.
        call: what to run.

    Returns:
        The unit's output for the whole sorted batch.
    """
    spans = call.dispatch.spans
    if len(spans) == 1:
        name = names[spans[0].ticket]
        return runner.unit(call.path, name, call.forward, call.args, call.kwargs)
    parts = []
    for ticket, start, stop in spans:
        taken = take_samples((call.args, call.kwargs), call.layouts.inputs, start, stop)
        parts.append(runner.unit(call.path, names[ticket], call.forward, *taken))
    _check_alike(parts, call)
    if isinstance(parts[0], torch.Tensor) and call.layouts.outputs[0] is not None:
        return call.layouts.outputs[0].join(parts)
    streams = zip(*(list(tensors_in(part)) for part in parts), strict=True)
    layouts = zip(streams, call.layouts.outputs, strict=True)
    joined = iter([layout.join(pieces) for pieces, layout in layouts if layout is not None])
    return map_tensors(lambda _: next(joined), parts[0])


def _check_alike(parts: list[Any], call: UnitCall) -> None:
    """Refuse tickets' outputs that differ in more than their number of rows."""
    shapes = set()
    for part in parts:
        tensors = list(tensors_in(part))
        if len(tensors) != len(call.layouts.outputs):
            raise LayoutChanged(f"{call.path} gave another number of tensors than its plan says")
        pairs = zip(tensors, call.layouts.outputs, strict=True)
        shapes.add(tuple(_without(t.shape, layout.axis if layout else None) for t, layout in pairs))
    if len(shapes) > 1:
        raise LayoutChanged(f"{call.path} gave outputs of different shapes to different tickets")


def _without(shape: torch.Size, axis: int | None) -> tuple[int, ...]:
    return tuple(size for position, size in enumerate(shape) if position != axis)


@dataclass
class MaskedPass:
    """A session in which every unit runs all tickets' rows.

    Args:
        runner: runs a unit under a ticket.
        names: of the tickets, in order.
        plan: layouts of every call.
        dispatch: of the batch at hand.
        run_layer: how a unit is run.
    """

    runner: Runner
    names: tuple[str, ...]
    plan: Plan
    dispatch: Dispatch
    run_layer: LayerRunner = run_slices
    _calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def check_complete(self) -> None:
        """Refuse a pass that left out calls of a unit.

        Raises:
            LayoutChanged: which layout belonged to which call is then unknown.
        """
        for path, calls in self.plan.calls.items():
            if self._calls[path] != len(calls):
                raise LayoutChanged(f"{path} is called less often than for the samples looked at")

    def unit(self, path: str, forward: Forward, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a unit on a sorted batch.

        Raises:
            LayoutChanged: the tensors are not those of the plan.
        """
        calls, k = self.plan.calls[path], self._calls[path]
        self._calls[path] += 1
        if k >= len(calls):
            raise LayoutChanged(f"{path} is called more often than for the samples looked at")
        given = list(tensors_in((args, kwargs)))
        layouts = calls[k].inputs
        if len(given) != len(layouts) or not all(
            layout is None or layout.fits(tensor, self.dispatch.size)
            for layout, tensor in zip(layouts, given, strict=True)
        ):
            raise LayoutChanged(f"{path} got tensors of other shapes than its plan says")
        call = UnitCall(path, forward, args, kwargs, calls[k], self.dispatch)
        return self.run_layer(self.runner, self.names, call)
