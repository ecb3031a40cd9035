"""The questions of the serving benchmark that only a GPU answers."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

import rtl_plugin as rtl
from benchmarks.serving_cases import AUTO, COPIES, KEPT, Rows, Served, served
from benchmarks.serving_networks import DENSITY, SEED, loop_of_copies, sort_rows
from benchmarks.serving_timing import (
    Program,
    Setting,
    check,
    described_error,
    measured,
    twice,
)
from rtl_plugin.errors import RtlError

GRAPH = " in a CUDA graph"
GROUPED_MM, BITMASK = "grouped_mm on cached copies", "bitmask"
SYNCHRONISATIONS = "host synchronisations"
WARM_UP = 3  # what a graph must not see: plans, choices of ways, compilation


class Captured:
    """A program as a CUDA graph.

    Args:
        run: what is captured; it reads its inputs where they lie.
    """

    def __init__(self, run: Callable[[], torch.Tensor]) -> None:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.inference_mode():
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._output = run()

    def __call__(self) -> torch.Tensor:
        """Replay it; the output is overwritten by the next replay."""
        self._graph.replay()
        return self._output


class CapturedWhenRun:
    """Captures at the first call, so that a program that cannot be captured fails as it runs."""

    def __init__(self, run: Callable[[], torch.Tensor]) -> None:
        self._run, self._captured = run, None

    _captured: Captured | None

    def __call__(self) -> torch.Tensor:
        """Capture once, then replay."""
        if self._captured is None:
            self._captured = Captured(self._run)
        return self._captured()


def in_graphs(setting: Setting, rounds: int) -> Rows:
    """A mixed batch in CUDA graphs: the loop over copies, and mixtures whose routing may change."""
    made = served(setting)
    indices = made.uniform.to(setting.device)
    rows = sort_rows(made.uniform)
    rows = rows._replace(order=rows.order.to(setting.device))
    right, skewed = made.expected(made.uniform), made.expected(made.zipf)
    programs = twice(
        COPIES + GRAPH,
        Program(CapturedWhenRun(lambda: loop_of_copies(made.copies, made.x, rows)), right),
    )
    for name, budget in ((AUTO, None), (KEPT, made.masked_bytes)):
        run = CapturedWhenRun(made.mixture("auto", budget)(indices))
        programs[name + GRAPH] = Program(_rerouted(run, made, indices, skewed), right)
    return measured(setting, programs, rounds)


def _rerouted(
    run: CapturedWhenRun, made: Served, indices: torch.Tensor, skewed: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """The program; its first call also holds a replay with another routing to what is right."""
    seen: list[bool] = []

    def first_checked() -> torch.Tensor:
        if not seen:
            run()
            indices.copy_(made.zipf)
            check("a replay with another routing", run(), skewed)
            indices.copy_(made.uniform)
            seen.append(True)
        return run()

    return first_checked


def synchronisations(setting: Setting) -> Rows:
    """How often a forward waits for the device where tickets are an index tensor born there.

    The first calls make plans and compile; what is counted is a later call. CUDA's debug mode sees
    the waits of torch's own operations.
    """
    made = served(setting)
    mixture = rtl.MixtureOfMasks(made.model, made.tickets)
    indices = made.uniform.to(setting.device)
    row = {**setting.described(), "program": AUTO}
    with torch.inference_mode():
        for _ in range(WARM_UP):
            mixture(made.x, tickets=indices)
        torch.cuda.synchronize()
        before = torch.cuda.get_sync_debug_mode()
        try:
            torch.cuda.set_sync_debug_mode("error")
            try:
                mixture(made.x, tickets=indices)
                row["count"] = 0
            except (RuntimeError, RtlError) as error:
                row["error_mode"] = described_error(error)
                torch.cuda.set_sync_debug_mode("warn")
                row["count"] = _warned(lambda: mixture(made.x, tickets=indices))
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return [row]


def _warned(run: Callable[[], Any]) -> int:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    found = sum("synchronizing" in str(each.message) for each in caught)
    return max(found, 1)  # it was refused a moment ago, whatever the warnings say


def few_rows(setting: Setting, size: int, rows: int, rounds: int) -> Rows:
    """One linear layer whose weights dominate: packed bits against masked copies.

    Args:
        setting: batch is tickets x rows.
        size: inputs and outputs of the layer.
        rows: a ticket.
        rounds: of all programs.
    """
    from rtl_plugin.mixture.kernels import bitmask_linear, pack_words

    generator = torch.Generator(setting.device).manual_seed(SEED)

    def normal(*shape: int) -> torch.Tensor:
        drawn = torch.randn(*shape, generator=generator, device=setting.device)
        return drawn.to(setting.dtype)

    weight, x = normal(size, size) / size**0.5, normal(setting.tickets * rows, size)
    masks = [
        torch.rand(size, size, generator=generator, device=setting.device) < DENSITY
        for _ in range(setting.tickets)
    ]
    words, copies = pack_words(masks), torch.stack([weight * mask for mask in masks])
    edges = torch.arange(setting.tickets + 1, dtype=torch.int32, device=setting.device) * rows
    right = torch.cat([x[k * rows :][:rows] @ copy.T for k, copy in enumerate(copies)])
    grouped = torch.nn.functional.grouped_mm
    programs = {
        **twice(
            GROUPED_MM, Program(lambda: grouped(x, copies.transpose(-2, -1), offs=edges[1:]), right)
        ),
        BITMASK: Program(lambda: bitmask_linear(x, weight, words, edges), right),
    }
    return measured(setting, programs, rounds, rows_per_ticket=rows)
