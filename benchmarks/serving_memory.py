"""What K tickets take: bytes counted on real modules, and what processes grow by."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import rtl_plugin as rtl
from benchmarks.serving_cases import LEAN, Rows, Served, served
from benchmarks.serving_process import STATUS
from benchmarks.serving_timing import Setting, check

ROOT = Path(__file__).parents[1]
SECONDS = 120  # for a process that takes a few
COUNTED, PROCESS = "memory", "memory of a process"
KINDS = ("copies", "mixture", "again")


def counted(setting: Setting) -> Rows:
    """Bytes of K masked copies and of mixtures that keep none, after a mixed batch.

    What ``auto`` holds then depends on the ways that it timed: a way that was tried once leaves
    its scratch.

    Raises:
        AssertionError: the mixture reports another size for the copies than they have, or computes
            something else.
    """
    made = served(setting)
    right = made.expected(made.uniform)
    tensors = [t for copy in made.copies for t in (*copy.parameters(), *copy.buffers())]
    copies, rows = sum(t.nbytes for t in tensors), []
    for program, strategy in ((LEAN, "auto"), ("scratch", "scratch")):
        mixture = rtl.MixtureOfMasks(made.model, made.tickets, strategy=strategy, budget=0)
        before = mixture.memory()
        with torch.inference_mode():
            output = mixture(made.x, tickets=made.uniform)
        check(f"{setting.net}, {program}", output, right)
        memory = mixture.memory()
        if memory.copies != copies:
            raise AssertionError(f"K copies have {copies} bytes, the mixture says {memory.copies}")
        rows.append(
            {**setting.described(), "program": program, "copies": copies, "total": memory.total,
             "ratio": copies / memory.total, "parts": dict(memory.parts),
             "ratio_before_the_first_batch": copies / before.total}
        )  # fmt: skip
    return rows


def of_processes(setting: Setting, kinds: Sequence[str] = KINDS) -> Rows:
    """What fresh processes grow by: K copies, a mixture that keeps none, and K copies again.

    Args:
        setting: network and dtype.
        kinds: which of them, copies first.

    Returns:
        A row a process, none where the system does not tell (only Linux does).
    """
    if not STATUS.exists():
        return []
    made = served(setting)
    with tempfile.TemporaryDirectory() as folder:
        write(made, Path(folder))
        found = {kind: grown(kind, setting, folder) for kind in kinds}
    outputs = {kind: torch.tensor(each.pop("output"))[:, None] for kind, each in found.items()}
    wanted = outputs["copies"].to(setting.dtype)
    check(f"{setting.net}, in a process", outputs["mixture"].to(setting.dtype), wanted)
    return [{**setting.described(), "program": kind, **each} for kind, each in found.items()]


def write(made: Served, folder: Path) -> None:
    """The files that the processes load."""
    rtl.MixtureOfMasks(made.model, made.tickets).save(folder / "mixture.safetensors")
    for k, copy in enumerate(made.copies):
        weights = {name: value.contiguous() for name, value in copy.state_dict().items()}
        safetensors.torch.save_file(weights, folder / f"copy-{k}.safetensors")


def grown(kind: str, setting: Setting, folder: str) -> dict[str, Any]:
    """Run one process.

    Raises:
        RuntimeError: it failed, with the last line of what it said.
    """
    dtype = str(setting.dtype).removeprefix("torch.")
    command = [sys.executable, "-m", "benchmarks.serving_process", kind, setting.net, dtype, folder]
    done = _run(command)
    if done.returncode:
        why = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(f"{' '.join(command[2:])} failed: {why}")
    return dict(json.loads(done.stdout))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
