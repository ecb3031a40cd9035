"""The loop over rounds and groups: train, prune, compare, and let go whose alarm rang."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.diagnostics.collapse import CollapseMonitor
from rtl_plugin.discovery.backends import Backend, Trained, rehearse_evaluate
from rtl_plugin.discovery.donors import Donors
from rtl_plugin.discovery.keep_top import keep_top
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rewinding import RewindPoint, Untouched
from rtl_plugin.discovery.round_watch import RoundWatch
from rtl_plugin.errors import StructureMismatch
from rtl_plugin.fingerprint import model_structure, model_values
from rtl_plugin.progress import Progress, RoundsView
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import Ticket, TicketSet
from rtl_plugin.training_step import Where

Masks = dict[str, torch.Tensor]
Row = dict[str, Any]


class Rounds:
    """The rounds of one discovery, skipping what a run folder already holds.

    Args:
        plan: the checked discovery.
        point: what every round starts from.
        untouched: watches the user's model.
        backend: trains the groups of a round.
        folder: where finished (round, group) pairs lie, or None.
        progress: shows them.
        donors: other runs whose finished rounds may be taken over, or None.
    """

    def __init__(
        self,
        plan: DiscoveryPlan,
        point: RewindPoint,
        untouched: Untouched,
        backend: Backend,
        folder: RunFolder | None,
        progress: Progress,
        donors: Donors | None = None,
    ) -> None:
        self._plan, self._point, self._backend = plan, point, backend
        self._donors = donors
        self._untouched, self._folder, self._progress = untouched, folder, progress
        shapes = {name: point.parameters[name] for name in plan.masked}
        everything = {n: torch.ones_like(p, dtype=torch.bool) for n, p in shapes.items()}
        self._masks: dict[str, Masks] = dict.fromkeys(plan.groups, everything)
        monitor = CollapseMonitor(plan.rule)
        self._watch = RoundWatch(monitor, self._masks, stops=plan.stop_before_collapse)
        self._history: list[Row] = []

    def run(self) -> TicketSet:
        """Run every round that is not done and build the tickets."""
        rounds = len(self._plan.kept)
        closing = int(self._plan.closing_round)
        asked = [self._plan.schedule.sparsity(r + 1, self._plan.prunable) for r in range(rounds)]
        # Whoever has donors has rehearsed, to compare what came out.
        if self._donors is None and not self._done_before():
            rehearse_evaluate(self._plan, self._point)
        with self._progress.rounds(list(self._plan.groups), rounds + closing, asked) as view:
            for round in range(1, rounds + 1):
                if self._watch.active:
                    self._run_round(round, view)
            if closing and self._watch.unmeasured:
                self._run_closing_round(rounds + 1, view)
        return self._tickets()

    def _done_before(self) -> bool:
        first = next(iter(self._plan.groups))
        return self._folder is not None and self._path(self._folder, 1, first).exists()

    def _run_round(self, round: int, view: RoundsView) -> None:
        groups = self._watch.active
        if self._donors is not None:
            self._donors.take_round(round, groups)
        done = self._resume(round, groups)
        before = tuple(done)
        for group, trained, seconds in self._trained(round, groups, done, view):
            done[group] = self._prune(round, group, trained)
            self._report(done[group], seconds, view)
        finished = self._watch.close_round(round, [done[group] for group in groups], self._masks)
        if self._donors is not None:
            reused, seconds = self._donors.saved(round, before)
            finished = dataclasses.replace(finished, reused=reused, seconds_saved=seconds)
            if reused:
                view.say(f"round {round}: {len(reused)} tickets taken over from other runs")
        self._history += finished.rows
        view.round_done(finished.rows)
        # Again in a round that was resumed: a killed run may not have come this far.
        for row in finished.rows:
            compared = ("round", "group", "similarity", "excess", "alarm", "left")
            self._log("compared", **{key: row[key] for key in compared})
        if self._plan.on_round is not None:
            with forked(derived_seed(self._plan.seed, "on_round", round)):
                self._plan.on_round(finished)

    def _run_closing_round(self, round: int, view: RoundsView) -> None:
        """Train once more under the final masks, only to measure them."""
        groups = self._watch.unmeasured
        done = self._resume(round, groups)
        done |= self._measured_elsewhere(round, [group for group in groups if group not in done])
        for group, trained, seconds in self._trained(round, groups, done, view):
            done[group] = self._closing_row(round, group, trained)
            self._report(done[group], seconds, view)
        rows = [done[group] for group in groups]
        self._history += rows
        view.round_done(rows)

    def _measured_elsewhere(self, round: int, groups: Sequence[str]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        if self._donors is None:
            return rows
        for group in groups:
            trained_at = self._sparsity(self._masks[group])
            measured = self._donors.measured(round, group, trained_at)
            if measured is not None:
                rows[group] = self._closing_row(round, group, Trained({}, *measured))
        return rows

    def _trained(
        self, round: int, groups: Sequence[str], done: Mapping[str, Row], view: RoundsView
    ) -> Iterator[tuple[str, Trained, float]]:
        pending = {group: self._masks[group] for group in groups if group not in done}
        began = time.perf_counter()
        for group, trained in self._backend(self._plan, self._point, pending, round, view):
            self._untouched.check(Where("discover", group, "round", round))
            yield group, trained, time.perf_counter() - began
            began = time.perf_counter()

    def _prune(self, round: int, group: str, trained: Trained) -> Row:
        plan = self._plan
        before = self._masks[group]
        kept = keep_top(trained.scores, before, plan.kept[round - 1], plan.floors)
        self._masks[group] = kept.masks
        row = {
            "round": round,
            "group": group,
            "asked": plan.schedule.sparsity(round, plan.prunable),
            "achieved": self._sparsity(kept.masks),
            "kept": _survivors(kept.masks),
            "trained_at": self._sparsity(before),
            "loss": trained.loss,
            "metric": trained.metric,
            "at_floor": list(kept.at_floor),
        }
        self._save(round, group, row)
        return row

    def _closing_row(self, round: int, group: str, trained: Trained) -> Row:
        masks = self._masks[group]
        sparsity = self._sparsity(masks)
        row = {
            "round": round,
            "group": group,
            "closing": True,
            "achieved": sparsity,
            "kept": _survivors(masks),
            "trained_at": sparsity,
            "loss": trained.loss,
            "metric": trained.metric,
        }
        self._save(round, group, row)
        return row

    def _sparsity(self, masks: Masks) -> float:
        return 1 - _survivors(masks) / self._plan.prunable

    def _save(self, round: int, group: str, row: Row) -> None:
        if self._folder is not None:
            done = TicketSet([Ticket(group, self._masks[group])], history=[row])
            done.save(self._path(self._folder, round, group))

    def _path(self, folder: RunFolder, round: int, group: str) -> Path:
        return folder.round_ticket(round, list(self._plan.groups).index(group))

    def _resume(self, round: int, groups: Sequence[str]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        if self._folder is None:
            return rows
        for group in groups:
            path = self._path(self._folder, round, group)
            if path.exists():
                done = TicketSet.load(path).to(self._plan.device)
                done.check_fits(self._plan.model)
                ours = done.names == (group,) and set(done.shapes) == set(self._plan.masked)
                if not ours or len(done.history) != 1:
                    raise StructureMismatch(f"{path} does not belong to this run: delete it")
                # A file of an older version lacks what later versions tell.
                told = {"trained_at": self._sparsity(self._masks[group]), "metric": None}
                rows[group] = told | done.history[0]
                self._masks[group] = {n: done[group].masks[n] for n in self._plan.masked}
        return rows

    def _report(self, row: Row, seconds: float, view: RoundsView) -> None:
        view.group_done(row, seconds)
        self._log("round", **row, seconds=seconds)

    def _log(self, event: str, **fields: Any) -> None:
        if self._folder is not None:
            self._folder.log(event, **fields)

    def _tickets(self) -> TicketSet:
        plan, late = self._plan, self._point.step > 0
        masks = self._watch.final_masks(self._masks)
        return TicketSet(
            [Ticket(name, masks[name], self._point.ticket_state()) for name in plan.groups],
            structure=model_structure(plan.model),
            theta_0=model_values(plan.model),
            schedule=plan.schedule.description() | {"rewind_to": plan.rewind_to},
            history=self._history,
            rewind_state=self._point.state() if late else None,
        )


def _survivors(masks: Masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())
