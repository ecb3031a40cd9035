"""How fast are the similarities of 100 tickets of a 25-million-weight network, in how much memory?

    python -m benchmarks.similarity --json benchmarks/results/similarity.cpu.json

Random tickets of ResNet-50's layers at densities from 5 to 95 %, every second one sharing half of
its ranking with the others of its kind. Counting the bits of AND-ed words, as
``similarity_matrix`` does, stands against the obvious float32 product ``M @ M.T``: in blocks of
columns, because M whole is 10 GB, and once whole, in a process of its own. The counts must be
equal. Interleaved rounds and minima: wall seconds with one and two threads, and for the ratio CPU
seconds of one thread, which other work on the machine disturbs least. Peak memory is that of a
fresh process (``ru_maxrss``) that makes the masks, holds them, and counts.
"""

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.similarity_programs import (
    BLOCKS,
    BLOCKS_PACKED,
    BOOLS,
    COLUMNS,
    COUNTERS,
    PACKED,
    WHOLE,
    Counts,
    Masks,
    Setting,
    check,
    made,
    resnet50_shapes,
    weights_of,
    words,
)

ROOT = Path(__file__).parents[1]
SECONDS_GOAL, PEAK_GOAL, RATIO_GOAL = 10.0, 2.0, 2.0
THREADS = (1, 2)
TIMEOUT = 600
GB = 1e9
AGAIN = ", again"
FULL = Setting(tickets=100, divisor=1, rounds=15, rounds_of_two=5)
QUICK = Setting(tickets=100, divisor=4, rounds=3, rounds_of_two=3)


class TimedRun(NamedTuple):
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


def timed(program: str, tickets: Sequence[Masks], threads: int) -> tuple[TimedRun, Counts]:
    """One run of a program."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        counts = COUNTERS[program][1](tickets)
        return TimedRun(time.perf_counter() - wall, time.process_time() - cpu), counts
    finally:
        torch.set_num_threads(before)


def timings(setting: Setting) -> list[dict[str, Any]]:
    """Rows of the programs that fit in memory side by side, checked and timed in turns."""
    tickets = {packed: made(setting, packed) for packed in (True, False)}
    names = (PACKED, BOOLS, BLOCKS_PACKED, BLOCKS, PACKED + AGAIN)
    runs = [(name, n) for n in THREADS for name in names]
    expected = timed(BLOCKS, tickets[False], 1)[1]
    taken: dict[tuple[str, int], list[TimedRun]] = {run: [] for run in runs}
    order = torch.Generator().manual_seed(0)
    for number in range(setting.rounds):
        for place in torch.randperm(len(runs), generator=order).tolist():
            name, threads = runs[place]
            if threads > 1 and number >= setting.rounds_of_two:
                continue
            program = name.removesuffix(AGAIN)
            run, found = timed(program, tickets[COUNTERS[program][0]], threads)
            check(name, found, expected)
            taken[name, threads].append(run)
    return [
        {
            "program": name,
            "threads": threads,
            "best": min(run.wall for run in each),
            "best_cpu": min(run.cpu for run in each),
            "seconds": [run.wall for run in each],
            "cpu_seconds": [run.cpu for run in each],
        }
        for (name, threads), each in taken.items()
    ]


def in_process(program: str, setting: Setting) -> dict[str, Any]:
    """What one program takes in this process, which should be fresh."""
    at_start = peak_memory()
    tickets = made(setting, COUNTERS[program][0])
    holding = peak_memory()
    run, found = timed(program, tickets, max(THREADS))
    peak = peak_memory()
    error = check(program, found, words(tickets))
    return {
        "program": program, "threads": max(THREADS), "best": run.wall, "seconds": [run.wall],
        "cpu_seconds": [run.cpu], "greatest_error": error,
        "peak_gb": peak / GB, "peak_of_making_gb": holding / GB, "peak_at_start_gb": at_start / GB,
    }  # fmt: skip


def peak_memory() -> int:
    """Bytes that this process held at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def fresh_process(program: str, setting: Setting) -> dict[str, Any]:
    """Run :func:`in_process` in a process of its own; a row with an error where it fails."""
    need = 5 * setting.tickets * weights_of(resnet50_shapes(setting.divisor)) + GB
    if program == WHOLE and (free := free_memory()) < need:
        why = f"needs {need / GB:.0f} GB, {free / GB:.0f} are free"
        return {"program": program, "threads": max(THREADS), "error": why}
    command = [sys.executable, "-m", "benchmarks.similarity", "--process", program]
    command += ["--quick"] if setting.divisor == QUICK.divisor else []
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = str(error.stderr or "").strip().rpartition("\n")[2]
        why = last or f"{type(error).__name__} ({error})"
        return {"program": program, "threads": max(THREADS), "error": why}
    return dict(json.loads(done.stdout))


