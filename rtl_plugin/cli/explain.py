"""``rtl-plugin explain``: what may be pruned in a model, and why not the rest."""

import argparse
import dataclasses
import json
import sys
from typing import Any

import torch

from rtl_plugin import prunable
from rtl_plugin.cli.named_objects import called, load_object
from rtl_plugin.errors import InvalidArgument

_HELP = "print every parameter of a model with its verdict and the reason"


def add_parser(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser("explain", help=_HELP, description=_HELP.capitalize() + ".")
    parser.add_argument(
        "model", help="package.module:name of a model, a model class, or a function returning one"
    )
    parser.add_argument(
        "--prunable",
        nargs="+",
        metavar="PATTERN",
        help="name patterns such as 'encoder.*.weight'; default: convolution and linear weights "
        "except the last linear layer",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the table or the JSON; an error when nothing is prunable."""
    model = load_object(arguments.model)
    if not isinstance(model, torch.nn.Module):
        model = called(arguments.model, model)
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgument(f"{arguments.model} gave a {type(model).__name__}, not an nn.Module")
    if not arguments.json:
        prunable.explain(model, arguments.prunable)
        return
    rows = [dataclasses.asdict(v) for v in prunable.verdicts(model, arguments.prunable)]
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    prunable.select_prunable(model, arguments.prunable)
