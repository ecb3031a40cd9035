"""The same search under Optuna, in one process and without NNI.

    python examples/nni_search/optuna_search.py

The trial function, the search space and the rule that stops are those of the NNI experiment; only
who proposes is another. Needs the package optuna.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import outcome
import task
import torch

import rtl_nni


def suggested(trial: optuna.Trial, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of an NNI search space, proposed by Optuna.

    Args:
        trial: Optuna's.
        space: with choices, ranges of whole numbers, and (log-)uniform ranges.

    Returns:
        Name -> value.
    """
    return {name: _value(trial, name, e["_type"], e["_value"]) for name, e in space.items()}


def _value(trial: optuna.Trial, name: str, kind: str, values: list[Any]) -> Any:
    if kind == "choice":
        # Optuna's categories are plain values; a choice of NNI's may be a list.
        return json.loads(trial.suggest_categorical(name, [json.dumps(v) for v in values]))
    if kind == "randint":
        return trial.suggest_int(name, values[0], values[1] - 1)
    if kind in ("uniform", "loguniform"):
        return trial.suggest_float(name, *values, log=kind == "loguniform")
    raise ValueError(f"{name}: no counterpart of NNI's {kind} here")


def main() -> None:
    """Search, then tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("optuna-output"))
    parser.add_argument("--trials", type=int, default=16, help="default 16")
    parser.add_argument("--seed", type=int, default=0, help="of sampler and trials; default 0")
    arguments = parser.parse_args()
    trials = arguments.output / "trials"

    def objective(trial: optuna.Trial) -> float:
        result = task.run(
            {**suggested(trial, task.space()), "seed": arguments.seed},
            folder=trials / f"{trial.number:03d}",
            warm_start=True,
            stop=rtl_nni.CollapseStop(),
            report=lambda round, metric: trial.report(metric, round),
        )
        if result.stopped is not None:
            raise optuna.TrialPruned(result.stopped.reason)
        assert result.metric is not None
        return result.metric

    torch.set_num_threads(1)
    sampler = optuna.samplers.TPESampler(seed=arguments.seed, n_startup_trials=8)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=arguments.trials)
    outcome.tell(trials, arguments.output)


if __name__ == "__main__":
    main()
