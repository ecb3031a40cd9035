"""Real NNI experiments over five seeds: what the assessor saved, and what it cost.

    python -m benchmarks.nni_search --json benchmarks/results/nni_search.cpu.json

Runs examples/nni_search/search.py (NNI's manager, TPE, CollapseAssessor, 16 trials, two at a time,
warm start) once a seed. Afterwards every trial that was stopped is run to its end outside the
experiment, so that what was lost is known and not guessed; trials are deterministic. A budget is
counted in optimizer steps of all trials; steps in the round in which a trial was killed are counted
as done. About 40 minutes on two CPU cores.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from benchmarks.search_recording import EXAMPLE, task_of_example, to_its_end
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.evaluation import confidence_interval

SEEDS = (0, 1, 2, 3, 4)
SAVED, KEPT = 0.3, 1.0
LIMIT_SECONDS = 15 * 60
Row = dict[str, Any]


def main() -> None:
    """Run, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 3 trials: a smoke run")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--folder", type=Path, help="where experiments are kept; resumes by seed")
    arguments = parser.parse_args()
    seeds, trials = (SEEDS[:1], 3) if arguments.quick else (SEEDS, 16)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="nni-search-"))
    rows = []
    for seed in seeds:
        rows.append(judged(searched(seed, trials, folder.resolve()), folder))
        print(text(rows[-1:]), flush=True)
        if arguments.json:
            content = json.dumps(results_of(rows, trials), indent=1) + "\n"
            write_atomically(arguments.json, content.encode())
    print(text(rows))


def searched(seed: int, trials: int, folder: Path) -> Row:
    """One experiment, by the example's own command.

    Args:
        seed: of tuner and trials.
        trials: how many.
        folder: its output goes below.

    Returns:
        The example's JSON, with the seconds that it took and what was running afterwards.
    """
    output = folder / f"seed-{seed}"
    kept = output / "search.json"
    if not kept.exists():
        command = [sys.executable, "search.py", "--seed", str(seed), "--trials", str(trials)]
        began = time.perf_counter()
        subprocess.run([*command, "--output", str(output)], cwd=EXAMPLE, check=True)
        found = json.loads(kept.read_text(encoding="utf-8"))
        found |= {"seconds": time.perf_counter() - began, "left_running": left(found["experiment"])}
        write_atomically(kept, json.dumps(found).encode())
    found = json.loads(kept.read_text(encoding="utf-8"))
    if "seconds" not in found:
        raise RuntimeError(f"{output} is of an interrupted run: delete it")
    return dict(found)


def left(experiment: str) -> int:
    """Processes that still belong to an experiment: those that name it."""
    shown = subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    own = str(os.getpid())
    return sum(experiment in line and line.split()[0] != own for line in shown.splitlines())


def judged(found: Row, folder: Path) -> Row:
    """What one experiment's assessor saved and cost.

    Args:
        found: the example's JSON.
        folder: where stopped trials are run to their end.

    Returns:
        A row of the results.
    """
    task, ended = task_of_example(), []
    stopped = [trial for trial in found["trials"] if trial["status"] == "stopped"]
    for trial in stopped:
        params = {**trial["params"], "seed": found["seed"]}
        cache = folder / f"ended-{found['seed']}" / trial["name"]
        ended.append(to_its_end(task, params, cache))
        check_repeats(trial, ended[-1])
    finished = [trial for trial in found["trials"] if trial["status"] == "finished"]
    best = found["best"]["metric"]
    most = found["quickstart"]["parameters"]
    as_small = [trial for trial in finished if trial["parameters"] <= most]
    sparse = max(as_small, key=lambda trial: trial["metric"], default=None)
    lost = [trial["metric"] for trial in ended if trial.get("metric") is not None]
    budget = found["budget"]
    return {
        "seed": found["seed"],
        "seconds": found["seconds"],
        "left_running": found["left_running"],
        "finished": len(finished),
        "stopped": len(stopped),
        "others": len(found["trials"]) - len(finished) - len(stopped),
        "planned": budget["planned"],
        "saved_by_assessor": budget["stopped"] / budget["planned"],
        "saved_by_reuse": budget["reused"] / budget["planned"],
        "seconds_saved_by_reuse": budget["seconds_saved"],
        "best": best,
        "best_parameters": found["best"]["parameters"],
        "best_as_small": None if sparse is None else sparse["metric"],
        "best_as_small_parameters": None if sparse is None else sparse["parameters"],
        "best_of_stopped": max(lost, default=None),
        "best_kept": all(metric <= best for metric in lost),
        "quickstart": found["quickstart"]["metric"],
        "quickstart_parameters": found["quickstart"]["parameters"],
        "at_least_quickstart": best >= found["quickstart"]["metric"],
        "trials": [
            {key: trial[key] for key in ("params", "status", "metric", "sparsity", "parameters",
             "rounds", "steps_planned", "steps_done", "steps_reused", "reason")}
            for trial in found["trials"]
        ],
        "stopped_trials_run_to_their_end": [trial.get("metric") for trial in ended],
    }  # fmt: skip


