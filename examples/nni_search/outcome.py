"""What a search came to: its trials, what was saved, the front, and the quickstart beside it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import task
import torch

import rtl_nni

FILES = ("pareto.png", "search.json")


def tell(experiment: Path, output: Path) -> dict[str, Any]:
    """Print the outcome of an experiment and write ``FILES``.

    Args:
        experiment: its folder.
        output: where the files go.

    Returns:
        What is in the JSON.
    """
    records = rtl_nni.read_trials(experiment)
    seeds = [record.params["seed"] for record in records if "seed" in record.params]
    default = quickstart(seeds[0] if seeds else 0)
    print(rtl_nni.trial_table(records))
    spent = rtl_nni.budget(records)
    print(f"\n{spent}\n")
    finished = [record for record in records if record.metric is not None]
    best = rtl_nni.best_trial(records)
    if best is None:
        raise SystemExit("no trial was finished: nothing to compare")
    print(rtl_nni.pareto_table(records))
    print(f"\nBest: trial {best.label}, {figures(best)} (validation split)")
    print(f"The quickstart's configuration: {figures(default)}")
    at_most = [r for r in finished if r.parameters <= default.parameters]
    sparse = max(at_most, key=lambda record: record.metric, default=None)
    if sparse is None:
        print("No finished trial has as few parameters as that.")
    else:
        print(f"Best of those with no more parameters: trial {sparse.label}, {figures(sparse)}")
    output.mkdir(parents=True, exist_ok=True)
    rtl_nni.pareto_plot(
        records,
        output / "pareto.png",
        reference={"quickstart": (default.parameters, default.metric)},
        metric_name="validation accuracy",
        title="Digits in five environments: trials of one search",
    )
    found = {
        "experiment": experiment.name,
        "seed": seeds[0] if seeds else 0,
        "budget": asdict(spent),
        "quickstart": {"metric": default.metric, "parameters": default.parameters},
        "best": {"trial": best.label, "metric": best.metric, "parameters": best.parameters},
        "trials": [asdict(record) for record in records],
    }
    (output / "search.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"\nWrote {' and '.join(FILES)} to {output}.")
    return found


def figures(trial: Any) -> str:
    """A trial's three figures in words."""
    return (
        f"accuracy {trial.metric:.4f} with {trial.parameters:,} parameters "
        f"at {trial.sparsity:.1%} sparsity"
    )


def quickstart(seed: int) -> rtl_nni.TrialResult:
    """The quickstart's configuration as a trial outside the experiment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return task.run({**task.QUICKSTART, "seed": seed}, report=None)
    finally:
        torch.set_num_threads(threads)
