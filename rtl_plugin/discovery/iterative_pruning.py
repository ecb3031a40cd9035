"""Adaptive ticket extraction: Algorithm 1 of the paper."""

import os
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.checkpoint import read_file, write_file
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import preserved_generators
from rtl_plugin.discovery.backends import Backend, backend_named
from rtl_plugin.discovery.importance import Importance
from rtl_plugin.discovery.keep_top import keep_top
from rtl_plugin.discovery.late_rewinding import restored_rewind_point, train_to_rewind_point
from rtl_plugin.discovery.plan import DiscoveryPlan, plan_discovery
from rtl_plugin.discovery.rewinding import RewindPoint, Untouched
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule
from rtl_plugin.errors import StructureMismatch
from rtl_plugin.fingerprint import model_structure, model_values
from rtl_plugin.modes import set_aside_gradients, train_mode
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.progress import Progress
from rtl_plugin.prunable import Prunable
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import Ticket, TicketSet
from rtl_plugin.training_step import Loss, Where

Masks = dict[str, torch.Tensor]


def discover(
    model: nn.Module,
    groups: DataGroups,
    loss: Loss,
    *,
    schedule: SparsitySchedule,
    optimizer: OptimizerFactory,
    steps: int | None = None,
    epochs: int | None = None,
    prunable: Prunable = None,
    rewind_to: int = 0,
    importance: str | Importance = "magnitude",
    floor: float = 0.01,
    backend: str = "auto",
    seed: int = 0,
    run_folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TicketSet:
    """Find one ticket for every data group, all from one initialisation.

    The model is left as it was: parameters and buffers bit-identical, training flags and
    gradients restored.

    Args:
        model: the network at its initialisation; trained on copies of its tensors.
        groups: K data groups; K = 1 is ordinary iterative magnitude pruning.
        loss: ``loss(model, batch) -> scalar tensor``; ``model`` runs the network under a ticket.
        schedule: sparsity after each round.
        optimizer: ``params -> optimizer``, or ``params -> (optimizer, lr_scheduler)``; called
            afresh for every (round, group).
        steps: optimizer steps of every (round, group), cycling the group's loader.
        epochs: instead of ``steps``: passes over the group's loader.
        prunable: which parameters may be masked, see :func:`rtl_plugin.explain`.
        rewind_to: dense training steps before the common rewind point; 0 rewinds to the
            initialisation.
        importance: ``"magnitude"``, ``"weight_gradient"``, ``"random"``, or an object that fills
            :class:`rtl_plugin.Importance`.
        floor: fraction of each tensor that survives at least, in [0, 1); never fewer than one
            weight, unless 0 switches it off.
        backend: ``"auto"`` or ``"sequential"``.
        seed: of every random stream, a whole number.
        run_folder: checkpoint after every (round, group); the same call again resumes, and ends
            bit-identical.
        progress: show bars and one line a (round, group) when standard error is a terminal.

    Returns:
        One ticket a group. Its state is the model's persistent buffers at the rewind point;
        ``history`` holds a row a (round, group): asked and achieved sparsity, loss, floors.

    Raises:
        InvalidArgument: an argument is out of range or contradicts another.
        NothingPrunable: no parameter may be masked.
        InvalidGroups: a group has no batches.
        InvalidLoss: the loss is not a scalar, or does not depend on the model.
        TrainingDiverged: a loss is NaN or infinite; finished rounds stay in the run folder.
        MaskBypassed: the forward pass reads a weight around its mask.
        RewindFailed: the weights after a rewind are not those of the rewind point.
        RunFolderMismatch: the run folder was made with other arguments.

    Example:
        >>> from rtl_plugin import OneShotSchedule
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> batch = (torch.ones(2, 4), torch.ones(2, 1))
        >>> tickets = discover(
        ...     model,
        ...     DataGroups.from_loaders({"a": [batch], "b": [batch]}),
        ...     lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
        ...     schedule=OneShotSchedule(0.5),
        ...     optimizer=lambda params: torch.optim.SGD(params, 0.1),
        ...     steps=2,
        ... )
        >>> tickets
        TicketSet(a: 50.0%, b: 50.0%)

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 1.
    """
    plan = plan_discovery(
        model, groups, loss, schedule=schedule, optimizer=optimizer, steps=steps, epochs=epochs,
        prunable=prunable, importance=importance, floor=floor, rewind_to=rewind_to, seed=seed,
    )  # fmt: skip
    train_round = backend_named(backend)
    folder = RunFolder(run_folder, "discover") if run_folder is not None else None
    if folder is not None:
        folder.open(plan.arguments())
        if folder.tickets.exists():
            return _loaded(folder, plan)
    tickets = _found(plan, train_round, folder, Progress(progress))
    if folder is not None:
        tickets.save(folder.tickets)
        folder.log("finished")
    return tickets


def _found(
    plan: DiscoveryPlan, train_round: Backend, folder: RunFolder | None, progress: Progress
) -> TicketSet:
    start = RewindPoint.capture(plan.model)
    with (
        train_mode(plan.model),
        set_aside_gradients(plan.model),
        preserved_generators(plan.groups),
        Untouched(plan.model, start) as untouched,
    ):
        point = _rewind_point(plan, start, untouched, folder, progress)
        return _Rounds(plan, point, untouched, train_round, folder, progress).run()


def _loaded(folder: RunFolder, plan: DiscoveryPlan) -> TicketSet:
    tickets = TicketSet.load(folder.tickets).to(plan.device)
    tickets.check_fits(plan.model)
    return tickets


def _rewind_point(
    plan: DiscoveryPlan,
    start: RewindPoint,
    untouched: Untouched,
    folder: RunFolder | None,
    progress: Progress,
) -> RewindPoint:
    if plan.rewind_to == 0:
        return start
    if folder is not None and folder.rewind_point.exists():
        header, tensors = read_file(folder.rewind_point, "rewind point")
        state = {name: tensors[str(k)] for k, name in enumerate(header["names"])}
        return restored_rewind_point(start, state, plan.rewind_to)
    point = train_to_rewind_point(plan, start, progress)
    untouched.check("late rewinding")
    if folder is not None:
        state = {**point.parameters, **point.buffers}
        tensors = {str(k): value for k, value in enumerate(state.values())}
        write_file(folder.rewind_point, "rewind point", {"names": list(state)}, tensors)
    return point


class _Rounds:
    """The loop over rounds and groups, skipping what a run folder already holds."""

    def __init__(
        self,
        plan: DiscoveryPlan,
        point: RewindPoint,
        untouched: Untouched,
        backend: Backend,
        folder: RunFolder | None,
        progress: Progress,
    ) -> None:
        self._plan, self._point, self._backend = plan, point, backend
        self._untouched = untouched
        self._folder, self._progress = folder, progress
        shapes = {name: point.parameters[name] for name in plan.masked}
        everything = {n: torch.ones_like(p, dtype=torch.bool) for n, p in shapes.items()}
        self._masks: dict[str, Masks] = dict.fromkeys(plan.groups, everything)
        self._history: list[dict[str, Any]] = []

    def run(self) -> TicketSet:
        """Run every round that is not done and build the tickets."""
        for round in range(1, len(self._plan.kept) + 1):
            rows = self._resume(round)
            pending = {
                group: self._masks[group] for group in self._plan.groups if group not in rows
            }
            began = time.perf_counter()
            for group, trained in self._backend(
                self._plan, self._point, pending, round, self._progress
            ):
                self._untouched.check(Where("discover", group, "round", round))
                rows[group] = self._prune(round, group, trained.scores, trained.loss)
                seconds, began = time.perf_counter() - began, time.perf_counter()
                self._report(rows[group], seconds)
            self._history += [rows[group] for group in self._plan.groups]
        return self._tickets()

    def _prune(
        self, round: int, group: str, scores: Mapping[str, torch.Tensor], loss: float
    ) -> dict[str, Any]:
        plan = self._plan
        kept = keep_top(scores, self._masks[group], plan.kept[round - 1], plan.floors)
        self._masks[group] = kept.masks
        survivors = sum(int(mask.sum()) for mask in kept.masks.values())
        row = {
            "round": round,
            "group": group,
            "asked": plan.schedule.sparsity(round, plan.prunable),
            "achieved": 1 - survivors / plan.prunable,
            "kept": survivors,
            "loss": loss,
            "at_floor": list(kept.at_floor),
        }
        if self._folder is not None:
            done = TicketSet([Ticket(group, kept.masks)], history=[row])
            done.save(self._path(round, group))
        return row

    def _path(self, round: int, group: str) -> Any:
        assert self._folder is not None  # noqa: S101 - callers have looked
        return self._folder.round_ticket(round, list(self._plan.groups).index(group))

    def _resume(self, round: int) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for group in self._plan.groups if self._folder is not None else ():
            path = self._path(round, group)
            if path.exists():
                done = TicketSet.load(path).to(self._plan.device)
                done.check_fits(self._plan.model)
                ours = done.names == (group,) and set(done.shapes) == set(self._plan.masked)
                if not ours or len(done.history) != 1:
                    raise StructureMismatch(f"{path} does not belong to this run: delete it")
                self._masks[group] = {n: done[group].masks[n] for n in self._plan.masked}
                rows[group] = done.history[0]
        return rows

    def _report(self, row: Mapping[str, Any], seconds: float) -> None:
        floors = f"; floor holds {', '.join(row['at_floor'])}" if row["at_floor"] else ""
        self._progress.say(
            f"round {row['round']}/{len(self._plan.kept)} {row['group']}: asked "
            f"{row['asked']:.2%}, achieved {row['achieved']:.2%}, loss {row['loss']:.4f}, rewind "
            f"verified, {seconds:.1f} s{floors}"
        )
        if self._folder is not None:
            self._folder.log("round", **row, seconds=seconds)

    def _tickets(self) -> TicketSet:
        plan, late = self._plan, self._point.step > 0
        return TicketSet(
            [Ticket(name, self._masks[name], self._point.ticket_state()) for name in plan.groups],
            structure=model_structure(plan.model),
            theta_0=model_values(plan.model),
            schedule=plan.schedule.description() | {"rewind_to": plan.rewind_to},
            history=self._history,
            rewind_state=self._point.state() if late else None,
        )
