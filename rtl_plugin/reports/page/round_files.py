"""What the files of single rounds tell: of an unfinished run, and of one that kept no curve."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.diagnostics.similarity import mean_similarity, similarity_matrix
from rtl_plugin.errors import InvalidTicket
from rtl_plugin.reports.page.reading import Reader, Row
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import Ticket, TicketSet

_NAMED_GAPS = 5
_NAME = re.compile(r"round-(\d+)-group-(\d+)\.safetensors")


class Departure(NamedTuple):
    """A ticket left the rounds: after which round, and with the mask of which (0: dense)."""

    after: int
    kept: int


@dataclass
class _Groups:
    """Names of groups by their position; complete where the arguments say them."""

    names: dict[int, str]
    complete: bool

    def at(self, position: int, found: str) -> str | None:
        """The group of a position; where unknown, the one that its first file names."""
        if not self.complete and position not in self.names and found not in self.names.values():
            self.names[position] = found
        return self.names.get(position)


@dataclass
class Replay:
    """The rounds of a run, gone through again.

    Args:
        rows: one a (round, group), in order, with the similarity of rounds that are complete.
        tickets: name -> the newest ticket; of one that left the rounds, the mask that it kept.
    """

    rows: list[Row] = field(default_factory=list)
    tickets: dict[str, Ticket] = field(default_factory=dict)

    def ticket_set(self, reader: Reader) -> TicketSet | None:
        """The newest tickets as a set; None where there are none, or they do not fit together."""
        if not self.tickets:
            return None
        try:
            return TicketSet(list(self.tickets.values()))
        except InvalidTicket as error:
            reader.problems.append(f"files of rounds: {error}")
            return None


def replayed(reader: Reader, left: Mapping[str, Departure], names: Sequence[str] = ()) -> Replay:
    """Go through the round files of a discovery.

    Args:
        reader: of the run; told of files that are of another group or round, and of missing ones.
        left: names of tickets that left the rounds -> when, and with which mask.
        names: of the groups, in the order in which files count them; empty where unknown.

    Returns:
        Rows and newest tickets; empty where there are no files.
    """
    replay = Replay()
    groups = _Groups(dict(enumerate(names)), complete=bool(names))
    positions: dict[str, int] = {}
    rounds = list(_rounds(reader))
    closing: set[int] = set()
    for round, files in rounds:
        rows: dict[str, Row] = {}
        for position, path in files.items():
            found = _round_file(reader, path, round, groups, position)
            if found is None:
                continue
            ticket, row = found
            replay.tickets[ticket.name], positions[ticket.name] = ticket, position
            rows[ticket.name] = row
        closing |= {round} if any(row.get("closing") for row in rows.values()) else set()
        _add_similarity(reader, replay, rows, round, left)
        replay.rows += rows.values()
        for name in rows.keys() & left.keys():
            if left[name].after == round != left[name].kept:
                last = replay.tickets[name]
                replay.tickets[name] = _kept(reader, last, positions[name], left[name])
    _tell_gaps(reader, {r: files for r, files in rounds if r not in closing}, groups)
    return replay


def _round_file(
    reader: Reader, path: Path, round: int, groups: _Groups, position: int
) -> tuple[Ticket, Row] | None:
    """The ticket and the row of a file, if they are those that its name promises."""
    found = reader.tickets(path)
    if found is None:
        return None
    where = path.relative_to(reader.root)
    if len(found) != 1 or len(found.history) != 1:
        reader.problems.append(
            f"{where}: expected one ticket and one row of history, got {len(found)} and "
            f"{len(found.history)}; left out"
        )
        return None
    (ticket,), row = found.values(), found.history[0]
    if row.get("group") != ticket.name or row.get("round") != round:
        reader.problems.append(
            f"{where}: expected the row of round {round} of {ticket.name!r}, got round "
            f"{row.get('round')!r} of {row.get('group')!r}; left out"
        )
        return None
    name = groups.at(position, ticket.name)
    if ticket.name != name:
        expected = "no such file" if name is None else f"group {name!r}"
        reader.problems.append(f"{where}: expected {expected}, got {ticket.name!r}; left out")
        return None
    return ticket, row


def _tell_gaps(reader: Reader, rounds: Mapping[int, Mapping[int, Path]], groups: _Groups) -> None:
    """Name rounds of a group that are missing before one that exists."""
    last = {position: round for round in sorted(rounds) for position in rounds[round]}
    missing = [
        f"round {round} of {groups.names.get(position, f'group number {position + 1}')}"
        for position in sorted(last)
        for round in range(1, last[position])
        if position not in rounds.get(round, {})
    ]
    if missing:
        more = f" and {len(missing) - _NAMED_GAPS} more" if len(missing) > _NAMED_GAPS else ""
        reader.problems.append(
            f"discover: files are missing between rounds that exist: "
            f"{', '.join(missing[:_NAMED_GAPS])}{more}"
        )


def _rounds(reader: Reader) -> Iterator[tuple[int, dict[int, Path]]]:
    """Rounds in order, each with its files by the group's position."""
    found: dict[int, dict[int, Path]] = {}
    for path in (reader.root / "discover").glob("round-*"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    for round in sorted(found):
        yield round, dict(sorted(found[round].items()))


def _add_similarity(
    reader: Reader,
    replay: Replay,
    rows: Mapping[str, Row],
    round: int,
    left: Mapping[str, Departure],
) -> None:
    """Similarity of the tickets in a round with each other, once all of them have finished it."""
    gone = {name for name, departure in left.items() if departure.after < round}
    active = [name for name in replay.tickets if name not in gone]
    closing = any(row.get("closing") for row in rows.values())
    if closing or len(active) < 2 or any(name not in rows for name in active):
        return
    try:
        counts = count_masks([replay.tickets[name].masks for name in active])
    except InvalidTicket as error:
        reader.problems.append(f"files of round {round}: {error}")
        return
    raw = mean_similarity(similarity_matrix(counts))
    excess = mean_similarity(similarity_matrix(counts, excess=True))
    for k, name in enumerate(active):
        rows[name].setdefault("similarity", float(raw[k]))
        rows[name].setdefault("excess", float(excess[k]))


def _kept(reader: Reader, last: Ticket, position: int, left: Departure) -> Ticket:
    """The ticket with the mask that it left the rounds with."""
    if left.kept == 0:
        dense = {name: torch.ones_like(last.masks[name]) for name in last.masks}
        return Ticket(last.name, dense, last.state).packed()
    found = reader.tickets(RunFolder(reader.root, "discover").round_ticket(left.kept, position))
    if found is None or last.name not in found:
        reader.problems.append(
            f"{last.name}: the mask of round {left.kept}, which it kept, is not in the folder; "
            f"shown is the one of round {left.after}"
        )
        return last
    return found[last.name]
