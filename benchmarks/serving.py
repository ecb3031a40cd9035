"""What does serving K tickets from one module cost, in memory and time?

    python -m benchmarks.serving --json benchmarks/results/serving.cpu.json

Ten random tickets of density 0.3 over each network, with statistics of their own where it has
norms. On a CPU: one thread, thread CPU time. On a GPU (only where torch finds one): the time
between two CUDA events, from an idle device, in bfloat16. Programs of one question run in rounds,
every round in another order; a ratio is one of minima. Before it is timed, every program's output
is held to what the masked copies give.

The comparator of a goal is measured twice in every round. Where it differs from itself by more
than half of what lies between 1 and the limit, and in fewer than 15 rounds, a goal is undecided
(``met`` is null). What a device did not run has no value.

Goals 2 to 4 let the mixture keep as many bytes of masked weights as the copies take; goal 6 says
what keeping none costs. The captured loop and the loop over copies on a GPU are given the routing
on the host for nothing. Routing is uniform, or has shares 1 / rank (Zipf, exponent 1), both without
random numbers. Half the channels (goal 7) are random ones; the limit is multiplied by the fraction
of multiply-accumulates that the small network has. The re-masked network swaps the masks of
``torch.nn.utils.prune`` by reference. "Memory of a process" (Linux) is what a fresh one grows by as
it loads files and serves one batch, allocator included; goal 1 counts bytes of tensors.
"""

import argparse
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import serving_cases, serving_gpu, serving_memory
from benchmarks.serving_cases import Rows
from benchmarks.serving_goals import (
    FEW,
    GRAPHED,
    LINEAR,
    MIXED,
    ONE,
    ROUNDS,
    SMALL,
    all_judged,
    goal_table,
    program_table,
)
from benchmarks.serving_gpu import SYNCHRONISATIONS
from benchmarks.serving_memory import COUNTED, PROCESS
from benchmarks.serving_networks import (
    DENSITY,
    MLP,
    POINTWISE,
    RESNET,
    TICKETS,
    ZIPF_EXPONENT,
)
from benchmarks.serving_timing import Setting, attempted

DTYPES = (torch.float32, torch.bfloat16)
Question = tuple[Setting, Callable[[Setting], Rows]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        rounds: of quick programs.
        long_rounds: of mixed batches of convolutions on a CPU.
        resnet: samples of those.
        processes: networks and dtypes that fresh processes load.
    """

    rounds: int = 20
    long_rounds: int = ROUNDS
    resnet: int = 64
    processes: Sequence[tuple[str, torch.dtype]] = (
        (MLP, torch.float32),
        (RESNET, torch.float32),
        (RESNET, torch.bfloat16),
    )


FULL = Sizes()
QUICK = Sizes(rounds=3, long_rounds=2, resnet=16, processes=((MLP, torch.float32),))


def cpu_questions(sizes: Sizes) -> Iterator[Question]:
    """Everything a CPU answers."""
    for net in (MLP, RESNET):
        for dtype in DTYPES:
            yield Setting(COUNTED, net, TICKETS, TICKETS, "cpu", dtype), serving_memory.counted
    for net, dtype in sizes.processes:
        yield Setting(PROCESS, net, TICKETS, TICKETS, "cpu", dtype), serving_memory.of_processes
    mixed, rounds = serving_cases.cpu_mixed, sizes.rounds
    for batch in (64, 256):
        every = partial(mixed, rounds=rounds, every_strategy=True)
        yield Setting(MIXED, MLP, batch, TICKETS), every
    some = partial(mixed, rounds=sizes.long_rounds, every_strategy=False)
    yield Setting(MIXED, RESNET, sizes.resnet, TICKETS), some
    for net, batch in ((MLP, 64), (MLP, 256), (RESNET, 16)):
        one = partial(serving_cases.one_ticket, rounds=rounds)
        yield Setting(ONE, net, batch, TICKETS), one
    for net, batch in ((MLP, 256), (RESNET, 16)):
        yield Setting(SMALL, net, batch, TICKETS), partial(serving_cases.compact, rounds=rounds)


def gpu_questions(sizes: Sizes) -> Iterator[Question]:
    """Everything a GPU answers; what may leave it in a bad state comes last."""

    def setting(case: str, net: str, batch: int) -> Setting:
        return Setting(case, net, batch, TICKETS, "cuda", torch.bfloat16)

    rounds = sizes.rounds
    for net, batch in ((MLP, 160), (MLP, 10_000), (POINTWISE, 160), (RESNET, 64), (RESNET, 640)):
        yield setting(MIXED, net, batch), partial(serving_cases.gpu_mixed, rounds=rounds)
    for net, batch in ((MLP, 160), (RESNET, 64)):
        yield setting(ONE, net, batch), partial(serving_cases.one_ticket, rounds=rounds)
        yield setting(SYNCHRONISATIONS, net, batch), serving_gpu.synchronisations
    for net, batch in ((MLP, 8192), (RESNET, 512)):
        yield setting(SMALL, net, batch), partial(serving_cases.compact, rounds=rounds)
    for rows in (1, 4, 16):
        few = partial(serving_gpu.few_rows, size=8192, rows=rows, rounds=rounds)
        yield setting(FEW, LINEAR, rows * TICKETS), few
    yield setting(GRAPHED, RESNET, 64), partial(serving_gpu.in_graphs, rounds=rounds)


def answers(questions: Iterator[Question]) -> Rows:
    """Rows of all questions; one that fails says so and leaves the others alone."""
    rows: Rows = []
    for setting, question in questions:
        print(f"{setting.case}, {setting.net}, batch {setting.batch}, {setting.device} ...")
        rows += attempted(setting, partial(question, setting))
        if setting.device == "cuda":
            torch.cuda.empty_cache()
    return rows


def report(rows: Rows, sizes: Sizes, device: str) -> dict[str, Any]:
    """The benchmark's JSON."""
    packages = ("torch", "torchvision", "torch-pruning", "safetensors")
    return {
        "benchmark": "serving",
        "date": datetime.date.today().isoformat(),
        "device": device,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "setting": {
            "tickets": TICKETS, "density": DENSITY, "zipf_exponent": ZIPF_EXPONENT, "seed": 0,
            "rounds": sizes.rounds, "long_rounds": sizes.long_rounds,
        },
        "rows": rows,
        "goals": all_judged(rows),
    }  # fmt: skip


def devices(with_gpu: bool) -> str:
    """What was measured on, for the JSON."""
    found = f"{platform.machine()} CPU, 1 thread"
    return f"{found}; {torch.cuda.get_device_name()}" if with_gpu else found


def run(sizes: Sizes, only: str | None) -> dict[str, Any]:
    """Measure what this machine can.

    Args:
        sizes: how much.
        only: "cpu" or "cuda" leaves the other out.
    """
    with_gpu = torch.cuda.is_available() and only != "cpu"
    if only == "cuda" and not with_gpu:
        raise SystemExit("--only cuda needs a CUDA device, and torch finds none")
    rows = [] if only == "cuda" else answers(cpu_questions(sizes))
    if with_gpu:
        rows += answers(gpu_questions(sizes))
    return report(rows, sizes, devices(with_gpu))


def main() -> int:
    """Measure, print, write; the status is 1 where a question failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: decides no goal")
    parser.add_argument("--only", choices=("cpu", "cuda"), help="leave the other device out")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content = run(QUICK if arguments.quick else FULL, arguments.only)
    print(f"\n{program_table(content['rows'])}\n\n{goal_table(content['goals'])}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    failed = [row for row in content["rows"] if "error" in row]
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
