"""The goals of the serving benchmark, and when one is met."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from benchmarks.serving_cases import (
    AUTO,
    BY_INDEX,
    BY_NAME,
    CACHED,
    COMPACT,
    COPIES,
    DENSE,
    DIRECT,
    KEPT,
    LEAN,
    REMASKED,
    UNPRUNED,
    ZIPF,
)
from benchmarks.serving_gpu import BITMASK, GRAPH, GROUPED_MM, SYNCHRONISATIONS
from benchmarks.serving_memory import COUNTED
from benchmarks.serving_networks import DENSITY, MLP, POINTWISE, RESNET, TICKETS
from benchmarks.serving_timing import AGAIN

ROUNDS = 15  # fewer tell nothing about a goal
MIXED, ONE, SMALL, GRAPHED = "mixed batch", "one-ticket batch", "half the channels", "CUDA graphs"
FEW = "few rows of a linear layer"
LINEAR = "linear 8192 x 8192"
Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Goal:
    """One line of the table of goals, for one network and batch.

    Args:
        number: of the issue's table.
        case: which question answers it.
        net: a network's name.
        batch: samples; for memory, those that were served before counting.
        ours: program.
        rival: the comparator, a program that the case measures twice.
        limit: of the ratio.
        better: "lower": our time in the rival's; "higher": the rival's time in ours.
        device: "cpu" or "cuda".
        dtype: of weights and inputs.
        tickets: K.
    """

    number: int
    case: str
    net: str
    batch: int
    ours: str
    rival: str
    limit: float
    better: str = "lower"
    device: str = "cpu"
    dtype: str = "float32"
    tickets: int = TICKETS

    @property
    def name(self) -> str:
        """Unique among goals."""
        where = f"{self.net}, batch {self.batch}, {self.device} {self.dtype}"
        return f"{self.number}: {self.case}, {where}: {self.ours} / {self.rival}"

    def fields(self) -> dict[str, Any]:
        """What a reader needs beside the value."""
        return {
            "name": self.name, "number": self.number, "comparator": self.rival, "net": self.net,
            "batch": self.batch, "tickets": self.tickets,
            "density": 0.5 if self.case == SMALL else DENSITY, "device": self.device,
            "limit": self.limit, "better": self.better,
        }  # fmt: skip


def _cpu_goals() -> list[Goal]:
    memory = [
        Goal(1, COUNTED, net, TICKETS, LEAN, "K masked copies", limit, "higher", dtype=dtype)
        for net in (MLP, RESNET)
        for dtype, limit in (("float32", 7.4), ("bfloat16", 6.0))
    ]
    sizes = ((MLP, 64), (MLP, 256), (RESNET, 64))
    return [
        *memory,
        *(Goal(6, MIXED, net, batch, LEAN, CACHED, 1.5) for net, batch in sizes),
        Goal(7, SMALL, MLP, 256, COMPACT, UNPRUNED, 1.35),
        Goal(7, SMALL, RESNET, 16, COMPACT, UNPRUNED, 1.6),
        *(
            Goal(8, ONE, net, batch, ours, DIRECT, 1.05)
            for net, batch in ((MLP, 64), (MLP, 256), (RESNET, 16))
            for ours in (BY_NAME, BY_INDEX)
        ),
        *(Goal(8, MIXED, net, batch, ZIPF, AUTO, 1.15) for net, batch in sizes),
        Goal(9, MIXED, MLP, 64, AUTO, REMASKED, 2.0, "higher"),
        Goal(9, MIXED, MLP, 256, AUTO, REMASKED, 1.4, "higher"),
        *(Goal(10, MIXED, net, batch, AUTO, COPIES, 1.1) for net, batch in sizes),
    ]


def _gpu_goals() -> list[Goal]:
    def gpu(
        number: int, case: str, net: str, batch: int, ours: str, rival: str, limit: float,
        better: str = "lower",
    ) -> Goal:  # fmt: skip
        return Goal(number, case, net, batch, ours, rival, limit, better, "cuda", "bfloat16")

    wide = ((MLP, 10_000, 0.85), (POINTWISE, 160, 0.85), (RESNET, 640, 0.7))
    sizes = ((MLP, 160), (MLP, 10_000), (RESNET, 64))
    return [
        gpu(2, MIXED, RESNET, 64, KEPT, COPIES, 5.0, "higher"),
        gpu(3, GRAPHED, RESNET, 64, KEPT + GRAPH, COPIES + GRAPH, 1.5, "higher"),
        *(gpu(4, MIXED, net, batch, KEPT, DENSE, limit, "higher") for net, batch, limit in wide),
        gpu(5, FEW, LINEAR, 160, BITMASK, GROUPED_MM, 2.0, "higher"),
        *(gpu(6, MIXED, net, batch, LEAN, CACHED, 1.5) for net, batch in sizes),
        gpu(7, SMALL, MLP, 8192, COMPACT, UNPRUNED, 1.35),
        gpu(7, SMALL, RESNET, 512, COMPACT, UNPRUNED, 1.6),
        *(
            gpu(8, ONE, net, batch, ours, DIRECT, 1.05)
            for net, batch in ((MLP, 160), (RESNET, 64))
            for ours in (BY_NAME, BY_INDEX)
        ),
        *(gpu(8, MIXED, net, batch, ZIPF, AUTO, 1.15) for net, batch in sizes),
        *(
            gpu(8, SYNCHRONISATIONS, net, batch, AUTO, "none", 0.0)
            for net, batch in ((MLP, 160), (RESNET, 64))
        ),
    ]


GOALS = (*_cpu_goals(), *_gpu_goals())


def verdict(
    value: float, target: float, limit: float, better: str, noise: float, rounds: int
) -> bool | None:
    """Whether a timed goal is met.

    Args:
        value: the measured ratio.
        target: what it is held to: the limit, or the limit times a fraction of work.
        limit: of the ratio, where 1 would be no difference.
        better: "lower" or "higher".
        noise: by how much the comparator's time differs from its own, as a fraction.
        rounds: that were measured.

    Returns:
        None where the noise is more than half of what lies between no difference and the limit,
        or the rounds are too few.
    """
    margin = min(abs(limit - 1), abs(1 - 1 / limit))
    if rounds < ROUNDS or noise > margin / 2:
        return None
    return value <= target if better == "lower" else value >= target


def judged(goal: Goal, rows: Rows) -> dict[str, Any]:
    """A goal's entry in the JSON.

    Args:
        goal: which.
        rows: of all cases.

    Returns:
        Its fields, with value and met None where nothing was measured, and met False with the
        error where it could not be.
    """
    alike = ("case", "net", "batch", "device", "dtype", "tickets")
    mine = [row for row in rows if all(row[key] == getattr(goal, key) for key in alike)]
    programs = {row["program"]: row for row in mine}
    needed = [programs.get(name) for name in (None, goal.ours, goal.rival)]
    failed = [row["error"] for row in needed if row is not None and "error" in row]
    unknown = {"value": None, "target": goal.limit, "met": None}
    if failed:
        return goal.fields() | unknown | {"met": False, "error": failed[0]}
    if goal.ours not in programs:
        return goal.fields() | unknown
    if goal.case == COUNTED:
        ratio = programs[goal.ours]["ratio"]
        return goal.fields() | unknown | {"value": ratio, "met": ratio >= goal.limit}
    if goal.case == SYNCHRONISATIONS:
        count = programs[goal.ours]["count"]
        return goal.fields() | unknown | {"value": count, "met": count == 0}
    return goal.fields() | _timed(goal, programs)


def _timed(goal: Goal, programs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    ours, rival, again = (programs[n] for n in (goal.ours, goal.rival, goal.rival + AGAIN))
    best = min(rival["best"], again["best"])
    value = ours["best"] / best if goal.better == "lower" else best / ours["best"]
    noise = abs(rival["best"] / again["best"] - 1)
    rounds = len(ours["seconds"])
    target = goal.limit * ours.get("fraction", 1.0)
    return {
        "value": value,
        "target": target,
        "met": verdict(value, target, goal.limit, goal.better, noise, rounds),
        "reference_against_itself": noise,
        "within_noise": abs(value / target - 1) < noise,
        "rounds": rounds,
    }


def all_judged(rows: Rows) -> list[dict[str, Any]]:
    """Every goal, measured or not, in the table's order."""
    goals = sorted(GOALS, key=lambda goal: goal.number)
    return [judged(goal, rows) for goal in goals]


