"""The table, the goals, the JSON and the page of the prunability benchmark."""

import datetime
import platform
from importlib.metadata import version
from typing import Any

import torch
import torchvision
from tabulate import tabulate

from benchmarks.prunability_checks import CHECKS
from benchmarks.prunability_host import RATIO

Row = dict[str, Any]
NOT_RUN = ("time", "memory")
HEADERS = (
    *("architecture", "parameters", "ticket", "Torch-Pruning alone", "tickets"),
    *("masked = small", "keywords"),
)
PAGE = """\
# Which torchvision models can become channel tickets?

Made by `python -m benchmarks.prunability` from
[prunability.cpu.json](../benchmarks/results/prunability.cpu.json): random weights, two different
tickets with {ratio:.0%} of the channels removed by seeded random scores, the output layers in
`ignored_layers`, torch {torch}, torchvision {torchvision}, Torch-Pruning {torch_pruning}.

{goals}

*Tickets* means all of: both small networks run and give the dense network's output shape; a
training step in train mode; every parameter and buffer equals, bit for bit, what Torch-Pruning
itself leaves when it cuts a copy by the same scores; weights scattered back and gathered again are
bit-identical and no other entry moves; a saved and reloaded ticket gives the same small network on
a newly built model. *Ticket* is the fraction of parameters that the first ticket keeps. *Masked =
small* says whether the masked shared network computes what the small network computes; where a
layer normalises over channels or scales by head sizes it does not, and only the small network is
exact. *Torch-Pruning alone* is its own pruner with the same keywords; the attribute set by hand is
the `hidden_dim` of VisionTransformer, as in its own example. Each architecture was checked in a
process of its own: at most {gib:.0f} GiB of memory ({largest}), at most {seconds:.0f} s of CPU
time ({slowest}).

{table}

Torch-Pruning with the output layers in `ignored_layers` and no other keyword (cut, run, train a
step), {plain}
{notes}"""


def line(row: Row) -> str:
    """One architecture on one line, as it is finished."""
    return f"{row['architecture']}: {tickets_cell(row)} ({row['seconds']} s)"


def passed(row: Row) -> bool:
    return all(row["checks"][name] is True for name in CHECKS)


def host_prunes(row: Row) -> bool:
    return bool(row["host"]["prunes"] and row["host"]["runs"])


def blame(row: Row) -> str:
    """Where a failure comes from; empty where there is none."""
    if row["not_run"]:
        return str(row["not_run"])
    if passed(row):
        return ""
    if not row["host"]["prunes"]:
        return "the host's graph"
    return "ours" if row["host"]["runs"] else "the host's cut network does not run"


def goals(rows: list[Row]) -> list[dict[str, Any]]:
    """Fractions of what the host can prune, and of the zoo; unmeasured ones count as failed."""
    possible = [row for row in rows if host_prunes(row)]
    fractions = {
        "fraction of what Torch-Pruning prunes that becomes tickets": (possible, 1.0),
        "fraction of torchvision's classification models that become tickets": (rows, 0.95),
    }
    result = []
    for name, (among, target) in fractions.items():
        value = sum(map(passed, among)) / len(among) if among else None
        met = None if value is None else value >= target
        goal = {"name": name, "value": value, "target": target, "better": "higher", "met": met}
        result.append({**goal, "of": len(among)})
    return result


def host_cell(row: Row) -> str:
    host = row["host"]
    if not host["prunes"]:
        return "no graph" if not row["not_run"] else "not run"
    if not host["runs"]:
        return "cut network does not run"
    return "runs with an attribute set by hand" if host["fixed_by_hand"] else "runs"


def tickets_cell(row: Row) -> str:
    if row["not_run"]:
        return f"not run ({row['not_run']})"
    if passed(row):
        return "yes"
    failed = [name for name in CHECKS if row["checks"][name] is False]
    return f"no: {', '.join(failed)} ({blame(row)})"


def masked_cell(row: Row) -> str:
    if row["masked"] is None:
        return ""
    return "yes" if row["masked"] == "equal" else f"no: {row['masked']}"


def table(rows: list[Row], style: str) -> str:
    """All architectures, one a line."""
    cells = []
    for row in rows:
        keywords = "; ".join(part for part in (row["constructor"], row["keywords"]) if part)
        left = f"{row['left'][0]:.0%}" if row.get("left") else ""
        host, ours = host_cell(row), tickets_cell(row)
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        cells.append(
            (row["architecture"], parameters, left, host, ours, masked_cell(row), keywords)
        )
    align = ("left", "right", "right", *("left",) * 4)
    return tabulate(cells, HEADERS, tablefmt=style, disable_numparse=True, colalign=align)


def report(rows: list[Row], limits: dict[str, float]) -> dict[str, Any]:
    """The benchmark's JSON."""
    return {
        "benchmark": "prunability",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "torch_pruning": version("torch-pruning"),
        },
        "setting": f"two tickets, {RATIO:.0%} of the channels removed, random scores, no training",
        "limits": limits,
        "rows": rows,
        "goals": goals(rows),
    }


def without_keywords(rows: list[Row]) -> str:
    """How many architectures need no keyword, and what happens to the others without them."""
    failed: dict[str, list[str]] = {}
    for row in rows:
        if row["without_keywords"] not in ("", "runs"):
            failed.setdefault(row["without_keywords"], []).append(row["architecture"])
    fine = len(rows) - sum(map(len, failed.values()))
    lines = [f"- {', '.join(names)}: {reason}" for reason, names in failed.items()]
    return "\n".join([f"leaves {fine} of {len(rows)} running. The others:", "", *lines, ""])


def page(content: dict[str, Any]) -> str:
    """The documentation's page of a JSON."""
    rows = content["rows"]
    counts = [
        f"- {goal['name']}: {round(goal['value'] * goal['of'])} of {goal['of']} "
        f"(goal: {goal['target']:.0%})"
        for goal in content["goals"]
        if goal["value"] is not None
    ]
    equal = sum(row["masked"] == "equal" for row in rows)
    counts.append(f"- the masked network computes what the small one computes: {equal}")
    failures = [
        f"- {row['architecture']}: {blame(row)}: {row['reason'] or row['host']['reason']}"
        for row in rows
        if blame(row)
    ]
    notes = "\n".join(["", "What failed, and why:", "", *failures, ""]) if failures else ""
    measured = [row for row in rows if not row["not_run"]]
    largest = max(measured, key=lambda row: row["peak_gib"])
    slowest = max(measured, key=lambda row: row["seconds"])
    shown = {key: value for key, value in content["versions"].items() if key != "python"}
    return PAGE.format(
        ratio=RATIO,
        goals="\n".join(counts),
        table=table(rows, "github"),
        plain=without_keywords(rows),
        notes=notes,
        largest=largest["architecture"],
        gib=largest["peak_gib"],
        slowest=slowest["architecture"],
        seconds=slowest["seconds"],
        **shown,
    )
