"""Everything that a run folder holds, read without changing it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtl_plugin.checkpoint import read_file
from rtl_plugin.errors import MissingFile
from rtl_plugin.reports.page.reading import Reader, Row
from rtl_plugin.reports.page.round_files import Departure, replayed
from rtl_plugin.reports.page.text import finite
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import TicketSet

_COMPARED = ("similarity", "excess", "alarm", "left")
COMPARISONS = ("comparison.json", "compare/results.json")


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds.

    Args:
        root: the folder.
        tickets: the newest tickets, or None.
        source: where they are from: "discovery", "unfinished discovery", "damaged discovery"
            (finished, read from its rounds), "retraining", "ticket file" or "nothing".
        history: one row a (round, group) of the discovery.
        arguments: stage -> what it was called with.
        epochs: one row an (epoch, group) of the retraining.
        retrained: the tickets after retraining, or None.
        events: of the log.
        comparison: rows of a comparison of methods, not yet checked.
        problems: what could not be read, one sentence each.
        unread: whether there are ticket files of a discovery, and none of them could be read.
    """

    root: Path
    tickets: TicketSet | None
    source: str
    history: tuple[Row, ...]
    arguments: Mapping[str, Row]
    epochs: tuple[Row, ...]
    retrained: TicketSet | None
    events: tuple[Row, ...]
    comparison: tuple[Row, ...]
    problems: tuple[str, ...]
    unread: bool

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names that the discovery was called with; where unknown, of its tickets and history."""
        names = _argument_names(self.arguments)
        if names:
            return names
        tickets = self.tickets.names if self.tickets is not None else ()
        return tuple(dict.fromkeys((*tickets, *(row["group"] for row in self.history))))


def read_run(folder: str | os.PathLike[str]) -> RunFiles:
    """Read a run folder.

    Args:
        folder: of ``discover``, ``retrain``, ``compare`` or the quickstart.

    Returns:
        What it holds; what is damaged is named in ``problems``.

    Raises:
        MissingFile: there is no such folder, or it holds no file of a run.

    Example:
        >>> read_run("no-such-folder")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: no such folder: no-such-folder
    """
    root = Path(folder)
    if not root.is_dir():
        what = f"{root} is a file, expected a run folder" if root.exists() else "no such folder: "
        raise MissingFile(what if root.exists() else f"{what}{root}")
    reader = Reader(root)
    events = reader.log(RunFolder(root, "discover").log_file)
    retrained = reader.tickets(RunFolder(root, "retrain").tickets)
    arguments = {
        stage: content
        for stage in ("discover", "retrain", "compare")
        if (content := reader.json_object(RunFolder(root, stage).arguments)) is not None
    }
    tickets, source, history = _discovered(reader, events, _argument_names(arguments))
    unread = tickets is None and _holds_tickets(root)
    for path, name in ((None, "retraining"), (root / "tickets.safetensors", "ticket file")):
        if tickets is None:
            tickets, source = (reader.tickets(path) if path else retrained), name
            history = history or (tickets.history if tickets is not None else [])
    comparison = _comparison(reader)
    if not (tickets or events or arguments or comparison or reader.problems):
        raise MissingFile(
            f"{root} holds no file of a run (discover/, retrain/, compare/, log.jsonl, "
            "tickets.safetensors or comparison.json): give the run_folder of discover, retrain or "
            "compare"
        )
    return RunFiles(
        root, tickets, source if tickets is not None else "nothing", _usable(reader, history),
        arguments, tuple(_epochs(reader, events)), retrained, tuple(events), tuple(comparison),
        tuple(dict.fromkeys(reader.problems)), unread,
    )  # fmt: skip


def _argument_names(arguments: Mapping[str, Row]) -> tuple[str, ...]:
    """Names of the groups that the discovery was called with; none where that is unknown."""
    groups = arguments.get("discover", {}).get("groups")
    names = groups.get("names") if isinstance(groups, dict) else None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def _holds_tickets(root: Path) -> bool:
    """Whether there is a file that could hold tickets of a discovery."""
    folder = RunFolder(root, "discover")
    return folder.tickets.exists() or any(folder.tickets.parent.glob("round-*.safetensors"))


def _discovered(
    reader: Reader, events: list[Row], names: tuple[str, ...]
) -> tuple[TicketSet | None, str, list[Row]]:
    folder = RunFolder(reader.root, "discover")
    tickets = reader.tickets(folder.tickets)
    if tickets is not None:
        history = tickets.history
        known = [row for row in history if not row.get("closing")]
        if len(tickets) > 1 and known and all(row.get("similarity") is None for row in known):
            again = {_key(row): row for row in replayed(reader, _left(history), names).rows}
            for row in known:
                made = again.get(_key(row), {})
                row |= {key: made[key] for key in ("similarity", "excess") if key in made}
        return tickets, "discovery", history
    ours = [event for event in events if event.get("stage") == "discover"]
    logged = [event for event in ours if event.get("event") == "round"]
    # Files of rounds are written before tickets are compared, so only the log tells of that.
    compared = {_key(event): event for event in ours if event.get("event") == "compared"}
    replay = replayed(reader, _left(compared.values()), names)
    history = replay.rows or logged
    for row in history:
        said = compared.get(_key(row), {})
        row |= {key: said[key] for key in _COMPARED if row.get(key) is None and key in said}
    # It is written at the end and in one go, so that even a damaged one says that it was reached.
    source = "damaged discovery" if folder.tickets.exists() else "unfinished discovery"
    return replay.ticket_set(reader), source, history


def _left(rows: Iterable[Row]) -> dict[str, Departure]:
    """Tickets that left the rounds."""
    found = {}
    for row in rows:
        name, last, alarm = row.get("group"), row.get("round"), row.get("alarm")
        if row.get("left") is not True or not isinstance(name, str) or type(last) is not int:
            continue
        good = alarm.get("last_good_round") if isinstance(alarm, dict) else last
        found[name] = Departure(last, good if type(good) is int else last)
    return found


def _key(row: Row) -> tuple[str, str]:
    return str(row.get("round")), str(row.get("group"))


def _usable(reader: Reader, history: Iterable[Row]) -> tuple[Row, ...]:
    """Rows that say which round, group and sparsity they are of; the newest of each."""
    rows = list(history)
    usable = {_key(row): _clean(row) for row in rows if _is_round(row)}
    left_out = sum(not _is_round(row) for row in rows)
    if left_out:
        reader.problems.append(
            f"{left_out} of {len(rows)} rows of the history lack a round, a group or a sparsity "
            "and were left out"
        )
    return tuple(usable.values())


def _is_round(row: Row) -> bool:
    achieved = finite(row.get("achieved"))
    return (
        type(row.get("round")) is int
        and row["round"] >= 1
        and isinstance(row.get("group"), str)
        and achieved is not None
        and 0 <= achieved < 1
    )


def _clean(row: Row) -> Row:
    """A row with None for what is no number, and an alarm that names the round to go back to."""
    numbers = ("asked", "kept", "trained_at", "loss", "metric", "similarity", "excess", "seconds")
    clean = row | {key: finite(row[key]) for key in numbers if key in row}
    alarm = row.get("alarm")
    if "alarm" in row and not isinstance(alarm, dict):
        clean["alarm"] = None
    elif isinstance(alarm, dict) and type(alarm.get("last_good_round")) is not int:
        clean["alarm"] = alarm | {"last_good_round": row["round"]}
    floors = row.get("at_floor")
    clean["at_floor"] = [str(name) for name in floors] if isinstance(floors, list) else []
    return clean


def _epochs(reader: Reader, events: Iterable[Row]) -> list[Row]:
    """Rows of the retraining: from its checkpoint, otherwise from the log."""
    path = RunFolder(reader.root, "retrain").checkpoint
    saved = reader.attempt(lambda file: read_file(file, "retraining checkpoint")[0], path)
    rows = saved.get("rows") if saved is not None else None
    if isinstance(rows, list):
        return [row for row in rows if isinstance(row, dict)]
    logged: dict[tuple[str, str], Row] = {}
    for event in events:
        losses = event.get("losses")
        if event.get("stage") == "retrain" and isinstance(losses, dict):
            for group, loss in losses.items():
                row = {"epoch": event.get("epoch"), "group": group, "loss": loss}
                logged[str(event.get("epoch")), group] = row
    return list(logged.values())


def _comparison(reader: Reader) -> list[Row]:
    for name in COMPARISONS:
        content = reader.json_object(reader.root / name)
        rows = content.get("rows") if content is not None else None
        if isinstance(rows, list) and rows:
            return rows
    return []
