"""``rtl-plugin report``: a run folder as one HTML page."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rtl_plugin.reports import write_report, write_tensorboard
from rtl_plugin.reports.tensorboard import check_tensorboard

_HELP = "write one self-contained HTML page about a run folder"


def add_parser(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser("report", help=_HELP, description=_HELP.capitalize() + ".")
    parser.add_argument(
        "run_folder",
        type=Path,
        metavar="RUN_FOLDER",
        help="run_folder of discover, retrain or compare, or the output of the quickstart; only "
        "read, finished or not",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; default report.html, unless --tensorboard is given alone",
    )
    parser.add_argument("--title", help="heading of the page; default: the folder's name")
    parser.add_argument(
        "--metric",
        default="accuracy",
        metavar="NAME",
        help="what discover(evaluate=...) measured; default accuracy",
    )
    parser.add_argument(
        "--comparison",
        type=Path,
        metavar="FILE",
        help="what 'compare --json FILE' wrote; default: the one in the folder",
    )
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="FOLDER",
        help="write the curves as TensorBoard events, too",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the page, the events, or both; an error when the folder is no run."""
    logdir = arguments.tensorboard
    if logdir is not None:
        check_tensorboard(logdir, arguments.metric)
    page_options = (arguments.output, arguments.comparison, arguments.title)
    if logdir is None or any(option is not None for option in page_options):
        output = arguments.output or Path("report.html")
        write_report(
            arguments.run_folder,
            output,
            comparison=arguments.comparison,
            title=arguments.title,
            metric=arguments.metric,
        )
        sys.stdout.write(f"wrote {output} ({output.stat().st_size:,} bytes)\n")
    if logdir is not None:
        count = write_tensorboard(arguments.run_folder, logdir, metric=arguments.metric)
        sys.stdout.write(f"wrote {count:,} values for TensorBoard to {logdir}\n")
