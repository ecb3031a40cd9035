"""Does an alarm without held-out labels tell when tickets collapse?

    python -m benchmarks.collapse --json benchmarks/results/collapse.cpu.json

Tickets of three tasks are pruned until accuracy is gone. Pilot runs set the limits of the monitor
without held-out labels, and those of naive rules with them; other runs judge. Rates are pooled over
tickets; their intervals are a bootstrap over runs. About 70 minutes on two CPU cores; `--runs`
keeps finished runs, so that it can be interrupted.

What it does not show: pilot and validation of the two digit tasks are other seeds on the same data,
so nothing is said of other data; an INR is judged on another photograph than its pilot, but
measured on the pixels that it was trained on.
"""

import argparse
import dataclasses
import datetime
import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.collapse_calibration import GRID, QUANTILE, calibrated
from benchmarks.collapse_rules import (
    KNEES,
    NAIVE,
    PRIMARY_KNEE,
    Rule,
    Trace,
    monitored,
    traces_of,
)
from benchmarks.collapse_runs import ENVIRONMENTS, ONE_VS_REST, CollapseTask, inr_task, run_of
from benchmarks.collapse_scores import (
    DRAWS,
    KINDS,
    LEVEL,
    RATES,
    best_limit,
    counts_of,
    outcomes_of,
    rates_of,
)
from rtl_plugin import CollapseRule
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.errors import InvalidArgument

PILOT: list[tuple[CollapseTask, tuple[int, ...]]] = [
    (ENVIRONMENTS, (0, 1, 2)),
    (ONE_VS_REST, (0, 1, 2)),
    (inr_task("coffee"), (0, 1, 2)),
]
VALIDATION: list[tuple[CollapseTask, tuple[int, ...]]] = [
    (ENVIRONMENTS, (10, 11, 12, 13, 14)),
    (ONE_VS_REST, (10, 11, 12, 13, 14)),
    (inr_task("astronaut"), (10, 11, 12, 13, 14)),
]
QUICK_STEPS, QUICK_ROUNDS = 10, 8


def recorded(
    plan: list[tuple[CollapseTask, tuple[int, ...]]], cache: Path, quick: bool
) -> list[dict[str, Any]]:
    runs = []
    for task, seeds in plan:
        if quick:
            task = dataclasses.replace(task, steps=QUICK_STEPS, rounds=QUICK_ROUNDS)
            seeds = seeds[:1]
        runs += [run_of(task, seed, cache) for seed in seeds]
    return runs


def check_learnt(traces: Sequence[Trace]) -> None:
    """A ticket that never rose above chance has no knee; a full run must not count it as calm."""
    never = [f"{t.ticket!r} of {t.task}, seed {t.seed}" for t in traces if t.quality is None]
    if never:
        raise InvalidArgument(
            f"expected every ticket to learn more than chance, these did not: {'; '.join(never)}: "
            "raise steps or the learning rate of their CollapseTask (--quick lets them pass)"
        )


def rules_of(pilot: list[Trace]) -> dict[str, tuple[Rule, dict[str, Any]]]:
    """Every rule with the parameters that it is judged at."""
    rule = CollapseRule()
    rules: dict[str, tuple[Rule, dict[str, Any]]] = {
        "monitor": (monitored(rule), rule.description())
    }
    for name, (make, _) in NAIVE.items():
        limit = best_limit(name, pilot, KNEES[PRIMARY_KNEE])
        rules[name] = (make(limit), {"limit": limit})
    return rules


def row_of(task: str, name: str, traces: list[Trace], rule: Rule, knee: str) -> dict[str, Any]:
    outcomes = outcomes_of(traces, rule, KNEES[knee])
    leads = [each.lead for each in outcomes if each.lead is not None]
    return {
        "task": task,
        "method": name,
        "knee": knee,
        "seeds": sorted({trace.seed for trace in traces}),
        **counts_of(outcomes),
        "lead": mean(leads) if leads else None,
        "leads": {str(lead): times for lead, times in sorted(Counter(leads).items())},
        **rates_of(outcomes),
    }


def ticket_rows(traces: list[Trace], rule: Rule) -> list[dict[str, Any]]:
    rows = []
    for trace in traces:
        ring = rule(trace)
        rows.append(
            {
                "task": trace.task,
                "seed": trace.seed,
                "ticket": trace.ticket,
                "alarm": None if ring is None else ring.alarm,
                "kept": None if ring is None else ring.kept,
                **{f"knee ({name})": knee(trace) for name, knee in KNEES.items()},
            }
        )
    return rows


