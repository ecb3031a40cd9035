"""Which pruners of NNI work on which networks with a ticket for each data group?

    python -m benchmarks.nni_matrix --json benchmarks/results/nni_matrix.cpu.json

Every pair (pruner, network): three groups, two rounds of four steps at ratio 0.5 on drawn data.
For each pair: the ratio of every layer is what NNI's rounding makes of it; the model is
bit-identical afterwards; a fresh NNI pruner takes the masks and computes what the masked weights
compute; with one group and one round the masks are bit for bit those of NNI alone. Whether the
tickets differ is reported, not judged: after a few small steps norms may rank alike. A pair that
NNI itself does not support must raise.
"""

import argparse
import datetime
import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.nni_matrix_pairs import (
    BATCH,
    CHECKS,
    GROUPS,
    KINDS,
    NETWORKS,
    RATIO,
    ROUNDS,
    STEPS,
    check_pair,
)
from rtl_nni import IdenticalTickets

QUICK = ("small CNN", "MLP", "transformer encoder")
Row = dict[str, Any]


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the networks of torchvision")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for network in QUICK if arguments.quick else NETWORKS:
        for pruner in KINDS:
            rows.append(checked(pruner, network))
            print(line(rows[-1]), flush=True)
    content = report(rows)
    print(f"\n{table(rows)}\n")
    for goal in content["goals"]:
        print(f"{goal['name']}: {goal['value']} (goal: {goal['target']}) met: {goal['met']}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def checked(pruner: str, network: str) -> Row:
    """One pair; identical tickets are counted here, so the warning about them is not shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdenticalTickets)
        return check_pair(pruner, network)


def passed(row: Row) -> bool:
    """Whether everything holds of a pair."""
    return all(row["checks"][name] is True for name in CHECKS)


def goals(rows: list[Row]) -> list[Row]:
    """Fractions of the pairs that NNI supports, and of the others."""
    supported = [row for row in rows if row["supported"]]
    others = [row for row in rows if not row["supported"]]
    counted = {
        "supported pairs of which everything holds": (supported, passed),
        "pairs that NNI does not support which raise": (others, lambda row: bool(row["error"])),
    }
    result = []
    for name, (among, good) in counted.items():
        value = sum(map(good, among)) / len(among) if among else None
        met = None if value is None else value >= 1.0
        goal = {"name": name, "value": value, "target": 1.0, "better": "higher", "met": met}
        result.append({**goal, "of": len(among)})
    return result


def verdict(row: Row) -> str:
    """In words."""
    if row["error"]:
        return row["error"].partition(":")[0]
    failed = [name for name in CHECKS if row["checks"][name] is not True]
    return "yes" if not failed else f"no: {', '.join(failed)}"


def line(row: Row) -> str:
    """One pair on one line, as it is finished."""
    return f"{row['pruner']} on {row['network']}: {verdict(row)} ({row['seconds']} s)"


def table(rows: list[Row], style: str = "simple") -> str:
    """All pairs, one a line."""
    headers = ("network", "pruner", "asked", "achieved", "distinct", "holds", "seconds")
    cells = [
        (
            row["network"],
            row["pruner"],
            f"{row['asked']:.3f}",
            "" if row["achieved"] is None else f"{row['achieved'][0]:.3f}",
            "" if row["distinct"] is None else f"{row['distinct']} of {row['tickets']}",
            verdict(row),
            "" if row["seconds"] is None else f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    return tabulate(cells, headers, tablefmt=style, disable_numparse=True)


def report(rows: list[Row]) -> Row:
    """The benchmark's JSON."""
    packages = ("torch", "torchvision", "nni")
    return {
        "benchmark": "nni_matrix",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, 1 thread",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "setting": f"{len(GROUPS)} groups, {ROUNDS} rounds of {STEPS} steps, batches of {BATCH}, "
        f"ratio {RATIO}, random weights and data, seed 0; CPU seconds of compress() on one thread",
        "rows": rows,
        "goals": goals(rows),
    }


if __name__ == "__main__":
    main()
