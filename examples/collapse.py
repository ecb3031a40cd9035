"""Prune tickets to 99 % on real digits and watch them warn before accuracy breaks down.

    python examples/collapse.py                        # five environments, two to five minutes
    python examples/collapse.py --task one-vs-rest     # ten classes, each against the rest
    python examples/collapse.py --stop                 # every ticket stops at its own knee

The shape is that of Figure 2 of Routing the Lottery (arXiv 2601.22141): while accuracy holds,
tickets drift apart; shortly before it breaks down, they grow alike again. The figure and the run
folder (for `rtl-plugin report`) are written to `collapse-output`.
"""

import argparse
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

from tabulate import tabulate

import rtl_plugin as rtl
from rtl_plugin.diagnostics.curves import TicketCurve, ticket_curves
from rtl_plugin.reports.curve_plots import curves_plot
from rtl_plugin.tasks import digits, one_vs_rest_digits


def discovered(arguments: argparse.Namespace, folder: Path) -> tuple[rtl.TicketSet, str]:
    """The tickets, with everything that was measured on the way, and what was measured."""
    shared = {
        "schedule": rtl.GeometricSchedule(arguments.sparsity, rounds=arguments.rounds),
        "steps": arguments.steps,
        "optimizer": digits.adam,
        "floor": 0.001,  # the default of 1 % a layer would itself be the limit at 99 %
        "stop_before_collapse": arguments.stop,
        "seed": arguments.seed,
        "run_folder": folder,
        "progress": True,
    }
    if arguments.task == "one-vs-rest":
        tickets = rtl.discover(
            one_vs_rest_digits.detector(arguments.seed),
            one_vs_rest_digits.one_vs_rest_digits(),
            one_vs_rest_digits.binary_cross_entropy,
            evaluate=one_vs_rest_digits.balanced_accuracy,
            **shared,
        )
        return tickets, "balanced accuracy"
    tickets = rtl.discover(
        digits.small_conv_net(arguments.seed),
        digits.digit_environments(),
        digits.cross_entropy,
        evaluate=digits.accuracy,
        **shared,
    )
    return tickets, "accuracy"


def curve_table(curves: dict[str, TicketCurve], metric: str) -> str:
    """Means over the tickets that went through a round."""
    rounds = sorted({point.round for curve in curves.values() for point in curve.points})
    rows = []
    for round in rounds:
        points = [p for curve in curves.values() for p in curve.points if p.round == round]
        rung = [c.name for c in curves.values() if c.alarm and c.alarm["round"] == round]
        means = [
            statistics.mean(values) if len(values) == len(points) else None
            for values in (
                [p.metric for p in points if p.metric is not None],
                [p.similarity for p in points if p.similarity is not None],
                [p.excess for p in points if p.excess is not None],
            )
        ]
        rows.append([round, f"{points[0].sparsity:.2%}", *means, ", ".join(rung)])
    headers = ["round", "sparsity", metric, "similarity", "over chance", "alarm"]
    return tabulate(rows, headers=headers, floatfmt=".3f", disable_numparse=[1])


def alarm_lines(log: Path) -> tuple[list[str], int]:
    """Every alarm with the time at which it first rang, and how many lines could not be read."""
    rung: dict[tuple[int, str], str] = {}
    unreadable = 0
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        event = read_event(line)
        unreadable += event is None and bool(line.strip())
        if event is None or event.get("event") != "compared" or not event.get("alarm"):
            continue
        # A resumed run compares its last round once more: the first time counts.
        when = datetime.datetime.fromtimestamp(event["time"])
        text = f"{when:%Y-%m-%d %H:%M:%S}  {event['alarm']['explanation']}"
        rung.setdefault((event["round"], event["group"]), text)
    return list(rung.values()), unreadable


def read_event(line: str) -> dict[str, Any] | None:
    """A line of the log; None for one that a killed run has left half written."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("environments", "one-vs-rest"), default="environments")
    parser.add_argument("--sparsity", type=float, default=0.99)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200, help="training steps a group and round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", action="store_true", help="stop every ticket where it rings")
    parser.add_argument("--output", type=Path, default=Path("collapse-output"))
    arguments = parser.parse_args()
    folder = arguments.output / f"{arguments.task}-seed-{arguments.seed}"
    folder = folder.with_name(folder.name + "-stopped") if arguments.stop else folder
    tickets, metric = discovered(arguments, folder)
    curves = ticket_curves(tickets.history)
    print(curve_table(curves, metric))
    print()
    lines, unreadable = alarm_lines(folder / "log.jsonl")
    print("\n".join(lines) if lines else "no alarm rang")
    if unreadable:
        print(f"skipped in {folder / 'log.jsonl'}, for being no JSON object: {unreadable} line(s)")
    for curve in curves.values():
        if curve.left:
            print(f"{curve.name} kept round {curve.kept_round}: {curve.kept.sparsity:.2%} sparse")
    curves_plot(curves, folder / "curves.png", metric_name=metric)
    print(f"\n{folder / 'curves.png'}\nrtl-plugin report {folder} -o {folder / 'report.html'}")


if __name__ == "__main__":
    main()