def goals_of(row: dict[str, Any], quick: bool) -> list[dict[str, Any]]:
    """The goals, from the monitor's row over all tasks; a quick run shows nothing of them."""
    named = [
        ("alarm within one round of the knee", "hit rate", 0.9, "higher"),
        ("false alarms", "false alarms", 0.1, "lower"),
    ]
    goals = []
    for name, rate, target, better in named:
        found = row[rate] or {"mean": None, "low": None, "high": None}
        value = found["mean"]
        met = None if quick or value is None else is_met(value, target, better)
        goals.append(
            {"name": name, "value": value, "low": found["low"], "high": found["high"],
             "target": target, "better": better, "met": met}
        )  # fmt: skip
    return goals


def is_met(value: float, target: float, better: str) -> bool:
    return value >= target if better == "higher" else value < target


def results(pilot: list[dict[str, Any]], runs: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Everything that the runs say, JSON-able."""
    of_pilot = [trace for run in pilot for trace in traces_of(run)]
    traces = [trace for run in runs for trace in traces_of(run)]
    if not quick:
        check_learnt([*of_pilot, *traces])
    rules = rules_of(of_pilot)
    monitor = rules["monitor"][0]
    total = row_of("all", "monitor", traces, monitor, PRIMARY_KNEE)
    return {
        "benchmark": "collapse",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "quick": quick,
        "primary knee": PRIMARY_KNEE,
        "intervals": {"method": "bootstrap over runs", "draws": DRAWS, "level": LEVEL},
        "calibration": {"quantile": QUANTILE, "grid": GRID, **calibrated(of_pilot)},
        "rules": {name: settings for name, (_, settings) in rules.items()},
        "rows": all_rows(traces, rules),
        "tickets": ticket_rows(traces, monitor),
        "pilot tickets": ticket_rows(of_pilot, monitor),
        "goals": goals_of(total, quick),
        "pilot": pilot,
        "runs": runs,
    }


def all_rows(
    traces: list[Trace], rules: dict[str, tuple[Rule, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """One row a knee, task and rule, and the tasks together."""
    tasks = list(dict.fromkeys(trace.task for trace in traces))
    parts = {task: [t for t in traces if t.task == task] for task in tasks} | {"all": traces}
    return [
        row_of(task, name, part, rule, knee)
        for knee in KNEES
        for task, part in parts.items()
        for name, (rule, _) in rules.items()
    ]


def shown(value: dict[str, float | None] | None) -> str:
    """A rate with its interval, as far as there is one."""
    if value is None:
        return "-"
    low, high = value["low"], value["high"]
    ends = "" if low is None else f" [{low:.2f}, {high:.2f}]"
    return f"{value['mean']:.2f}{ends}"


def table(rows: list[dict[str, Any]]) -> str:
    body = [
        [
            *(row[name] for name in ("task", "method", "tickets", "knees", *KINDS)),
            "-" if row["lead"] is None else f"{row['lead']:+.1f}",
            *(shown(row[rate]) for rate in RATES),
        ]
        for row in rows
    ]
    headers = ["task", "rule", "tickets", "knees", *KINDS, "lead", *RATES]
    return tabulate(body, headers=headers, disable_numparse=True)


def main() -> None:
    """Run what is not there yet, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one short run a task; says nothing of the goals"
    )
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/collapse"),
        help="keep finished runs here, and take those of the same settings (default: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args()
    pilot = recorded(PILOT, arguments.runs, arguments.quick)
    runs = recorded(VALIDATION, arguments.runs, arguments.quick)
    content = results(pilot, runs, arguments.quick)
    for knee in KNEES:
        print(f"\nknee: {knee}\n")
        print(table([row for row in content["rows"] if row["knee"] == knee]))
    print(f"\nlimits from the pilot: {content['calibration']}; judged: {content['rules']}")
    for goal in content["goals"]:
        print(f"{goal['name']}: {shown_goal(goal)}")
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(content) + "\n").encode())


def shown_goal(goal: dict[str, Any]) -> str:
    value = None if goal["value"] is None else {"mean": goal["value"], **goal}
    met = {True: "met", False: "missed", None: "not judged"}[goal["met"]]
    sign = ">=" if goal["better"] == "higher" else "<"
    return f"{shown(value)}, goal {sign} {goal['target']}: {met}"


if __name__ == "__main__":
    main()
