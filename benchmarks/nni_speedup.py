"""What does rtl_nni.speedup make of real NNI masks, and NNI's own ModelSpeedup beside it?

    python -m benchmarks.nni_speedup --json benchmarks/results/nni_speedup.cpu.json

Every network at 224 x 224 with the masks of NNI's L1NormPruner, half of the channels of every
convolution but those that make the outputs. For each: the small network against the masked one
whose norms were completed (float64, on an image that the speedup did not see), against the masks
as they were given, parameters, CPU seconds of the speedup, and the latency of the small network
beside the dense one (interleaved runs, median). NNI's ModelSpeedup beside it: as its documentation
calls it, and through rtl_nni.model_speedup (parameters, difference from the completed network).
"""

import argparse
import datetime
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.nni_speedup_networks import (
    ARCHITECTURES,
    RATIO,
    build,
    config_of,
    difference,
    host_ways,
    masked,
    masks_of,
)
from rtl_nni.exact_speedup import speedup_with_report
from rtl_plugin.errors import RtlError
from rtl_torch_pruning import compare_latency

QUICK = ("resnet18", "mobilenet_v3_small", "squeezenet1_1", "concatenating")
EXACT, SECONDS = 1e-5, 5.0
Row = dict[str, Any]


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four networks at 96 x 96")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--limit", type=int, default=90, help="CPU seconds for NNI's own speedup")
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = QUICK if arguments.quick else arguments.only or ARCHITECTURES
    size, rounds = (96, 5) if arguments.quick else (224, 15)
    rows: list[Row] = []
    for name in names:
        rows += [checked(name, size, rounds, arguments.limit, ids) for ids in (True, False)]
        print("\n".join(map(line, rows[-2:])), flush=True)
        if arguments.json:  # after every network: a run takes a quarter of an hour
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            content = report(rows, size, rounds)
            arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(rows)}\n")
    for goal in goals(rows):
        print(f"{goal['name']}: {goal['value']} (goal: {goal['target']}) met: {goal['met']}")


def checked(name: str, size: int, rounds: int, limit: int, ids: bool) -> Row:
    """One network under one configuration."""
    model, x = build(name), torch.randn(1, 3, size, size)
    masks = masks_of(model, config_of(name, model, x, ids))
    row: Row = {"network": name, "dependency_ids": ids, "load": os.getloadavg()[0]}
    wall, began = time.perf_counter(), time.thread_time()
    try:
        done = speedup_with_report(model, masks, x)
    except RtlError as error:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    seconds = {"seconds": time.thread_time() - began, "wall_seconds": time.perf_counter() - wall}
    unseen = torch.randn(2, 3, size, size)
    complete = masked(model, masks, done.completed)
    given = masked(model, masks, {})
    apart, largest = difference(complete, done.network, unseen)
    runs = compare_latency(
        model, {"small": done.network}, x, rounds=rounds, threads=1, clock=time.thread_time
    )
    references = {"difference": complete, "from_given": given}
    return {
        **row,
        "error": "",
        "parameters": done.dense_parameters,
        "small_parameters": done.parameters,
        "difference": apart,
        "largest_output": largest,
        "from_given": difference(given, done.network, unseen)[0],
        "completed_norms": len(done.completed),
        "groups_left_whole": len(done.left_whole),
        **seconds,
        "latency_ratio": runs.ratio("small"),
        "noise": runs.noise("small"),
        "within_noise": runs.within_noise("small"),
        "nni": host_ways(model, masks, x, references, unseen, limit),
    }


def goals(rows: list[Row]) -> list[Row]:
    """Of every network under either configuration; one that raises is not cut."""
    done = [row for row in rows if not row["error"]]
    fraction = len(done) / len(rows) if rows else None
    return [
        goal("networks that become smaller", fraction, 1.0, "higher"),
        goal("largest difference from the completed masked network", _most(done, "difference"),
             EXACT, "lower"),
        goal("most CPU seconds of a speedup", _most(done, "seconds"), SECONDS, "lower"),
    ]  # fmt: skip


def goal(name: str, value: float | None, target: float, better: str) -> Row:
    """One goal; no value is not measured."""
    met = None if value is None else value >= target if better == "higher" else value <= target
    return {"name": name, "value": value, "target": target, "better": better, "met": met}


def _most(rows: list[Row], key: str) -> float | None:
    return max((row[key] for row in rows), default=None)


def line(row: Row) -> str:
    """One network on one line, as it is finished."""
    name = f"{row['network']}{', dependency ids' if row['dependency_ids'] else ''}"
    if row["error"]:
        return f"{name}: {row['error']}"
    return (
        f"{name}: {row['parameters']:,} -> {row['small_parameters']:,}, {row['seconds']:.1f} s, "
        f"latency {row['latency_ratio']:.3f}"
    )


def table(rows: list[Row], style: str = "simple") -> str:
    """All networks, one a line for each configuration."""
    headers = (
        *("network", "ids", "parameters", "small", "difference", "from given masks", "seconds"),
        *("latency", "clear", "NNI unpatched", "NNI reached", "its s"),
    )
    cells = [_cells(row) for row in rows]
    return tabulate(cells, headers, tablefmt=style, disable_numparse=True)


def _cells(row: Row) -> list[str]:
    first = [row["network"], "yes" if row["dependency_ids"] else "no"]
    if row["error"]:
        return [*first, row["error"].partition(":")[0]]
    plain, reached = row["nni"].values()
    return [
        *first,
        f"{row['parameters']:,}",
        f"{row['small_parameters']:,}",
        f"{row['difference']:.1e}",
        f"{row['from_given']:.1e}",
        f"{row['seconds']:.1f}",
        f"{row['latency_ratio']:.3f}",
        "no" if row["within_noise"] else "yes",
        plain["error"].partition(":")[0] or "runs",
        _host_cell(reached),
        "" if reached["error"] else f"{reached['seconds']:.1f}",
    ]


def _host_cell(way: Row) -> str:
    if way["error"]:
        return str(way["error"].partition(":")[0])
    return f"{way['parameters']:,}, {way['difference']:.1e}"


def report(rows: list[Row], size: int, rounds: int) -> Row:
    """The benchmark's JSON."""
    packages = ("torch", "torchvision", "nni", "torch-pruning")
    return {
        "benchmark": "nni_speedup",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, 1 thread",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "setting": f"images of {size} x {size}, one an input; L1NormPruner at {RATIO}; random "
        f"weights, batch norm statistics of drawn images, seed 0; latency: {rounds} interleaved "
        "runs; seconds and latency are CPU time of one thread, load is that of the machine",
        "rows": rows,
        "goals": goals(rows),
    }


if __name__ == "__main__":
    main()
