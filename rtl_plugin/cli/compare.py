"""``rtl-plugin compare``: all methods on a task, with one budget, over seeds."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rtl_plugin import baselines
from rtl_plugin.baselines.methods import METHODS
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.cli.named_objects import load_object
from rtl_plugin.discovery import GeometricSchedule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks import ComparisonTask
from rtl_plugin.tasks.digits import digits_task

_HELP = "compare adaptive tickets with baselines and ablations on a task"
_EPILOG = """\
A task of your own is a function that returns rtl_plugin.tasks.ComparisonTask:
  rtl-plugin compare my_module:my_task --sparsity 0.9 --seeds 5 --run-folder runs/mine

Methods: """ + ", ".join(METHODS)


def add_parser(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser(
        "compare",
        help=_HELP,
        description=_HELP.capitalize() + ".",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "task", nargs="?", default="digits", help="'digits' (default) or package.module:function"
    )
    parser.add_argument("--sparsity", type=float, default=0.9, help="in (0, 1); default 0.9")
    parser.add_argument("--rounds", type=int, default=4, help="pruning rounds; default 4")
    parser.add_argument("--steps", type=int, default=25, help="steps a round and group; default 25")
    parser.add_argument("--epochs", type=int, default=1, help="retraining epochs; default 1")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds; default 3")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", default=list(METHODS))
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="columns of the table")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--run-folder", type=Path, help="checkpoint here; run again to resume")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON; - for the screen")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison and print or write it."""
    task = task_named(arguments.task)
    result = baselines.compare(
        task.build_model,
        task.groups,
        task.loss,
        schedule=GeometricSchedule(arguments.sparsity, rounds=arguments.rounds),
        steps=arguments.steps,
        epochs=arguments.epochs,
        optimizer=task.optimizer,
        methods=arguments.methods,
        seeds=range(arguments.seeds),
        protocol=task.protocol,
        single=task.single,
        split=arguments.split,
        task=task.name,
        run_folder=arguments.run_folder,
        prunable=task.prunable,
    )
    content = json.dumps({"rows": result.rows, "raw": result.raw}, indent=1) + "\n"
    if arguments.json == Path("-"):
        sys.stdout.write(content)
        return
    if arguments.json is not None:
        write_atomically(arguments.json, content.encode())
    sys.stdout.write(result.table(arguments.metrics) + "\n")


def task_named(name: str) -> ComparisonTask:
    """The task of a command line.

    Args:
        name: ``"digits"`` or ``package.module:name`` of a task or a function returning one.

    Returns:
        The task.

    Raises:
        InvalidArgument: it is not a task.
    """
    if name == "digits":
        return digits_task()
    found = load_object(name)
    task = found() if callable(found) else found
    if not isinstance(task, ComparisonTask):
        raise InvalidArgument(f"{name} gave a {type(task).__name__}, not a ComparisonTask")
    return task
