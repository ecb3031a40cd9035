"""What every shipped kernel configuration needs of a GPU, found by compiling it, without a GPU.

    python -m benchmarks.kernel_resources --json benchmarks/results/kernel_resources.aot.json

Each line of the table in `rtl_plugin/mixture/kernels/configs.py` is compiled for the compute
capabilities 8.0 (A100), 9.0 (H100) and 10.0 (B200). Shared memory and registers are what the
assembler reports. "ALU a weight" counts integer and logic instructions of the inner loop, a lane
each, beyond those of the loop without masks, for every weight that the loop reads; in the kernel
for few rows four tickets use the weight, so it is divided by four. It must run in a process without
TRITON_INTERPRET.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.kernel_machine_code import Machine, alu_per_weight, compile_kernel
from rtl_plugin.mixture.kernels.configs import ShippedConfig, shipped_configs

# Bytes of shared memory that one block may have.
SHARED = {80: 166_912, 90: 232_448, 100: 232_448}
ALU_BUDGET = 4.2  # a weight, of the kernel where it is most


@dataclasses.dataclass(frozen=True)
class Case:
    """One compilation.

    Args:
        shipped: the line of the table.
        target: compute capability times ten.
        dtype: of the batch.
        aligned: whether sizes and strides are multiples of 16.
        pairs: whether 16-bit weights are read two at a time, in kernels that mask.
        tf32: whether float32 products are rounded.
    """

    shipped: ShippedConfig
    target: int
    dtype: torch.dtype
    aligned: bool
    pairs: bool
    tf32: bool


def all_cases() -> list[Case]:
    """Everything that a call can launch; float16 compiles to the code of bfloat16."""
    cases = []
    for shipped in shipped_configs():
        halves = shipped.bits == 16
        masks = shipped.kernel in ("bitmask", "few_rows")
        multiplies = shipped.kernel not in ("depthwise", "expand")
        for aligned in (True, False) if shipped.aligned is None else (shipped.aligned,):
            # Aligned rows always hold whole pairs; others do where their length is even.
            pairs = ((True,) if aligned else (True, False)) if masks and halves else (False,)
            tf32 = (False, True) if multiplies and not halves else (False,)
            dtype = torch.bfloat16 if halves else torch.float32
            cases += [
                Case(shipped, target, dtype, aligned, *choice)
                for target in SHARED
                for choice in product(pairs, tf32)
            ]
    return cases


def quick_cases() -> list[Case]:
    """The cases that the goals are about: the largest tiles of each kernel on some targets."""
    wanted = {
        ("grouped", 128, 90), ("bitmask", 128, 80), ("bitmask", 128, 90), ("few_rows", 16, 90),
        ("few_rows", 16, 100), ("convolution", 128, 90), ("depthwise", 16, 80), ("expand", 1, 100),
    }  # fmt: skip
    return [
        case
        for case in all_cases()
        if (case.shipped.kernel, case.shipped.config.block_rows, case.target) in wanted
        and case.shipped.bits == 16
        and case.aligned
        and case.shipped.wide is not False
    ]


def measure(case: Case) -> dict[str, Any]:
    """Compile and read the machine code."""
    config = case.shipped.config
    machine = compile_kernel(
        case.shipped.kernel, case.dtype, config, case.target,
        pairs=case.pairs, tf32=case.tf32, aligned=case.aligned,
    )  # fmt: skip
    return {
        "kernel": case.shipped.kernel,
        "dtype": str(case.dtype).removeprefix("torch."),
        "tf32": case.tf32,
        "aligned": case.aligned,
        "pairs": case.pairs,
        **dataclasses.asdict(config),
        "target": f"sm{case.target}",
        "shared_bytes": machine.shared,
        "registers": machine.registers,
        "stack_bytes": machine.stack,
        "matrix_instruction": machine.matrix_instruction,
        "alu_per_weight": _alu(case, machine),
        "faults": faults(case, machine),
    }


def _alu(case: Case, machine: Machine) -> float | None:
    if not (case.pairs and case.aligned):
        return None
    plain = compile_kernel("grouped", case.dtype, case.shipped.config, case.target)
    return alu_per_weight(machine, plain, case.shipped.config, case.shipped.kernel)


def faults(case: Case, machine: Machine) -> list[str]:
    """What is wrong with a compiled kernel; nothing, for every one that is shipped."""
    found = []
    if machine.shared > SHARED[case.target]:
        found.append(f"{machine.shared} bytes of shared memory, at most {SHARED[case.target]}")
    if machine.stack:
        found.append(f"registers spill to {machine.stack} bytes of stack")
    multiplies = case.shipped.kernel not in ("depthwise", "expand")
    expected = {80: "mma", 90: "wgmma", 100: "tcgen05"}[case.target]
    if multiplies and case.shipped.bits == 16 and machine.matrix_instruction != expected:
        found.append(f"uses {machine.matrix_instruction}, expected {expected}")
    return found


def goals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The limits, as goals."""
    alu = [row["alu_per_weight"] for row in rows if row["alu_per_weight"] is not None]
    most = max(alu, default=None)
    count = sum(len(row["faults"]) for row in rows)
    return [
        {"name": "configurations over a limit of shared memory, registers or instruction",
         "value": count, "target": 0, "better": "lower", "met": count == 0},
        {"name": "ALU instructions a weight where 16-bit pairs are masked", "value": most,
         "target": ALU_BUDGET, "better": "lower", "met": most and most <= ALU_BUDGET},
    ]  # fmt: skip


def main() -> None:
    """Compile, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case a kernel")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--only", help="cases of this kernel alone")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("the interpreter compiles nothing: unset TRITON_INTERPRET")
    cases = quick_cases() if arguments.quick else all_cases()
    cases = [case for case in cases if arguments.only in (None, case.shipped.kernel)]
    if arguments.jobs == 1:
        rows = [measure(case) for case in cases]
    else:
        with ProcessPoolExecutor(arguments.jobs, get_context("spawn")) as pool:
            rows = list(pool.map(measure, cases))
    shown = [{k: v for k, v in row.items() if k != "faults"} for row in rows]
    print(tabulate(shown, headers="keys", floatfmt=".2f"))
    for row in rows:
        for fault in row["faults"]:
            print(f"{row['kernel']} {row['dtype']} {row['target']}: {fault}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report(rows), indent=1) + "\n", encoding="utf-8")


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The benchmark's JSON."""
    import triton

    return {
        "benchmark": "kernel_resources",
        "date": datetime.date.today().isoformat(),
        "device": "none: compiled ahead of time",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": triton.__version__,
        },
        "rows": rows,
        "goals": goals(rows),
    }


if __name__ == "__main__":
    main()
