"""Compiles a kernel for a GPU that need not be there, and reads its machine code."""

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.mixture.kernels.configs import KernelConfig
from rtl_plugin.mixture.kernels.launch import FUNCTIONS, constants, options_of
from rtl_plugin.mixture.kernels.loading import kernel

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
FLAGS = {"HAS_BIAS": True, "HAS_SCALE": True, "HAS_SHIFT": True}
# Sizes and strides of common layers are multiples of 16, and Triton is told so at a launch.
MULTIPLES = {
    "N", "K", "x_row", "weight_ticket", "weight_row", "weight_out", "weight_y", "weight_x",
}  # fmt: skip
MATRIX = {
    "wgmma": r"\bHGMMA\b",
    "tcgen05": r"\bUTC\w*MMA\b",
    "mma": r"\bHMMA\b",
}
# Integer and logic instructions; address arithmetic is in the plain loop too, and is subtracted.
ALU = re.compile(r"\b(LOP3|SHF|IMAD|PRMT|SEL|ISETP|IADD3?|LEA|SHL|SHR|BFE|SGXT|R2P|VIADD|PLOP3)\b")


@dataclass(frozen=True)
class Machine:
    """A compiled kernel.

    Args:
        shared: bytes of shared memory a block.
        registers: registers a thread.
        stack: bytes of stack a thread, where spilled registers go.
        matrix_instruction: "wgmma", "tcgen05", "mma" or "fma".
        loop: the instructions of the loop that multiplies, "" where there is none.
    """

    shared: int
    registers: int
    stack: int
    matrix_instruction: str
    loop: str


@functools.cache
def compile_kernel(
    name: str, dtype: torch.dtype, config: KernelConfig, target: int, *,
    pairs: bool = False, tf32: bool = False, aligned: bool = True,
) -> Machine:  # fmt: skip
    """Compile with everything in the epilogue, as a launch with aligned sizes would.

    Args:
        name: the kernel, as in ShippedConfig.
        dtype: of the batch.
        config: tile sizes, warps and stages.
        target: compute capability times ten.
        pairs: read 16-bit weights two at a time.
        tf32: round float32 products.
        aligned: sizes and strides are multiples of 16.

    Returns:
        What the assembler made.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    function = kernel(FUNCTIONS[name])
    values = constants(name, dtype, config, **_more(name, pairs, tf32))
    if name == "convolution" and aligned:
        values["weight_in"] = 1
    signature = {a: _type(a, dtype, pairs, values) for a in function.arg_names}
    attributes: Any = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(function.arg_names)
        if signature[argument].startswith("*") or (aligned and argument in MULTIPLES)
    }
    source = triton.compiler.ASTSource(function, signature, values, attributes)
    options = options_of(config)
    built = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    return _read(built.asm["cubin"], built.metadata.shared)


def _more(name: str, pairs: bool, tf32: bool) -> dict[str, Any]:
    if name == "expand":
        return {}
    taps = {"TAPS_Y": 3, "TAPS_X": 3}
    if name == "depthwise":
        return {**FLAGS, **taps, "MASKED": True}
    if name == "convolution":
        return {**FLAGS, **taps, "TF32": tf32}
    return {**FLAGS, "PAIRS": pairs, "TF32": tf32}


def _type(argument: str, dtype: torch.dtype, pairs: bool, values: dict[str, Any]) -> str:
    if argument in values:
        return "constexpr"
    if argument in ("x", "out"):
        return f"*{TYPES[dtype]}"
    pointers = {
        "weights": "*i32" if pairs else f"*{TYPES[dtype]}",
        "words": "*i64",
        "tiles": "*i32",
        "tickets": "*i32",
        "bias": "*fp32",
        "scale": "*fp32",
        "shift": "*fp32",
    }
    return pointers.get(argument, "i32")


def _tool() -> str:
    import triton

    found = sorted(Path(triton.__file__).parent.glob("backends/nvidia/bin/cuobjdump*"))
    if not found:
        raise FileNotFoundError(f"no cuobjdump beside {triton.__file__}: install Triton's wheel")
    return str(found[0])


def _read(binary: bytes, shared: int) -> Machine:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        usage, code = (
            subprocess.run(
                [_tool(), option, file.name], check=True, capture_output=True, text=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    figures = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    matrix = next((n for n, pattern in MATRIX.items() if re.search(pattern, code)), "fma")
    return Machine(shared, figures["REG"], figures["STACK"], matrix, _loop(code, matrix))


def _loop(code: str, matrix: str) -> str:
    """The shortest backward branch around most of the matrix instructions, as text."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]*);", code)
    if matrix == "fma":
        return ""
    work = [int(place, 16) for place, text in lines if re.search(MATRIX[matrix], text)]
    best: tuple[int, int, int] = (0, 0, 0)
    for place, text in lines:
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if jump and int(jump[1], 16) < int(place, 16):
            start, end = int(jump[1], 16), int(place, 16)
            inside = sum(start <= each <= end for each in work)
            best = max(best, (inside, start - end, start))
    if best[0] == 0:
        return ""
    start, end = best[2], best[2] - best[1]
    return "\n".join(text for place, text in lines if start <= int(place, 16) <= end)


def alu_per_weight(
    masked: Machine, plain: Machine, config: KernelConfig, name: str
) -> float | None:
    """Instructions of masking, a lane each, for every weight and ticket of one turn of the loop.

    Args:
        masked: the kernel that masks.
        plain: the kernel of the same tiles without masks.
        config: the tile sizes.
        name: the kernel that masks; few_rows does the work of four tickets a turn.

    Returns:
        The count, or None where a loop was not found.
    """
    if not masked.loop or not plain.loop:
        return None
    tickets = 4 if name == "few_rows" else 1
    extra = _alu_count(masked.loop) - tickets * _alu_count(plain.loop)
    weights = config.block_out * config.block_k * tickets
    return round(extra * 32 * config.num_warps / weights, 2)


def _alu_count(loop: str) -> int:
    return len(ALU.findall(loop))
