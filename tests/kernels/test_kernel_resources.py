"""What compiled kernels need of a GPU: a handful compiled here, all of them in the results."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks.kernel_machine_code import Machine, _loop, alu_per_weight
from benchmarks.kernel_resources import Case, all_cases, faults
from rtl_plugin.mixture.kernels import KernelConfig
from rtl_plugin.mixture.kernels.configs import ShippedConfig
from rtl_plugin.mixture.kernels.launch import FUNCTIONS
from tests.kernels.processes import ROOT, python

RESULTS = ROOT / "benchmarks/results/kernel_resources.aot.json"

# ALU instructions a weight as measured, plus a tenth.
ALU_MEASURED = {
    ("bitmask", "sm80"): 2.47,
    ("bitmask", "sm90"): 3.97,
    ("few_rows", "sm90"): 2.79,
    ("few_rows", "sm100"): 1.80,
}


def test_a_handful_of_kernels_compiles_within_the_limits(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    found = tmp_path / "found.json"
    arguments = ["-m", "benchmarks.kernel_resources", "--quick", "--json", str(found)]
    done = python(arguments, TRITON_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    result = json.loads(found.read_text(encoding="utf-8"))
    rows = result["rows"]
    assert {row["kernel"] for row in rows} == set(FUNCTIONS)
    assert [row["faults"] for row in rows] == [[]] * len(rows)
    committed = json.loads(RESULTS.read_text(encoding="utf-8"))
    if result["versions"]["triton"] != committed["versions"]["triton"]:
        pytest.skip("the limits hold; instructions were counted with another Triton")
    alu = {
        (r["kernel"], r["target"]): r["alu_per_weight"]
        for r in rows
        if r["alu_per_weight"] is not None
    }
    assert set(alu) == set(ALU_MEASURED)
    over = {key: value for key, value in alu.items() if value > 1.1 * ALU_MEASURED[key]}
    assert not over, f"more instructions a weight than measured: {over}"
    # A figure far below shows a broken count rather than a better kernel.
    assert all(value > 1 for value in alu.values()), alu


def test_the_committed_results_cover_every_configuration_that_ships() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    fields = [field.name for field in dataclasses.fields(KernelConfig)]
    listed = [
        tuple(r[key] for key in ("kernel", "dtype", "target", "aligned", "pairs", "tf32", *fields))
        for r in rows
    ]
    expected = [
        (
            c.shipped.kernel,
            str(c.dtype).removeprefix("torch."),
            f"sm{c.target}",
            c.aligned,
            c.pairs,
            c.tf32,
            *dataclasses.astuple(c.shipped.config),
        )
        for c in all_cases()
    ]
    assert sorted(listed) == sorted(expected), "make the results again: the table has changed"
    assert [row["faults"] for row in rows] == [[]] * len(rows)


def _case(kernel: str = "grouped", bits: int = 16, target: int = 90) -> Case:
    shipped = ShippedConfig(kernel, bits, KernelConfig(64, 64, 64, 4, 3))
    dtype = torch.bfloat16 if bits == 16 else torch.float32
    return Case(shipped, target, dtype, aligned=True, pairs=False, tf32=False)


@pytest.mark.parametrize(
    ("case", "machine", "expected"),
    [
        (_case(), Machine(232_448, 255, 0, "wgmma", ""), []),
        (_case(), Machine(232_449, 255, 0, "wgmma", ""), ["shared memory, at most 232448"]),
        (_case(target=80), Machine(166_913, 9, 0, "mma", ""), ["shared memory, at most 166912"]),
        (_case(), Machine(0, 255, 8, "wgmma", ""), ["spill to 8 bytes of stack"]),
        (_case(), Machine(0, 9, 0, "mma", ""), ["uses mma, expected wgmma"]),
        (_case("expand"), Machine(0, 9, 0, "fma", ""), []),
        (_case(bits=32), Machine(0, 9, 0, "fma", ""), []),
    ],
)
def test_faults_are_found(case: Case, machine: Machine, expected: list[str]) -> None:
    found = faults(case, machine)
    assert len(found) == len(expected)
    assert all(e in f for e, f in zip(expected, found, strict=True))


CODE = """
        /*0000*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0010*/                   LOP3.LUT R2, R2, R3, RZ, 0xc0, !PT ;
        /*0020*/                   HMMA.16816.F32.BF16 R4, R4, R8, R4 ;
        /*0030*/               @P0 BRA 0x10 ;
        /*0040*/                   SHF.R.S32.HI R2, RZ, 0x1, R2 ;
        /*0050*/               @P1 BRA 0x0 ;
"""


def test_the_inner_loop_is_found_and_counted() -> None:
    loop = _loop(CODE, "mma")
    opcodes = [line.split()[0] for line in loop.splitlines()]
    assert opcodes[:2] == ["LOP3.LUT", "HMMA.16816.F32.BF16"]
    assert len(loop.splitlines()) == 3
    assert _loop(CODE.replace("BRA 0x10", "NOP").replace("BRA 0x0 ", "NOP "), "mma") == ""
    plain = Machine(0, 0, 0, "mma", "HMMA R0")
    masked = Machine(0, 0, 0, "mma", "LOP3.LUT R1\nSHF.R R2\nUIADD3 UR4\n@P0 IMAD R3\nHMMA R0")
    config = KernelConfig(16, 16, 16, 4, 1)
    # Three instructions in each of 128 lanes for 256 weights.
    assert alu_per_weight(masked, plain, config, "bitmask") == 1.5
    assert alu_per_weight(masked, plain, config, "few_rows") == 0.38
    assert alu_per_weight(dataclasses.replace(masked, loop=""), plain, config, "bitmask") is None


def test_the_interpreter_is_refused() -> None:
    done = python(["-m", "benchmarks.kernel_resources", "--quick"], TRITON_INTERPRET="1")
    assert done.returncode == 2
    assert "unset TRITON_INTERPRET" in done.stderr