def check_repeats(stopped: Row, ended: Row) -> None:
    """What was stopped, run again: its figures up to there must be the same.

    Raises:
        RuntimeError: they are not, so the comparison would be of something else; or it failed.
    """
    if "error" in ended:
        raise RuntimeError(f"trial {stopped['name']} failed outside NNI: {ended['error']}")
    again = [row["metric"] for row in ended["rounds"]][: len(stopped["intermediate"])]
    if again != list(stopped["intermediate"]):
        raise RuntimeError(f"trial {stopped['name']} does not repeat: {stopped['intermediate']}")


def results_of(rows: Sequence[Row], trials: int) -> Row:
    """The JSON."""
    return {
        "benchmark": "nni_search",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores, one thread a trial",
        "versions": {name: version(name) for name in ("torch", "numpy", "nni", "mlxtend")},
        "trials": trials,
        "rows": list(rows),
        "goals": goals(rows),
    }


def goals(rows: Sequence[Row]) -> list[Row]:
    """What was asked of the search."""
    saved = fmean(row["saved_by_assessor"] for row in rows)
    kept = fmean(row["best_kept"] for row in rows)
    good = fmean(row["at_least_quickstart"] for row in rows)
    slowest = max(row["seconds"] for row in rows)
    judge = [
        ("share of the trials' budget saved by the assessor", saved, SAVED, "higher"),
        ("searches whose best trial was kept", kept, KEPT, "higher"),
        ("searches at least as good as the quickstart's configuration", good, 1.0, "higher"),
        ("seconds of the slowest search", slowest, LIMIT_SECONDS, "lower"),
        ("processes left", sum(row["left_running"] for row in rows), 0, "lower"),
    ]
    return [
        {"name": name, "value": value, "target": target, "better": better,
         "met": value >= target if better == "higher" else value <= target}
        for name, value, target, better in judge
    ]  # fmt: skip


def text(rows: Sequence[Row]) -> str:
    """The table, a line a seed, and the mean share saved with its 95 % interval."""
    lines = [
        (
            row["seed"],
            f"{row['seconds']:.0f}",
            f"{row['finished']}/{row['stopped']}/{row['others']}",
            f"{row['saved_by_assessor']:.1%}",
            f"{row['saved_by_reuse']:.1%}",
            f"{row['best']:.4f} ({row['best_parameters']:,})",
            _figures(row["best_as_small"], row["best_as_small_parameters"]),
            "-" if row["best_of_stopped"] is None else f"{row['best_of_stopped']:.4f}",
            f"{row['quickstart']:.4f} ({row['quickstart_parameters']:,})",
        )
        for row in rows
    ]
    headers = ("seed", "seconds", "finished/stopped/other", "saved by stops", "by reuse",
               "best (parameters)", "best as small", "best of stopped", "quickstart")  # fmt: skip
    table = tabulate(lines, headers=headers, disable_numparse=True)
    if len(rows) < 2:
        return table
    saved = confidence_interval([row["saved_by_assessor"] for row in rows])
    return f"{table}\nsaved by stops: {saved.mean:.1%} [{saved.low:.1%}, {saved.high:.1%}]"


def _figures(metric: float | None, parameters: int | None) -> str:
    return "-" if metric is None else f"{metric:.4f} ({parameters:,})"


if __name__ == "__main__":
    main()
