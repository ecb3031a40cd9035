"""One way to run a layer for all tickets at once, and what such ways ask about a call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.mixture.layouts import Layout
from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner

NOT_ITS_KIND = ""  # why a way cannot run a layer, where nobody would expect it to


@dataclass(frozen=True)
class Way:
    """One way to run a layer.

    Args:
        name: what a strategy calls it.
        why_not: says why it cannot run a call, or None where it can; ``""`` where the layer is not
            of its kind.
        run: runs it.
    """

    name: str
    why_not: Callable[[Runner, tuple[str, ...], UnitCall], str | None]
    run: Callable[[Runner, tuple[str, ...], UnitCall], Any]


def stock_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes what its torch class computes, whatever its subclass adds."""
    return isinstance(module, kind) and type(module).forward is kind.forward


def only_input(call: UnitCall) -> torch.Tensor | None:
    """The one tensor of a call that has nothing else, and whose samples are not scattered."""
    if call.kwargs or len(call.args) != 1 or not isinstance(call.args[0], torch.Tensor):
        return None
    return call.args[0] if call.layouts.inputs[0] == call.layouts.outputs[0] else None


def axis_0_layout(call: UnitCall) -> Layout | None:
    """The layout of a call's input where the batch is first and samples lie side by side."""
    layout = call.layouts.inputs[0]
    return layout if layout is not None and layout.axis == 0 and layout.sample_major else None
