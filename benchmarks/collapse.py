"""Does an alarm without labels tell when tickets collapse?

    python -m benchmarks.collapse --json benchmarks/results/collapse.cpu.json

Tickets of three tasks are pruned until accuracy is gone. Pilot runs set the limits of the monitor
without labels, and those of naive rules with labels; other seeds, and another photograph, judge.
About 70 minutes on two CPU cores; `--runs` keeps finished runs, so that it can be interrupted.
"""

import argparse
import dataclasses
import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.collapse_calibration import GRID, QUANTILE, calibrated
from benchmarks.collapse_rules import (
    KNEES,
    NAIVE,
    PRIMARY_KNEE,
    Alarm,
    Score,
    Trace,
    best_limit,
    monitored,
    scored,
    traces_of,
)
from benchmarks.collapse_runs import ENVIRONMENTS, ONE_VS_REST, CollapseTask, inr_task, run_of
from rtl_plugin import CollapseRule
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.evaluation.statistics import confidence_interval

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


def recorded(
    plan: list[tuple[CollapseTask, tuple[int, ...]]], cache: Path, quick: bool
) -> list[dict[str, Any]]:
    runs = []
    for task, seeds in plan:
        if quick:
            task, seeds = dataclasses.replace(task, steps=10, rounds=8), seeds[:1]
        runs += [run_of(task, seed, cache) for seed in seeds]
    return runs


def alarms_of(pilot: list[Trace]) -> dict[str, tuple[Alarm, dict[str, Any]]]:
    """Every rule with the parameters that it is judged at."""
    rule = CollapseRule()
    rules: dict[str, tuple[Alarm, dict[str, Any]]] = {
        "monitor": (monitored(rule), rule.description())
    }
    for name, (make, _) in NAIVE.items():
        limit = best_limit(name, pilot, KNEES[PRIMARY_KNEE])
        rules[name] = (make(limit), {"limit": limit})
    return rules


def row_of(task: str, name: str, traces: list[Trace], alarm: Alarm, knee: str) -> dict[str, Any]:
    score = scored(traces, alarm, KNEES[knee])
    seeds = sorted({trace.seed for trace in traces})
    by_seed = [scored([t for t in traces if t.seed == seed], alarm, KNEES[knee]) for seed in seeds]
    kept = [(t, (alarm(t) or t.rounds + 1) - 1) for t in traces]
    return {
        "task": task,
        "method": name,
        "knee": knee,
        "seeds": seeds,
        **{k: v for k, v in dataclasses.asdict(score).items() if k != "leads"},
        "lead": mean_or_none(score.leads),
        "leads": {str(lead): score.leads.count(lead) for lead in sorted(set(score.leads))},
        "hit rate": interval([s.hit_rate for s in by_seed if s.knees]),
        "precision": None if not score.alarms else score.precision,
        "false alarms": interval([s.false_alarms for s in by_seed]),
        "quality kept": interval(
            [np.mean([t.quality(r) for t, r in kept if t.seed == seed]) for seed in seeds]
        ),
        "sparsity kept": interval(
            [np.mean([1 - t.densities[r] for t, r in kept if t.seed == seed]) for seed in seeds]
        ),
    }


def interval(values: list[Any]) -> dict[str, float | None] | None:
    if not values:
        return None
    found = confidence_interval([float(value) for value in values])
    return {"mean": found["mean"], "low": found["low"], "high": found["high"]}


def mean_or_none(values: tuple[int, ...]) -> float | None:
    return float(np.mean(values)) if values else None


def ticket_rows(traces: list[Trace], alarm: Alarm) -> list[dict[str, Any]]:
    return [
        {
            "task": trace.task,
            "seed": trace.seed,
            "ticket": trace.ticket,
            "alarm": alarm(trace),
            **{f"knee ({name})": knee(trace) for name, knee in KNEES.items()},
        }
        for trace in traces
    ]


def goals_of(total: Score, quick: bool) -> list[dict[str, Any]]:
    goals = [
        ("alarm within one round of the knee", total.hit_rate, 0.9, "higher"),
        ("false alarms", total.false_alarms, 0.1, "lower"),
    ]
    return [
        {
            "name": name,
            "value": value,
            "target": target,
            "better": better,
            "met": None
            if quick
            else bool(value >= target if better == "higher" else value < target),
        }
        for name, value, target, better in goals
    ]


def results(pilot: list[dict[str, Any]], runs: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    of_pilot = [trace for run in pilot for trace in traces_of(run)]
    traces = [trace for run in runs for trace in traces_of(run)]
    rules = alarms_of(of_pilot)
    tasks = list(dict.fromkeys(trace.task for trace in traces))
    parts = {task: [t for t in traces if t.task == task] for task in tasks} | {"all": traces}
    rows = [
        row_of(task, name, part, alarm, knee)
        for knee in KNEES
        for task, part in parts.items()
        for name, (alarm, _) in rules.items()
    ]
    monitor = rules["monitor"][0]
    return {
        "benchmark": "collapse",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "primary knee": PRIMARY_KNEE,
        "calibration": {
            "quantile": QUANTILE, "grid": GRID, **calibrated(of_pilot),
        },
        "rules": {name: settings for name, (_, settings) in rules.items()},
        "rows": rows,
        "tickets": ticket_rows(traces, monitor),
        "pilot tickets": ticket_rows(of_pilot, monitor),
        "goals": goals_of(scored(traces, monitor, KNEES[PRIMARY_KNEE]), quick),
        "pilot": pilot,
        "runs": runs,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    def shown(value: dict[str, float | None] | None) -> str:
        if value is None:
            return "-"
        low, high = value["low"], value["high"]
        ends = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        return f"{value['mean']:.2f}{ends}"

    fields = ("hit rate", "false alarms", "quality kept", "sparsity kept")
    body = [
        [
            row["task"], row["method"], row["tickets"], row["knees"], row["hits"], row["early"],
            row["late"], row["missed"] + row["needless"],
            "-" if row["lead"] is None else f"{row['lead']:+.1f}",
            *(shown(row[field]) for field in fields),
        ]
        for row in rows
    ]  # fmt: skip
    headers = ["task", "rule", "tickets", "knees", "hits", "early", "late", "none", "lead", *fields]
    return tabulate(body, headers=headers, disable_numparse=True)


def main() -> None:
    """Run what is not there yet, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short run a task")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--runs", type=Path, help="keep finished runs here, and take those there")
    arguments = parser.parse_args()
    cache = arguments.runs or Path("collapse-runs-quick" if arguments.quick else "collapse-runs")
    pilot = recorded(PILOT, cache, arguments.quick)
    runs = recorded(VALIDATION, cache, arguments.quick)
    content = results(pilot, runs, arguments.quick)
    for knee in KNEES:
        print(f"\nknee: {knee}\n")
        print(table([row for row in content["rows"] if row["knee"] == knee]))
    print(f"\nlimits from the pilot: {content['calibration']}; judged: {content['rules']}")
    for goal in content["goals"]:
        print(f"{goal['name']}: {goal['value']:.3f}, goal {goal['target']}: met {goal['met']}")
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(content) + "\n").encode())


if __name__ == "__main__":
    main()
