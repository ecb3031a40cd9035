"""One trial of a search: discover, retrain, measure, and tell whoever runs the search."""

import time
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from rtl_nni.search.collapse_stop import CollapseStop, StopVerdict
from rtl_nni.search.parameters import checked_parameters, shared_by_rounds
from rtl_nni.search.reporting import Report, reporter_from
from rtl_nni.search.round_log import Aggregate, RoundLog, TrialStopped, aggregate_from
from rtl_nni.search.trial_inputs import (
    BuildGroups,
    BuildModel,
    Measure,
    PathLike,
    begin,
    built_groups,
    built_model,
    checked_measure,
    measured_figures,
    plain,
    trial_folder,
    warm_start_from,
)
from rtl_nni.search.trial_result import TrialResult
from rtl_nni.search.trial_task import TrialTask
from rtl_plugin.integration_api import (
    DataGroups,
    Evaluate,
    InvalidArgument,
    Loss,
    MixtureOfMasks,
    OptimizerFactory,
    Prunable,
    TicketSet,
    WarmStart,
)


def run_trial(
    build_model: BuildModel,
    groups: DataGroups | BuildGroups,
    loss: Loss,
    evaluate: Evaluate,
    params: Mapping[str, Any],
    *,
    optimizer: OptimizerFactory,
    prunable: Prunable = None,
    own_parameters: Iterable[str] = (),
    aggregate: str | Aggregate = "mean",
    measure: Measure | None = None,
    folder: PathLike | None = None,
    warm_start: bool | PathLike | WarmStart = False,
    stop: CollapseStop | None = None,
    report: str | Report | None = "auto",
    send_counts: bool = False,
    progress: bool | str = False,
) -> TrialResult:
    """Run one trial: find tickets, retrain them, measure them, and report plain floats.

    After every round of discovery the aggregated metric on the validation batches is reported as
    an intermediate result, and after retraining the final one. NNI's manager hears them where it
    started the process; otherwise the same call works in a loop or under another search.

    Args:
        build_model: ``build_model(seed) -> nn.Module``; the same seed gives the same weights.
        groups: the data groups, or a function that makes them from ``params``; all with validation
            batches.
        loss: ``loss(model, batch) -> scalar tensor``.
        evaluate: ``evaluate(model, batches) -> float`` on a group's validation batches, finite.
        params: the trial's parameters, see :func:`rtl_nni.search_space`; ``rounds``, ``steps``,
            ``epochs`` and one of ``sparsity`` and ``pruned_per_round`` are needed.
        optimizer: ``params -> optimizer``, or ``params -> (optimizer, lr_scheduler)``.
        prunable: which parameters may be masked.
        own_parameters: names in ``params`` that are yours.
        aggregate: "mean", "min" or "max" over the groups, or a function of group -> metric.
        measure: name -> function of the finished mixture that returns a finite number; kept beside
            the metric.
        folder: where the trial's files go; under NNI its output folder, otherwise by default none
            are written. A trial that was killed goes on there.
        warm_start: take first rounds that other trials share from their folders: True looks
            beside ``folder``, a path below that folder; the core's :class:`rtl_plugin.WarmStart`
            names run folders (``<trial>/rtl/run``) and what else must agree. Bit-identical to
            training them.
        stop: ends the trial from inside by the rule of ``CollapseAssessor``, for searches that have
            no assessor.
        report: "auto" tells NNI's manager where there is one; ``report(round, value)`` is called
            after every round instead; None tells nobody.
        send_counts: make intermediate results dictionaries with the counts that
            ``CollapseAssessor`` reads, for services whose trials share no folder with the manager.
            Other assessors take plain floats only.
        progress: as in ``discover``.

    Returns:
        The figures; with tickets and model unless the trial was stopped.

    Raises:
        InvalidArgument: an argument or parameter is out of range, unknown or contradicts another;
            or a metric is not finite: such a trial fails, and its tuner hears no figure of it.
        InvalidGroups: a group has no batches, or none to evaluate on.
        NothingPrunable: no parameter may be masked.
        TrainingDiverged: a loss is NaN or infinite.
        RunFolderMismatch: the folder holds a trial with other arguments.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> batch = (torch.eye(4), torch.ones(4, 1))
        >>> loaders = {"a": [batch], "b": [batch]}
        >>> def distance(model, batch):
        ...     return (model(batch[0]) - batch[1]).square().mean()
        >>> result = run_trial(
        ...     lambda seed: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
        ...     DataGroups.from_loaders(loaders, validation=loaders),
        ...     distance,
        ...     lambda model, batches: -sum(float(distance(model, batch)) for batch in batches),
        ...     {"sparsity": 0.5, "rounds": 2, "steps": 3, "epochs": 1},
        ...     optimizer=lambda params: torch.optim.SGD(params, 0.1),
        ... )
        >>> len(result.intermediate), result.steps_done, result.tickets
        (2, 14, TicketSet(a: 50.0%, b: 50.0%))
    """
    asked = checked_parameters(params, own_parameters)
    files = trial_folder(folder)
    own = plain(shared_by_rounds(params))
    warm = warm_start_from(warm_start, files, own)
    figures, combine = checked_measure(measure), aggregate_from(aggregate)
    if stop is not None and not isinstance(stop, CollapseStop):
        raise InvalidArgument(f"stop must be a CollapseStop or None, got {stop!r}")
    reporter, began = reporter_from(report), time.perf_counter()
    data, model = built_groups(groups, params, asked.seed), built_model(build_model, asked.seed)
    task = TrialTask(model, data, loss, evaluate, optimizer, prunable, asked)
    if files is not None:
        begin(files, params, task)
    log = RoundLog(asked, own, combine, reporter, files, send_counts, stop)
    try:
        tickets = task.discover(log, files, warm, progress)
    except TrialStopped as ended:
        if files is not None:
            files.write(files.stopped, ended.verdict.to_json() | {"by": "run_trial"})
        return _stopped(task, log, ended.verdict, time.perf_counter() - began)
    task.retrain(tickets, files, progress)
    result = _finished(task, log, tickets, combine, figures, began)
    if files is not None:
        files.write(files.result, result.to_json())
    assert result.metric is not None  # noqa: S101 - it was not stopped
    reporter.final(result.metric)
    return result


def _finished(
    task: TrialTask,
    log: RoundLog,
    tickets: TicketSet,
    combine: Aggregate,
    figures: Measure,
    began: float,
) -> TrialResult:
    mixture = MixtureOfMasks(task.model, tickets)
    metrics = task.metrics(mixture)
    return TrialResult(
        metric=combine(metrics),
        metrics=metrics,
        intermediate=log.intermediate,
        sparsity=fmean(1 - tickets.density(name) for name in tickets),
        parameters=tickets.active_parameters(),
        measured=measured_figures(figures, mixture, task.asked.seed),
        steps_planned=task.steps_planned,
        steps_done=log.steps_done + task.retraining_steps,
        seconds=time.perf_counter() - began,
        seconds_saved=log.seconds_saved,
        tickets=tickets,
        model=task.model,
    )


def _stopped(task: TrialTask, log: RoundLog, verdict: StopVerdict, seconds: float) -> TrialResult:
    return TrialResult(
        metric=None,
        metrics={},
        intermediate=log.intermediate,
        sparsity=verdict.sparsity,
        parameters=None,
        measured={},
        steps_planned=task.steps_planned,
        steps_done=log.steps_done,
        seconds=seconds,
        seconds_saved=log.seconds_saved,
        stopped=verdict,
    )
