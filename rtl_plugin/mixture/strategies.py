"""The strategies by name."""

from typing import Any, Protocol

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.mixture.compact import CompactStrategy
from rtl_plugin.mixture.layer_choice import LayerChoice
from rtl_plugin.mixture.one_pass import OnePassStrategy
from rtl_plugin.mixture.reference import ReferenceStrategy
from rtl_plugin.tickets import TicketSet

# Ways to run a layer beside the loop over slices, in order of preference.
LAYER_WAYS: dict[str, tuple[str, ...]] = {
    "auto": ("table", "grouped_mm", "triton", "bitmask", "convolution", "depthwise", "blocks"),
    "dense": (),
    "slices": (),
    "cached": ("table", "grouped_mm", "triton", "convolution", "depthwise"),
    "scratch": ("blocks", "table", "grouped_mm", "triton", "convolution"),
    "grouped": ("table", "grouped_mm", "triton", "convolution", "depthwise"),
    "bitmask": ("table", "bitmask", "depthwise"),
}
# On a CPU a grouped product is no faster than the loop, and would cost a trial in every layer.
_AUTO_ON_CPU = ("table", "blocks")
NAMES = ("auto", "reference", "compact", *(name for name in LAYER_WAYS if name != "auto"))


class Strategy(Protocol):
    """How a mixture runs its tickets; every one gives what the reference gives."""

    name: str

    def run(self, ticket: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network under one ticket."""
        ...

    def run_mixed(
        self, indices: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a batch, every sample through its own ticket."""
        ...

    def export(self, ticket: str) -> nn.Module:
        """One ticket as an ordinary module."""
        ...

    def explain(self) -> str:
        """How batches are run, in words."""
        ...

    def held_bytes(self) -> dict[str, int]:
        """What is kept between calls beside weights and tickets: part -> bytes."""
        ...


def make_strategy(name: str, model: nn.Module, tickets: TicketSet, budget: int | None) -> Strategy:
    """The strategy of a name.

    Args:
        name: one of ``NAMES``.
        model: the network.
        tickets: packed tickets.
        budget: bytes of masked copies to keep; None takes the strategy's default.

    Returns:
        A strategy at work on the model.

    Raises:
        InvalidArgument: the name is unknown, or the budget is none that the strategy keeps to.
    """
    if name not in NAMES:
        raise InvalidArgument(f"unknown strategy {name!r}: one of {', '.join(NAMES)}")
    if name == "auto" and tickets.structured:
        name = "compact"
    if name in ("reference", "compact"):
        if budget is not None:
            raise InvalidArgument(
                f"strategy={name!r} keeps no masked copies, so budget={budget} says nothing: "
                "leave it out"
            )
        return (ReferenceStrategy if name == "reference" else CompactStrategy)(model, tickets)
    ways = _AUTO_ON_CPU if name == "auto" and not _on_gpu(model) else LAYER_WAYS[name]
    choice = LayerChoice(name, ways, timed=name == "auto")
    return OnePassStrategy(model, tickets, choice, checked_budget(name, budget, model))


def checked_budget(name: str, budget: int | None, model: nn.Module) -> int | None:
    """Bytes of masked copies to keep.

    Args:
        name: of the strategy.
        budget: what the user gave.
        model: the network.

    Returns:
        Bytes, or None for no limit: the default on a CPU and of ``cached``; on a GPU it is 0.

    Raises:
        InvalidArgument: the budget is no number of bytes, or contradicts the strategy.

    Example:
        >>> checked_budget("scratch", None, nn.Linear(1, 1))
        0
    """
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int)):
        raise InvalidArgument(
            f"budget= takes a whole number of bytes, got {type(budget).__name__} {budget!r}"
        )
    if budget is not None and budget < 0:
        raise InvalidArgument(f"budget= takes bytes, 0 or more, got {budget}")
    if name == "scratch" and budget:
        raise InvalidArgument(
            f'strategy="scratch" keeps no masked copies, which budget={budget} asks for: use '
            '"slices" or "grouped" with a budget'
        )
    if name == "cached" and budget == 0:
        raise InvalidArgument('strategy="cached" keeps masked copies, so budget=0 contradicts it')
    if budget is not None:
        return budget
    return 0 if name == "scratch" or (_on_gpu(model) and name != "cached") else None


def _on_gpu(model: nn.Module) -> bool:
    return any(parameter.device.type != "cpu" for parameter in model.parameters())
