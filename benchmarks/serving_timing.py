"""Programs of one question: held against what they must compute, then timed in turns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from benchmarks.structured_pruning_cost import seconds
from rtl_plugin.errors import RtlError

# Between strategies, as design.md states them.
TOLERANCES = {torch.float32: (2e-4, 1e-3), torch.bfloat16: (2e-2, 2e-2)}
AGAIN = ", again"
Run = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """What all programs of one question share.

    Args:
        case: the question.
        net: a key of ``NETWORKS``, or the layer's name.
        batch: samples.
        tickets: K.
        device: "cpu" or "cuda".
        dtype: of weights and inputs.
    """

    case: str
    net: str
    batch: int
    tickets: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def described(self) -> dict[str, Any]:
        """As the fields of a row."""
        return {
            "case": self.case, "net": self.net, "batch": self.batch, "tickets": self.tickets,
            "device": self.device, "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip


class Program(NamedTuple):
    """One way to answer, and the right answer; None where nothing is compared."""

    run: Run
    expected: torch.Tensor | None = None


def far(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Rows that differ by more than the tolerance of their dtype, bool [B].

    Sixteen-bit numbers have a relative precision: their tolerance is one of the largest output.
    """
    atol, rtol = TOLERANCES[expected.dtype]
    found, wanted = found.float(), expected.float()
    if expected.dtype == torch.bfloat16:
        atol *= float(wanted.abs().max())
    off = ~torch.isclose(found, wanted, atol=atol, rtol=rtol)
    return off.reshape(len(off), -1).any(dim=1)


def check(name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Raise AssertionError where a program does not give what it must."""
    if found.shape != expected.shape:
        raise AssertionError(f"{name}: shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    rows = far(found, expected)
    if bool(rows.any()):
        gap = float((found.float() - expected.float()).abs().max())
        wrong = f"{int(rows.sum())} of {len(rows)} rows"
        raise AssertionError(f"{name}: {wrong} differ, by up to {gap:.3g}")


def check_apart(one: torch.Tensor, other: torch.Tensor) -> None:
    """Raise AssertionError where a comparison could not see a sample under the wrong ticket."""
    alike = int((~far(one, other)).sum())
    if alike:
        raise AssertionError(f"{alike} samples come out alike under two tickets: nothing to check")


def gpu_seconds(work: Callable[[], Any]) -> float:
    """Seconds between two events around the work, from an idle GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def twice(name: str, program: Program) -> dict[str, Program]:
    """A program and itself again, to see how far equal programs differ."""
    return {name: program, name + AGAIN: program}


def in_turns(
    runs: Mapping[str, Run], rounds: int, clock: Callable[[Run], float]
) -> dict[str, list[float]]:
    """Seconds of every program in every round, each round in another order."""
    generator = torch.Generator().manual_seed(0)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for _ in range(rounds):
        for place in torch.randperm(len(names), generator=generator).tolist():
            taken[names[place]].append(clock(runs[names[place]]))
    return taken


def measured(
    setting: Setting, programs: Mapping[str, Program], rounds: int, **more: Any
) -> list[dict[str, Any]]:
    """Check every program, time them in turns.

    Args:
        setting: what they share.
        programs: name -> program.
        rounds: in which every program runs once.
        more: further fields of every row.

    Returns:
        A row a program: seconds of every round and their minimum. On a GPU a program that cannot
        run has an ``error`` instead, so that the others are measured all the same.

    Raises:
        AssertionError: a program computes something else.
    """
    rows: dict[str, dict[str, Any]] = {}
    with torch.inference_mode():
        able: dict[str, Run] = {}
        for name, program in programs.items():
            rows[name] = {**setting.described(), **more, "program": name}
            try:
                found = program.run()
            except (RuntimeError, RtlError) as error:
                if setting.device == "cpu":
                    raise
                rows[name]["error"] = described_error(error)
                continue
            if program.expected is not None:
                check(f"{setting.net}, {name}", found, program.expected)
            able[name] = program.run
        clock = seconds if setting.device == "cpu" else gpu_seconds
        for name, taken in in_turns(able, rounds, clock).items():
            rows[name] |= {"best": min(taken), "seconds": taken}
    return list(rows.values())


def described_error(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def attempted(setting: Setting, case: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of a case, or one row that says why there are none; its goals are then not met."""
    try:
        return case()
    except (RuntimeError, AssertionError, RtlError) as error:
        return [{**setting.described(), "program": None, "error": described_error(error)}]
