"""Which way a layer is run: by the strategy that was asked for, or the fastest that was timed."""

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from rtl_plugin.mixture.dispatch import Dispatch
from rtl_plugin.mixture.layer_ways import WAYS
from rtl_plugin.mixture.masked_pass import LayerRunner, UnitCall, run_slices
from rtl_plugin.mixture.rows import Inputs, copied
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.stacked_weights import NoRoom
from rtl_plugin.nested import tensors_in

ROUNDS = 3  # the first also warms up; the fastest counts
MAX_KINDS = 4096  # of layer calls to remember
NETWORK = "the network"  # beside the names of layers


@dataclass(frozen=True)
class Choice:
    """What was chosen for one kind of call, and what it was chosen over.

    Args:
        way: its name.
        reason: one clause.
    """

    way: str
    reason: str


class LayerChoice:
    """Remembers a way for every kind of layer call.

    Args:
        name: the strategy that was asked for.
        ways: names of the ways to run a layer, in order of preference; ``slices`` runs everything.
        timed: try those that can run the call at hand, and keep the fastest.
    """

    def __init__(self, name: str, ways: tuple[str, ...], timed: bool) -> None:
        self.name, self._ways, self._timed = name, ways, timed
        self.layers: dict[str, Choice] = {}  # the latest of every layer
        self._chosen: dict[Hashable, Choice] = {}
        self._lock = threading.Lock()

    def run_layer(self, runner: Runner, names: tuple[str, ...], call: UnitCall) -> Any:
        """Run one unit on a sorted batch.

        Args:
            runner: runs a unit under a ticket.
            names: of the tickets.
            call: what to run.

        Returns:
            The unit's output.
        """
        able: dict[str, Callable[[Inputs], Any]] = {}
        refused = []
        for way in (WAYS[name] for name in self._ways):
            why_not = way.why_not(runner, names, call)
            if why_not is None:
                able[way.name] = _bound(way.run, runner, names, call)
            elif why_not:
                refused.append(f"{way.name}: {why_not}")
        if "blocks" in able:  # trying slices would take the memory that the budget rules out
            able = {"blocks": able["blocks"]}
        else:
            able["slices"] = _bound(run_slices, runner, names, call)
        kind = call.path, _kind(runner, call)
        try:
            return self._fastest(kind, call.dispatch, able, (call.args, call.kwargs), refused)
        except NoRoom:
            return run_slices(runner, names, call)

    def fastest(
        self,
        kind: tuple[str, Hashable],
        batch: Dispatch,
        ways: Mapping[str, Callable[[Inputs], Any]],
        given: Inputs,
    ) -> Any:
        """Run one of several ways that give the same.

        Args:
            kind: what is run: a name, and what distinguishes its calls.
            batch: the batch at hand.
            ways: name -> what runs it on args and kwargs, in order of preference.
            given: args and kwargs.

        Returns:
            The output.
        """
        return self._fastest(kind, batch, ways, given, [])

    def _fastest(
        self,
        kind: tuple[str, Hashable],
        batch: Dispatch,
        ways: Mapping[str, Callable[[Inputs], Any]],
        given: Inputs,
        refused: list[str],
    ) -> Any:
        first = next(iter(ways))
        if len(ways) == 1 or not self._timed:
            reason = "; ".join(refused) or ("asked for" if not self._timed else "the only way")
            self.layers[kind[0]] = Choice(first, reason)
            return ways[first](given)
        key = kind[1], tuple(ways), _bucket(batch)
        chosen = self._chosen.get(key)
        if chosen is None and not _capturing():
            output, chosen = _timed(ways, given)
            with self._lock:
                if len(self._chosen) >= MAX_KINDS:
                    self._chosen.clear()
                self._chosen[key] = self.layers[kind[0]] = chosen
            return output
        if chosen is None:
            return ways[first](given)
        self.layers[kind[0]] = chosen
        return ways[chosen.way](given)


def _bound(
    run: LayerRunner, runner: Runner, names: tuple[str, ...], call: UnitCall
) -> Callable[[Inputs], Any]:
    return lambda given: run(runner, names, replace(call, args=given[0], kwargs=given[1]))


def _bucket(batch: Dispatch) -> tuple[int, int]:
    """Number of tickets in the batch (as far as the host knows) and its size, to a power of two."""
    active = len(batch.spans) if batch.on_host else batch.offsets.numel() - 1
    return active, batch.size.bit_length()


def _kind(runner: Runner, call: UnitCall) -> Hashable:
    module = runner.workspace.module(call.path)
    tensors = (*tensors_in((call.args, call.kwargs)), *module.parameters())
    described = tuple((tuple(t.shape[1:]), t.dtype, t.device.type) for t in tensors)
    return type(module).__qualname__, module.extra_repr(), described


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _timed(ways: Mapping[str, Callable[[Inputs], Any]], given: Inputs) -> tuple[Any, Choice]:
    best: dict[str, float] = {}
    outputs: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            inputs = copied(given)
            start = _now()
            outputs[name] = way(inputs)
            best[name] = min(best.get(name, float("inf")), _now() - start)
    fastest = min(best, key=lambda name: best[name])
    times = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in best.items())
    # Of the chosen way: the same call rounds alike, the first time too.
    return outputs[fastest], Choice(fastest, f"timed: {times}")


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
