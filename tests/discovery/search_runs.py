"""Runs of one search, side by side, that may take rounds over from each other."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from rtl_plugin import DataGroups, GeometricSchedule, TicketSet
from rtl_plugin.discovery import FinishedRound, WarmStart
from tests.discovery.setups import (
    CONV,
    NamedBatches,
    built,
    cross_entropy,
    files_of,
    found,
    random_states,
    same_bits,
    shuffled_groups,
    tensors_of,
)

# What a loss counts must not be part of what it is: of a logger only the name is.
CALLS = {"made": 0, "dies_at": 0}
LOGGER = logging.getLogger("tests.discovery.losses")
LOOKS, REHEARSED = 2, 2  # losses that a warm start of two groups asks for before any training
P = 0.3  # pruned a round


def geometric(rounds: int) -> GeometricSchedule:
    """The same counts in every round, however many there are."""
    return GeometricSchedule(1 - (1 - P) ** rounds, rounds=rounds)


def count(record: logging.LogRecord) -> bool:
    CALLS["made"] += 1
    if CALLS["made"] == CALLS["dies_at"]:
        raise KeyboardInterrupt
    return False


LOGGER.addFilter(count)


def counted(model: Any, batch: Any) -> torch.Tensor:
    LOGGER.critical("a loss")
    return cross_entropy(model, batch)


def mean_output(model: Any, batches: Iterable[Any]) -> float:
    return float(torch.stack([model(x).mean() for x, *_ in batches]).mean())


def measured_groups(network: Any = CONV) -> DataGroups:
    train = {name: NamedBatches(network, name, 2, torch.float32) for name in "ab"}
    held_out = {name: NamedBatches(network, name * 2, 2, torch.float32) for name in "ab"}
    return DataGroups.from_loaders(train, validation=held_out)


class Search:
    """A folder with a run folder a trial."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root, self.settings = root, settings
        self.rounds: dict[str, list[FinishedRound]] = {}
        self.calls: dict[str, int] = {}

    def run(
        self,
        name: str,
        after: Sequence[str] = (),
        *,
        key: Any = "",
        vouched: bool = False,
        dies_at: int = 0,
        **own: Any,
    ) -> TicketSet:
        """A trial as from a process of its own, which may take over from some before it."""
        settings = {
            "schedule": geometric(3), "network": CONV, "model": None, "groups": None,
            **self.settings, **own,
        }  # fmt: skip
        network, model, groups = (settings.pop(each) for each in ("network", "model", "groups"))
        model = built(network) if model is None else model()
        groups = shuffled_groups(network) if groups is None else groups()
        heard = self.rounds[name] = []
        warm = WarmStart([self.root / other for other in after], key, vouched)
        defaults = {"loss": counted, "warm_start": warm, "on_round": heard.append}
        CALLS.update(made=0, dies_at=dies_at)
        torch.manual_seed(len(name))
        tensors, states = tensors_of(model), random_states()
        try:
            tickets = found(model, groups, run_folder=self.root / name, **{**defaults, **settings})
        finally:
            self.calls[name] = CALLS["made"]
            assert same_bits(tensors_of(model), tensors)
            assert random_states() == states
        assert isinstance(tickets, TicketSet)
        return tickets

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Events of a kind in a trial's log."""
        lines = (self.root / name / "log.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def taken(self, name: str) -> dict[tuple[int, str | None], str]:
        """(Round, group) -> the trial that it was taken over from."""
        return {
            (event["round"], event["group"]): Path(event["folder"]).name
            for event in self.events(name, "reused")
        }

    def reasons(self, name: str) -> str:
        """Why other trials were passed over."""
        return "\n".join(event["reason"] for event in self.events(name, "passed_over"))

    def check_same_bytes(self, first: str, second: str) -> None:
        """Every file of two trials but the log is the same."""
        one, other = files_of(self.root / first), files_of(self.root / second)
        assert list(one) == list(other)
        assert [name for name in one if one[name] != other[name]] == []


def other_values(groups: DataGroups, split: str, part: int, at: int) -> DataGroups:
    """The same groups where one sample's inputs (part 0) or label (part 1) differ in one batch."""
    loaders: dict[str, dict[str, Any]] = {"train": {}, "validation": {}}
    for name, group in groups.items():
        for each, loader in group.loaders():
            batches = [list(batch) for batch in loader]
            if name == "b" and each == split:
                changed = batches[at][part].clone()
                changed[-1] = changed[-1] + 0.01 if part == 0 else (changed[-1] + 1) % 2
                batches[at][part] = changed
            loaders[each][name] = [tuple(batch) for batch in batches]
    return DataGroups.from_loaders(loaders["train"], validation=loaders["validation"] or None)


def with_one_thread_more(function: Any) -> Any:
    """Call it under another number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        return function()
    finally:
        torch.set_num_threads(threads)
