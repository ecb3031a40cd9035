"""Which assessor saves most of a search without stopping its good trials?

    python -m benchmarks.search_assessors --json benchmarks/results/search_assessors.cpu.json

Searches over adaptive tickets on real digits (examples/nni_search) by NNI's TPE tuner are recorded
with every trial run to its end; then CollapseAssessor, NNI's Medianstop and Curvefitting, and two
naive limits are asked about the same trials in the same order. CollapseAssessor sees no metric. The
naive limits are chosen on two other searches (`PILOT`): of `GRID`, the one that saves most while
both keep their best trial. A budget is counted in optimizer steps, against trials that each train
all their rounds. About 25 minutes on two CPU cores; `--cache` keeps recorded trials, so that it can
be interrupted.

What it does not show: a tuner that had heard of fewer trials would have proposed others, and a
real stop takes effect in the middle of the next round (benchmarks/nni_search.py has both); all
searches share their data.
"""

import argparse
import datetime
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from benchmarks.search_recording import Trial, recorded_search
from benchmarks.search_replay import Outcome, Stopper, fixed_limit, replayed, stoppers
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.evaluation import confidence_interval

PILOT, VALIDATION = (100, 101), (0, 1, 2, 3, 4)
TRIALS, STARTUP = 16, 8
GRID = (0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
OURS = "CollapseAssessor"
CLOSE = 0.01  # of accuracy: a stopped trial this close to the best would have been a good one
Row = dict[str, Any]
Searches = dict[int, list[Trial]]


def main() -> None:
    """Record, replay, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one search of 4 trials: a smoke run")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--cache", type=Path, default=Path("search_assessors-cache"))
    arguments = parser.parse_args()
    quick = arguments.quick
    trials, startup = (4, 2) if quick else (TRIALS, STARTUP)

    def recorded(seeds: Sequence[int]) -> Searches:
        seeds = seeds[:1] if quick else seeds
        return {s: recorded_search(s, trials, startup, arguments.cache) for s in seeds}

    results = results_of(recorded(PILOT), recorded(VALIDATION), startup)
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(results, indent=1) + "\n").encode())
    print(text(results))


def results_of(pilots: Searches, searches: Searches, startup: int) -> Row:
    """The JSON.

    Args:
        pilots: seed -> trials of the searches that the naive limits are chosen on.
        searches: seed -> trials of those that judge.
        startup: proposals before the tuner used what it was told.
    """
    naive = [chosen_limit(field, list(pilots.values())) for field in ("sparsity", "target")]
    rows = [
        {"method": stopper.name, "labels": stopper.labels, "seed": seed}
        | judged(whole(search), replayed(stopper, whole(search)))
        for stopper in [*stoppers(), *naive]
        for seed, search in searches.items()
    ]
    return {
        "benchmark": "search_assessors",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, one thread a trial",
        "versions": {name: version(name) for name in ("torch", "numpy", "nni", "mlxtend")},
        "startup": startup,
        "close": CLOSE,
        "grid": list(GRID),
        "rows": rows,
        "summary": summary(rows),
        "goals": goals(rows),
        "pilots": [trial for search in pilots.values() for trial in search],
        "raw": [trial for search in searches.values() for trial in search],
    }


def whole(search: Sequence[Trial]) -> list[Trial]:
    """The trials that ran to their end."""
    return [trial for trial in search if "error" not in trial]


def chosen_limit(field: str, pilots: Sequence[Sequence[Trial]]) -> Stopper:
    """The naive rule that saves most of the pilots while each keeps its best trial.

    Args:
        field: "sparsity" or "target".
        pilots: recorded searches.

    Returns:
        It; the highest limit where none keeps the best.
    """
    best, most = fixed_limit(field, GRID[-1]), -1.0
    for limit in GRID:
        stopper = fixed_limit(field, limit)
        found = [judged(whole(pilot), replayed(stopper, whole(pilot))) for pilot in pilots]
        saved = fmean(row["saved"] for row in found)
        if all(row["best_kept"] for row in found) and saved > most:
            best, most = stopper, saved
    return best


def judged(search: Sequence[Trial], outcomes: Sequence[Outcome]) -> Row:
    """What one assessor did to one search.

    Args:
        search: trials that ran to their end.
        outcomes: one a trial.

    Returns:
        saved (share of all optimizer steps), stopped, best_kept, regret (accuracy lost by taking
        the best of the others), good_lost (stopped trials within ``CLOSE`` of the best) of good,
        front_lost of front (trials on the Pareto front of accuracy and parameters), broke.
    """
    best = max(trial["metric"] for trial in search)
    pairs = list(zip(search, outcomes, strict=True))
    stopped = [trial for trial, outcome in pairs if outcome.stopped_after is not None]
    kept = [trial["metric"] for trial, outcome in pairs if outcome.stopped_after is None]
    good = [trial for trial in search if trial["metric"] >= best - CLOSE]
    front = [trial for trial in search if not any(_dominates(other, trial) for other in search)]
    planned = sum(trial["steps"] for trial in search)
    return {
        "trials": len(search),
        "stopped": len(stopped),
        "saved_by_importance": {
            importance: 1 - sum(o.steps_done for _, o in of_it) / sum(t["steps"] for t, _ in of_it)
            for importance in sorted({trial["params"]["importance"] for trial in search})
            if (of_it := [pair for pair in pairs if pair[0]["params"]["importance"] == importance])
        },
        "saved": 1 - sum(outcome.steps_done for outcome in outcomes) / planned,
        "best_kept": bool(kept) and max(kept) == best,
        "regret": best - max(kept) if kept else None,
        "good": len(good),
        "good_lost": sum(trial in good for trial in stopped),
        "front": len(front),
        "front_lost": sum(trial in front for trial in stopped),
        "broke": sum(outcome.broke for outcome in outcomes),
    }


def _dominates(one: Trial, other: Trial) -> bool:
    at_least = one["metric"] >= other["metric"] and one["parameters"] <= other["parameters"]
    same = one["metric"] == other["metric"] and one["parameters"] == other["parameters"]
    return at_least and not same


def summary(rows: Sequence[Row]) -> list[Row]:
    """A line a method: means over searches, the saved share with a 95 % interval."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        saved = [row["saved"] for row in own]
        regrets = [row["regret"] for row in own]
        interval = confidence_interval(saved) if len(saved) > 1 else None
        lines.append(
            {
                "method": method,
                "labels": own[0]["labels"],
                "saved": fmean(saved),
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "best_kept": sum(row["best_kept"] for row in own),
                "searches": len(own),
                # What an assessor that stopped every trial lost cannot be said.
                "regret": None if None in regrets else fmean(regrets),
                "good_lost": sum(row["good_lost"] for row in own),
                "good": sum(row["good"] for row in own),
                "front_lost": sum(row["front_lost"] for row in own),
                "front": sum(row["front"] for row in own),
                "broke": sum(row["broke"] for row in own),
            }
        )
    return lines


def goals(rows: Sequence[Row]) -> list[Row]:
    """What was asked of our assessor."""
    own = [row for row in rows if row["method"] == OURS]
    saved, kept = fmean(row["saved"] for row in own), fmean(row["best_kept"] for row in own)
    return [
        {"name": "share of the budget saved", "value": saved, "target": 0.3, "better": "higher",
         "met": saved >= 0.3},
        {"name": "searches whose best trial is kept", "value": kept, "target": 1.0,
         "better": "higher", "met": kept >= 1.0},
    ]  # fmt: skip


def text(results: Row) -> str:
    """The table."""
    lines = []
    for row in results["summary"]:
        between = f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] is not None else ""
        lines.append(
            (
                row["method"],
                "yes" if row["labels"] else "no",
                f"{row['saved']:.2f}{between}",
                f"{row['best_kept']} of {row['searches']}",
                "-" if row["regret"] is None else f"{row['regret']:.3f}",
                f"{row['good_lost']} of {row['good']}",
                f"{row['front_lost']} of {row['front']}",
                row["broke"],
            )
        )
    headers = ("assessor", "labels", "budget saved", "best kept", "accuracy lost",
               f"within {CLOSE:g} lost", "front lost", "no answer")  # fmt: skip
    return tabulate(lines, headers=headers, disable_numparse=True)


if __name__ == "__main__":
    main()
