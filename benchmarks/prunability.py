"""Which classification models of torchvision can become channel tickets?

    python -m benchmarks.prunability --json benchmarks/results/prunability.cpu.json

Every architecture with random weights: two tickets with 40 % of the channels removed, ranked by
seeded random scores, and everything that must hold of them; against Torch-Pruning alone with the
same keywords. One process an architecture.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.prunability_checks import CHECKS, check
from benchmarks.prunability_recipes import architectures
from benchmarks.prunability_report import goals, line, page, report, table

QUICK = (
    *("resnet18", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "convnext_tiny"),
    *("vit_b_16", "resnext50_32x4d", "efficientnet_b0", "regnet_y_400mf", "squeezenet1_1"),
)
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten architectures")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--only", nargs="+", choices=architectures(), metavar="NAME")
    parser.add_argument("--add", action="store_true", help="keep the other rows of the JSON")
    parser.add_argument("--seconds", type=int, default=360, help="CPU time limit of each")
    parser.add_argument("--gib", type=float, default=21, help="memory limit of each")
    parser.add_argument("--markdown", type=Path, help="write the table of the JSON as a page")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.seconds, arguments.gib)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if arguments.add and arguments.json.exists():
        known = json.loads(arguments.json.read_text(encoding="utf-8"))["rows"]
        rows = {row["architecture"]: row for row in known}
    names = QUICK if arguments.quick else arguments.only or architectures()
    limits = {"seconds": arguments.seconds, "gib": arguments.gib}
    for name in names:
        rows[name] = run(name, arguments.seconds, arguments.gib)
        print(line(rows[name]), flush=True)
        if arguments.json:
            write(arguments.json, report(in_order(rows), limits))
    print(table(in_order(rows), "simple"))
    for goal in goals(in_order(rows)):
        print(f"{goal['name']}: {goal['value']}, goal {goal['target']}: {goal['met']}")
    if arguments.markdown:
        arguments.markdown.write_text(page(report(in_order(rows), limits)), encoding="utf-8")


def in_order(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[name] for name in architectures() if name in rows]


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON, also while the run goes on: it may take half an hour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run(name: str, seconds: int, gib: float) -> dict[str, Any]:
    """One architecture in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.prunability"]
    command += ["--worker", name, "--seconds", str(seconds), "--gib", str(gib)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        return not_run(name, "time", f"more than {seconds} s of CPU time, or killed")
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return not_run(name, "memory", f"{last[:200]} (limit {gib} GiB)")


def worker(name: str, seconds: int, gib: float) -> dict[str, Any]:
    """Check one architecture in this process, within limits of CPU time and memory."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    row = check(name)
    words = row["reason"] + row["host"]["reason"]
    row["not_run"] = "memory" if "alloc" in words.lower() or "MemoryError" in words else ""
    return row


def not_run(name: str, why: str, reason: str) -> dict[str, Any]:
    """The row of an architecture that did not finish."""
    host = {"prunes": False, "runs": False, "fixed_by_hand": False, "reason": ""}
    return {
        "architecture": name,
        "parameters": None,
        "input": "",
        "constructor": "",
        "keywords": "",
        "host": host,
        "checks": dict.fromkeys(CHECKS),
        "masked": None,
        "reason": reason,
        "without_keywords": "",
        "seconds": None,
        "peak_gib": None,
        "not_run": why,
    }


if __name__ == "__main__":
    main()