def free_memory() -> float:
    """Bytes that the machine has free; infinite where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:
        return float("inf")
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def report(
    rows: list[dict[str, Any]], memory: list[dict[str, Any]], setting: Setting
) -> dict[str, Any]:
    """The benchmark's JSON."""
    most, full = max(THREADS), setting.divisor == FULL.divisor
    wall = {(row["program"], row["threads"]): row["best"] for row in rows}
    cpu = {(row["program"], row["threads"]): row["best_cpu"] for row in rows}
    peak = next(row.get("peak_gb") for row in memory if row["program"] == PACKED)
    ratio = cpu[BLOCKS_PACKED, 1] / cpu[PACKED, 1]
    itself = cpu[PACKED + AGAIN, 1] / cpu[PACKED, 1]
    sure = full and setting.rounds >= FULL.rounds
    sure = sure and ratio * abs(itself - 1) <= abs(ratio - RATIO_GOAL) / 2
    seconds, compared = f"wall seconds of {PACKED}, {most} threads", f"{BLOCKS_PACKED} / {PACKED}"
    goals = [
        goal(seconds, wall[PACKED, most], SECONDS_GOAL, "lower", full),
        goal("peak memory of its process, GB", peak, PEAK_GOAL, "lower", full),
        goal(f"{compared}, CPU seconds, 1 thread", ratio, RATIO_GOAL, "higher", sure),
    ]
    shapes = resnet50_shapes(setting.divisor)
    weights = weights_of(shapes)
    return {
        "benchmark": "similarity",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {' and '.join(map(str, THREADS))} threads",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "setting": {
            **setting._asdict(), "layers": len(shapes), "weights": weights,
            "float_matrix_gb": 4 * weights * setting.tickets / GB, "float_block_columns": COLUMNS,
        },
        "packed_against_itself": itself,
        "rows": rows,
        "memory": memory,
        "goals": goals,
    }  # fmt: skip


def goal(
    name: str, value: float | None, target: float, better: str, measured: bool
) -> dict[str, Any]:
    """One goal; not measured at the quick size, nor where noise covers it."""
    met = None
    if measured and value is not None:
        met = value <= target if better == "lower" else value >= target
    return {"name": name, "value": value, "target": target, "better": better, "met": met}


def shown(content: Mapping[str, Any]) -> str:
    """The table on the screen."""
    headers = ["program", "threads", "seconds", "CPU seconds", "peak GB", "greatest error"]
    rows = [
        [row["program"], row["threads"], row["best"], row["best_cpu"]] for row in content["rows"]
    ]
    for row in content["memory"]:
        cpu = row.get("cpu_seconds", [None])[0]
        name = f"{row['program']}, own process"
        figures = [row.get("best"), cpu, row.get("peak_gb"), row.get("greatest_error")]
        rows.append([name, row["threads"], *([row["error"]] if "error" in row else figures)])
    table = tabulate(rows, headers=headers, floatfmt=".2f")
    lines = [f"{g['name']}: {g['value']} (goal {g['target']}, met: {g['met']})"
             for g in content["goals"]]  # fmt: skip
    return "\n".join([table, "", *lines])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the weights")
    parser.add_argument("--rounds", type=int, help=f"{FULL.rounds}; the ratio's goal needs them")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--process", choices=COUNTERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    setting = QUICK if arguments.quick else FULL
    if arguments.rounds:
        fewer = min(arguments.rounds, setting.rounds_of_two)
        setting = setting._replace(rounds=arguments.rounds, rounds_of_two=fewer)
    if arguments.process:
        print(json.dumps(in_process(arguments.process, setting)))
        return
    # Before this process grows: a child's peak counts what its parent held when it was started.
    memory = [fresh_process(program, setting) for program in COUNTERS]
    content = report(timings(setting), memory, setting)
    print(shown(content))
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
