"""The tickets after every round of a discovery, read back from its run folder."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, MissingFile
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import Ticket, TicketSet

_ROUND_FILE = re.compile(r"round-(\d+)-group-(\d+)\.safetensors")


def tickets_by_round(run_folder: str | os.PathLike[str]) -> Iterator[tuple[int, TicketSet]]:
    """All groups' tickets after each finished round, one round in memory at a time.

    A ticket that left the rounds before a collapse is there in the later ones with the masks that
    it kept. A closing round, which prunes nothing, is left out, and so is one that a killed run
    was in the middle of.

    Args:
        run_folder: what ``discover(run_folder=...)`` wrote.

    Returns:
        Pairs of round, counted from 1, and the tickets after it, at one bit a weight and without
        state; masks in the model's order.

    Raises:
        MissingFile: the folder holds no finished round of discovery.
        DamagedFile: a file cannot be read, or one before others is missing.

    Example:
        >>> list(tickets_by_round("/nowhere"))
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: /nowhere holds no finished round of discovery: ...
    """
    folder = RunFolder(run_folder, "discover")
    last = _last_round(folder)
    count = 0
    for number, tickets in _rounds(folder, last) if last else ():
        count += 1
        yield number, tickets
    if not count:
        raise MissingFile(
            f"{folder.root} holds no finished round of discovery: pass what "
            "discover(run_folder=...) wrote, or the tickets themselves"
        )


def sparsity_of(tickets: TicketSet) -> float:
    """Mean sparsity of the tickets of a set.

    Args:
        tickets: the set.

    Returns:
        A fraction in [0, 1).

    Example:
        >>> sparsity_of(TicketSet([Ticket("a", {"w": torch.tensor([True, False])})]))
        0.5
    """
    return 1 - sum(tickets.density(name) for name in tickets) / len(tickets)


def _rounds(folder: RunFolder, last: int) -> Iterator[tuple[int, TicketSet]]:
    names, prunable = _described(folder)
    leavings = _leavings(folder)
    for number in range(1, last + 1):
        running = [n for n in names if number <= leavings.get(n, (last, 0))[0]]
        paths = {n: folder.round_ticket(number, names.index(n)) for n in running}
        missing = [path for path in paths.values() if not path.exists()]
        if missing and number == last and not folder.tickets.exists():
            return  # killed in the middle of this round
        if missing:
            raise DamagedFile(
                f"{missing[0]} is missing though later files are there: restore it, or delete "
                f"{missing[0].parent} to run discover again"
            )
        loaded = {n: TicketSet.load(path) for n, path in paths.items()}
        masks = {n: tickets[n].masks for n, tickets in loaded.items()}
        for name in names:
            if name not in masks:
                masks[name] = _kept_masks(folder, names.index(name), name, leavings[name][1])
        ordered = [Ticket(n, {p: masks[n][p] for p in prunable}) for n in names]
        yield number, TicketSet(ordered).packed()


def _kept_masks(
    folder: RunFolder, position: int, name: str, good: int
) -> Mapping[str, torch.Tensor]:
    """The masks that a ticket left the rounds with: those after its last good round."""
    if good:
        return TicketSet.load(folder.round_ticket(good, position))[name].masks
    first = TicketSet.load(folder.round_ticket(1, position))[name].masks
    return {parameter: torch.ones_like(mask) for parameter, mask in first.items()}


def _described(folder: RunFolder) -> tuple[list[str], list[str]]:
    """Names of the groups, and of the masked parameters in the model's order."""
    arguments = folder.read_json(folder.arguments)
    try:
        return list(arguments["groups"]["names"]), list(arguments["prunable"])
    except (KeyError, TypeError) as error:
        raise DamagedFile(
            f"{folder.arguments} does not say which groups and parameters the run had: "
            "it is not what discover wrote"
        ) from error


def _last_round(folder: RunFolder) -> int:
    """The last round that prunes, of those that have files; 0 without any."""
    files: dict[int, Path] = {}
    for path in folder.arguments.parent.glob("round-*"):
        match = _ROUND_FILE.fullmatch(path.name)
        if match:
            files[int(match[1])] = path
    # A closing round comes last; its number may leave a gap where all tickets left early.
    if files and _is_closing(files[max(files)]):
        del files[max(files)]
    return max(files, default=0)


def _is_closing(path: Path) -> bool:
    return any(row.get("closing") for row in TicketSet.load(path).history)


def _leavings(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Ticket -> the round after which it left, and the round whose masks it kept."""
    if folder.tickets.exists():
        rows = TicketSet.load(folder.tickets).history
    else:
        rows = list(_compared(folder))
    # One that is left alone goes without an alarm, and nobody runs a round after that.
    return {
        row["group"]: (row["round"], row["alarm"]["last_good_round"])
        for row in rows
        if row.get("left") and row.get("alarm")
    }


def _compared(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """What the log says of tickets after each round, in the words of the history."""
    lines = folder.log_file.read_text(encoding="utf-8") if folder.log_file.exists() else ""
    for line in lines.splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off by a kill; a resumed run compares the tickets of that round again
        if event.get("stage") == folder.stage and event.get("event") == "compared":
            yield event
