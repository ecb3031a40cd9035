"""``rtl-plugin compare``: all methods on a task, with one budget, over seeds."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rtl_plugin import baselines
from rtl_plugin.baselines.methods import METHODS
from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.cli.arguments import at_least_one, wrapped
from rtl_plugin.cli.named_objects import called, load_object
from rtl_plugin.discovery import GeometricSchedule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks import ComparisonTask
from rtl_plugin.tasks.digits import digits_task

_HELP = "compare adaptive tickets with baselines and ablations on a task"
_EPILOG = """\
A task of your own is a function that returns rtl_plugin.tasks.ComparisonTask:
  rtl-plugin compare my_module:my_task --seeds 5 --run-folder runs/mine
  rtl-plugin compare --methods 'adaptive tickets' dense --split validation

""" + wrapped("Methods: " + ", ".join(f"'{name}'" for name in METHODS))


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
    parser.add_argument(
        "--sparsity", type=float, default=0.9, metavar="S", help="in (0, 1); default 0.9"
    )
    for name, default, text in (
        ("rounds", 4, "pruning rounds"),
        ("steps", 25, "steps a round and group"),
        ("epochs", 1, "retraining epochs"),
        ("seeds", 3, "number of seeds: 0, 1, ..."),
    ):
        parser.add_argument(
            f"--{name}", type=at_least_one, default=default, metavar="N",
            help=f"{text}; default {default}",
        )  # fmt: skip
    _add_choices(parser)
    parser.set_defaults(run=run)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """What is compared, measured and written."""
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD", help="see below; default: all that fit the task"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="columns of the table; default: all but those of single groups",
    )
    parser.add_argument(
        "--split",
        choices=("test", "validation"),
        default="test",
        help="measure on the test split (default), or on the validation split to tune",
    )
    parser.add_argument(
        "--run-folder",
        type=Path,
        metavar="FOLDER",
        help="checkpoint here; the same command again resumes",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write rows and raw results as JSON too; - prints them instead of the table",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison and print or write it."""
    task = task_named(arguments.task)
    _check_outputs(arguments, task)
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


def _check_outputs(arguments: argparse.Namespace, task: ComparisonTask) -> None:
    """What would fail when everything is trained, after hours."""
    known = task.protocol.metrics(task.groups)
    unknown = [metric for metric in arguments.metrics or () if metric not in known]
    if unknown:
        raise InvalidArgument(f"unknown metrics {unknown}: the task has {', '.join(known)}")
    if arguments.json is not None and arguments.json.is_dir():
        raise InvalidArgument(f"--json takes a file, {arguments.json} is a folder")


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
    task = found if isinstance(found, ComparisonTask) else called(name, found)
    if not isinstance(task, ComparisonTask):
        raise InvalidArgument(f"{name} gave a {type(task).__name__}, not a ComparisonTask")
    return task
