"""What the files of single rounds tell: of an unfinished run, and of one that kept no curve."""

import re
from collections.abc import Iterator, Mapping
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

_NAME = re.compile(r"round-(\d+)-group-(\d+)\.safetensors")


class Departure(NamedTuple):
    """A ticket left the rounds: after which round, and with the mask of which (0: dense)."""

    after: int
    kept: int


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


def replayed(reader: Reader, left: Mapping[str, Departure]) -> Replay:
    """Go through the round files of a discovery.

    Args:
        reader: of the run.
        left: names of tickets that left the rounds -> when, and with which mask.

    Returns:
        Rows and newest tickets; empty where there are no files.
    """
    replay = Replay()
    positions: dict[str, int] = {}
    for round, files in _rounds(reader):
        rows: dict[str, Row] = {}
        for position, path in files.items():
            found = reader.tickets(path)
            if found is None or len(found) != 1 or len(found.history) != 1:
                continue
            (ticket,) = found.values()
            replay.tickets[ticket.name], positions[ticket.name] = ticket, position
            rows[ticket.name] = found.history[0]
        _add_similarity(reader, replay, rows, round, left)
        replay.rows += rows.values()
        for name in rows.keys() & left.keys():
            if left[name].after == round != left[name].kept:
                last = replay.tickets[name]
                replay.tickets[name] = _kept(reader, last, positions[name], left[name])
    return replay


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