MET = {True: "yes", False: "no", None: "undecided"}


def goal_table(goals: Iterable[dict[str, Any]], style: str = "simple") -> str:
    """Goals as a table.

    Args:
        goals: as the JSON holds them.
        style: of ``tabulate``; "github" for documents.
    """
    cells = []
    for goal in goals:
        sign = "<=" if goal["better"] == "lower" else ">="
        value, met = goal["value"], MET[goal["met"]]
        if value is None:
            met = goal.get("error", "not measured")
        noise = goal.get("reference_against_itself")
        cells.append(
            (goal["name"], "-" if value is None else f"{value:.3f}", f"{sign} {goal['target']:.3g}",
             met, "-" if noise is None else f"{noise:.3f}")
        )  # fmt: skip
    headers = ("goal: ours / against", "value", "target", "met", "rival against itself")
    return tabulate(cells, headers=headers, tablefmt=style, disable_numparse=True)


def _said(row: dict[str, Any]) -> str:
    """What was measured of a program, with its unit."""
    if "error" in row:
        return str(row["error"])
    if "best" in row:
        return f"{1e3 * row['best']:.3f} ms"
    if "total" in row:
        return f"{row['total'] / 1e6:.1f} MB, copies {row['copies'] / 1e6:.1f} MB"
    if "resident" in row:
        return f"{row['resident'] / 1e6:.1f} MB, at the peak {row['peak'] / 1e6:.1f} MB"
    return f"{row['count']} a forward"


def program_table(rows: Rows) -> str:
    """Every measured program with its best time, or its bytes."""
    names = ("case", "net", "batch", "device", "dtype", "program")
    cells = [[*(row[name] for name in names), _said(row)] for row in rows]
    return tabulate(cells, headers=(*names, "measured"), disable_numparse=True)
