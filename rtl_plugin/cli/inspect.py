"""``rtl-plugin inspect``: what a ticket file or mixture file holds."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rtl_plugin import ticket_file
from rtl_plugin.checkpoint import read_kind
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tickets import TicketSet

_KINDS = ("tickets", "mixture")
_HELP = "check a ticket or mixture file and print what it holds"


def add_parser(commands: Any) -> None:
    """Add the command to the program's parser."""
    parser = commands.add_parser("inspect", help=_HELP, description=_HELP.capitalize() + ".")
    parser.add_argument("file", type=Path, help="a file of TicketSet.save or MixtureOfMasks.save")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the file's summary; an error when it is damaged or foreign."""
    kind = read_kind(arguments.file)
    if kind not in _KINDS:
        raise InvalidArgument(
            f"{arguments.file} is a {kind} of a run folder: inspect reads files of TicketSet.save "
            "and MixtureOfMasks.save"
        )
    content = ticket_file.load(arguments.file, kind)
    tickets = TicketSet.from_file(content)
    if arguments.json:
        sys.stdout.write(json.dumps(_as_json(kind, content, tickets), indent=1) + "\n")
        return
    size = arguments.file.stat().st_size
    lines = [f"{arguments.file}: {kind} file, {size:,} bytes, checksum right", ""]
    lines += [tickets.summary(), ""]
    lines.append(f"masked parameters: {', '.join(tickets.shapes)}")
    lines.append(f"schedule: {_schedule(tickets)}; {len(tickets.history)} rows of history")
    lines.append(f"theta_0: {tickets.theta_0 or 'unknown'}")
    if content.weights:
        lines.append(f"shared weights: {len(content.weights)} tensors")
    sys.stdout.write("\n".join(lines) + "\n")


def _schedule(tickets: TicketSet) -> str:
    if tickets.schedule is None:
        return "none recorded"
    return ", ".join(f"{key} {value}" for key, value in tickets.schedule.items())


def _as_json(kind: str, content: ticket_file.TicketFile, tickets: TicketSet) -> dict[str, Any]:
    similarity = tickets.similarity()
    return {
        "kind": kind,
        "tickets": [
            {"name": t.name, "kept": t.kept, "density": t.density, "state": list(t.state)}
            for t in tickets.values()
        ],
        "parameters": {name: list(shape) for name, shape in tickets.shapes.items()},
        "active_parameters": tickets.active_parameters(),
        "similarity": similarity.tolist() if not isinstance(similarity, dict) else None,
        "schedule": tickets.schedule,
        "history": tickets.history,
        "fingerprint": dict(content.fingerprint),
        "weights": list(content.weights),
    }
