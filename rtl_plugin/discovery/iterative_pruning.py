"""Adaptive ticket extraction: Algorithm 1 of the paper."""

import os
import time
from typing import Any

from torch import nn

from rtl_plugin.checkpoint import read_file, write_file
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import preserved_generators
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.discovery.backends import Backend, backend_named
from rtl_plugin.discovery.donors import check_key, open_donors
from rtl_plugin.discovery.importance import Importance
from rtl_plugin.discovery.late_rewinding import restored_rewind_point, train_to_rewind_point
from rtl_plugin.discovery.measuring import Evaluate
from rtl_plugin.discovery.plan import DiscoveryPlan, OnRound, plan_discovery
from rtl_plugin.discovery.rewinding import RewindPoint, Untouched
from rtl_plugin.discovery.rounds import Rounds
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule
from rtl_plugin.discovery.warm_start import WarmStart
from rtl_plugin.environment import software_versions
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.modes import set_aside_gradients, train_mode
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.progress import Progress
from rtl_plugin.prunable import Prunable
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.tickets import TicketSet
from rtl_plugin.training_step import Loss


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
    evaluate: Evaluate | None = None,
    stop_before_collapse: bool | CollapseRule = False,
    closing_round: bool | None = None,
    on_round: OnRound | None = None,
    run_folder: str | os.PathLike[str] | None = None,
    warm_start: WarmStart | None = None,
    progress: bool | str = True,
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
        evaluate: ``evaluate(model, batches) -> float`` on every group's validation batches after
            each round's training, without gradients and in eval mode; then a closing round trains
            once more under the final masks, to measure them. It changes no mask.
        stop_before_collapse: a ticket whose similarity with the others changes abruptly keeps the
            masks of its last good round and leaves the rounds; the others go on. True takes the
            default :class:`rtl_plugin.CollapseRule`.
        closing_round: False leaves that closing round out, where another training measures the
            final masks anyway; None has one where there is ``evaluate``.
        on_round: ``on_round(finished)`` after every round, with its history rows and the counts of
            shared weights (:class:`rtl_plugin.FinishedRound`), also of rounds that lie in the run
            folder. What it raises ends the run; its random draws change nothing.
        run_folder: checkpoint after every (round, group); the same call again resumes, and ends
            bit-identical.
        warm_start: other run folders of a search; first rounds that are the same there are taken
            over instead of trained, bit-identical (:class:`rtl_plugin.WarmStart`). Needs
            ``run_folder``.
        progress: True shows a live table where standard error is a terminal (bars and lines
            without the extra ``live``), "lines" plain lines anywhere, False nothing.

    Returns:
        One ticket a group. Its state is the model's persistent buffers at the rewind point;
        ``history`` holds a row a (round, group): asked and achieved sparsity, loss and metric
        with the sparsity they were trained at, similarity with the others, alarm, floors.

    Raises:
        InvalidArgument: an argument is out of range or contradicts another.
        NothingPrunable: no parameter may be masked.
        InvalidGroups: a group has no batches, or none to evaluate on.
        InvalidLoss: the loss is not a scalar, or does not depend on the model.
        TrainingDiverged: a loss is NaN or infinite; finished rounds stay in the run folder.
        MaskBypassed: the forward pass reads a weight around its mask.
        RewindFailed: the weights after a rewind are not those of the rewind point.
        RunFolderMismatch: the run folder was made with other arguments, or with another key of
            ``warm_start``.

    Example:
        >>> import torch
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
        evaluate=evaluate, stop_before_collapse=stop_before_collapse, closing_round=closing_round,
        on_round=on_round,
    )  # fmt: skip
    train_round, shown = backend_named(backend), Progress(progress)
    folder = RunFolder(run_folder, "discover") if run_folder is not None else None
    _check_warm_start(warm_start, folder)
    if folder is not None:
        folder.open(plan.arguments())
        if warm_start is not None:
            check_key(folder, warm_start)
        # Who listens hears the rounds of a finished folder too; their files are all there.
        if folder.tickets.exists() and plan.on_round is None:
            return _loaded(folder, plan)
        folder.log("started", versions=software_versions(), device=str(plan.device))
        if warm_start is None:
            # Nobody looks at data and threads now, so no other run may rely on them.
            folder.identity.unlink(missing_ok=True)
    tickets = _found(plan, train_round, folder, shown, warm_start)
    if folder is not None:
        tickets.save(folder.tickets)
        folder.log("finished")
    return tickets


def _found(
    plan: DiscoveryPlan,
    train_round: Backend,
    folder: RunFolder | None,
    progress: Progress,
    warm_start: WarmStart | None,
) -> TicketSet:
    start = RewindPoint.capture(plan.model)
    with (
        train_mode(plan.model),
        set_aside_gradients(plan.model),
        preserved_generators(plan.groups),
        Untouched(plan.model, start) as untouched,
    ):
        donors = None
        if warm_start is not None and folder is not None:
            donors = open_donors(plan, start, folder, warm_start)
            if plan.rewind_to:
                donors.take_rewind_point(start)
        point = _rewind_point(plan, start, untouched, folder, progress)
        return Rounds(plan, point, untouched, train_round, folder, progress, donors).run()


def _check_warm_start(warm_start: Any, folder: RunFolder | None) -> None:
    if warm_start is None:
        return
    if not isinstance(warm_start, WarmStart):
        raise InvalidArgument(
            f"warm_start must be rtl_plugin.WarmStart(run folders), got {warm_start!r}"
        )
    if folder is None:
        raise InvalidArgument(
            "warm_start keeps what it takes over in the run folder: give run_folder= too"
        )


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
    began = time.perf_counter()
    point = train_to_rewind_point(plan, start, progress)
    untouched.check("late rewinding")
    if folder is not None:
        seconds = time.perf_counter() - began
        state = {**point.parameters, **point.buffers}
        tensors = {str(k): value for k, value in enumerate(state.values())}
        write_file(folder.rewind_point, "rewind point", {"names": list(state)}, tensors)
        folder.log("rewind_point", steps=plan.rewind_to, seconds=seconds)
    return point
