"""Whole trials of a search, none stopped: what every assessor is then asked about."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.errors import RtlError

EXAMPLE = Path(__file__).parents[1] / "examples" / "nni_search"
# What assessors are told, and what a round costs.
_OF_A_ROUND = "round of target alike sparsity metric names prunable shared left steps".split()
Trial = dict[str, Any]


def task_of_example() -> Any:
    """The search's task; its folder is one of scripts, not a package."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import task
    finally:
        sys.path.remove(str(EXAMPLE))
    return task


def recorded_search(seed: int, trials: int, startup: int, cache: Path) -> list[Trial]:
    """A search by NNI's TPE tuner, one trial after the other, every trial to its end.

    Args:
        seed: of the tuner, and of every trial.
        trials: how many.
        startup: proposals before the tuner uses what it was told.
        cache: where finished trials are kept.

    Returns:
        The trials in order: params, rounds, metric and costs; a trial that failed has ``error``.
    """
    from nni.algorithms.hpo.tpe_tuner import TpeTuner

    task = task_of_example()
    args = {"n_startup_jobs": startup, "constant_liar_type": None}
    tuner = TpeTuner("maximize", seed=seed, tpe_args=args)
    tuner.update_search_space(task.space())
    found = []
    for number in range(trials):
        params = tuner.generate_parameters(number)
        trial = to_its_end(task, {**params, "seed": seed}, cache / f"seed-{seed}" / f"{number:03d}")
        if "error" not in trial:
            tuner.receive_trial_result(number, params, trial["metric"])
        tuner.trial_end(number, "error" not in trial)
        found.append({"seed": seed, "number": number, **trial})
    return found


def to_its_end(task: Any, params: Mapping[str, Any], folder: Path) -> Trial:
    """One trial that nobody stops.

    Args:
        task: the example's.
        params: of the trial.
        folder: its own; a trial that is there already is read.

    Returns:
        Params, rounds, metric and costs; or ``error`` where it failed.
    """
    kept = folder / "recorded.json"
    if kept.exists():
        trial: Trial = json.loads(kept.read_text(encoding="utf-8"))
        if trial["params"] != params:
            raise ValueError(f"{kept} was recorded with {trial['params']}: use another --cache")
        return trial

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Rounds of other trials of this search are taken over: the same bits, in less time.
        result = task.run(params, folder=folder, report=None, warm_start=True)
        rounds = [json.loads(line) for line in _lines(folder / "rtl" / "rounds.jsonl")]
        for row in rounds:
            row["steps"] = params["steps"] * len(row["names"])  # as if it had trained them all
        trial = {
            "params": dict(params),
            "metric": result.metric,
            "parameters": result.parameters,
            "sparsity": result.sparsity,
            "steps": result.steps_planned,
            "rounds": [{name: row[name] for name in _OF_A_ROUND} for row in rounds],
        }
    except RtlError as error:  # a configuration that cannot be run is an outcome of a search
        trial = {"params": dict(params), "error": f"{type(error).__name__}: {error}"}
    finally:
        torch.set_num_threads(threads)
    write_atomically(kept, json.dumps(trial).encode())
    return trial


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
