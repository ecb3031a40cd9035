"""Reading the files of a run without writing any, and keeping what is wrong with them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rtl_plugin import ticket_file
from rtl_plugin.errors import RtlError
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import TicketSet

Row = dict[str, Any]
T = TypeVar("T")
_NAMED_LINES = 5


@dataclass
class Reader:
    """Reads files of one run; a file that cannot be read becomes a problem, not an error.

    Args:
        root: the run's folder.
        problems: one sentence each.
    """

    root: Path
    problems: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[Path], T], path: Path) -> T | None:
        """What a function makes of a file; None where there is none, or it cannot be read."""
        if not path.exists():
            return None
        try:
            return read(path)
        except (RtlError, OSError, RecursionError, ValueError) as error:
            reason = str(error).replace(f"{self.root}/", "")
            self.problems.append(reason or f"{path.name}: {type(error).__name__}")
            return None

    def tickets(self, path: Path) -> TicketSet | None:
        """A ticket file with masks at one bit a weight."""
        return self.attempt(read_tickets, path)

    def json_object(self, path: Path) -> Row | None:
        """A JSON object."""
        return self.attempt(RunFolder(self.root, "report").read_json, path)

    def log(self, path: Path) -> list[Row]:
        """The events of a log; damaged lines are counted and left out."""
        lines = self.attempt(_lines, path) or []
        events, damaged = [], []
        for number, line in enumerate(lines, start=1):
            event = _json_object(line)
            if event is not None:
                events.append(event)
            elif line.strip():
                damaged.append(number)
        if damaged:
            named = ", ".join(map(str, damaged[:_NAMED_LINES]))
            more = ", ..." if len(damaged) > _NAMED_LINES else ""
            self.problems.append(
                f"{path.name}: {len(damaged)} of {len(lines)} lines are no JSON objects and were "
                f"left out (line {named}{more})"
            )
        return events


def read_tickets(path: Path) -> TicketSet:
    """A ticket file as a set whose masks stay at one bit a weight.

    Args:
        path: the file.

    Returns:
        The set, on the CPU.

    Raises:
        MissingFile: there is no such file.
        DamagedFile: it is damaged or foreign.

    Example:
        >>> import tempfile, torch
        >>> from rtl_plugin.tickets import Ticket
        >>> path = Path(tempfile.mkdtemp(), "tickets.safetensors")
        >>> TicketSet([Ticket("a", {"w": torch.tensor([True, False])})]).save(path)
        >>> read_tickets(path)
        TicketSet(a: 50.0%)
    """
    return TicketSet.from_file(ticket_file.load(path), packed=True)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _json_object(line: str) -> Row | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
