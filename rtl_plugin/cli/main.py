"""Parsing, exit codes and nothing else."""

import argparse
import sys
from collections.abc import Sequence

from rtl_plugin.cli import compare, explain, inspect, quickstart, report
from rtl_plugin.errors import RtlError

_DESCRIPTION = """\
Adaptive lottery tickets: one sparse subnetwork for every group of the data, on
shared weights. Every command has its own --help.

Exit codes: 0 done, 1 an error that the message explains, 2 a wrong command
line, 130 interrupted.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; None takes them from the process.

    Returns:
        The exit code.

    Example:
        >>> main(["inspect", "no-such-file"])
        1
    """
    parser = argparse.ArgumentParser(
        prog="rtl-plugin",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (quickstart, explain, inspect, compare, report):
        command.add_parser(commands)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (RtlError, OSError) as error:
        sys.stderr.write(f"rtl-plugin: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("rtl-plugin: interrupted; with --run-folder the same command resumes\n")
        return 130
    return 0
