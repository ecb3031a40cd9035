"""All methods side by side over seeds, with confidence intervals; killable and resumable."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_plugin.baselines.methods import METHODS, method_named
from rtl_plugin.baselines.scoring import GroupedClassification, Protocol
from rtl_plugin.baselines.seed_run import SeedRun
from rtl_plugin.baselines.settings import BuildModel, SingleModel, TrainingSettings
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.discovery.importance import importance_from
from rtl_plugin.discovery.plan import callable_name
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.evaluation import confidence_interval
from rtl_plugin.fingerprint import model_structure, model_values
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.reports.tables import comparison_table
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.training_step import Loss


@dataclass(frozen=True)
class Comparison:
    """Measured methods.

    Args:
        rows: one object a (sparsity, method, metric): ``task``, ``sparsity``, ``method``,
            ``metric``, ``mean``, ``low``, ``high`` (95 % interval over seeds, None for one seed),
            ``seeds``, ``parameters``, ``bytes`` (means over seeds).
        raw: one object a (method, seed): ``metrics``, ``parameters``, ``bytes``.
        headline: the metric that leads.
    """

    rows: list[dict[str, Any]]
    raw: list[dict[str, Any]]
    headline: str

    def table(self, metrics: Sequence[str] | None = None, style: str = "plain") -> str:
        """The rows as a table.

        Args:
            metrics: which metrics, in this order; None for all but those of single groups.
            style: ``"plain"`` or ``"markdown"``.

        Raises:
            InvalidArgument: an unknown metric or style.
        """
        known = list(dict.fromkeys(row["metric"] for row in self.rows))
        chosen = [m for m in known if " in " not in m] if metrics is None else list(metrics)
        unknown = [metric for metric in chosen if metric not in known]
        if unknown:
            raise InvalidArgument(f"unknown metrics {unknown}: one of {', '.join(known)}")
        by_metric = {metric: [r for r in self.rows if r["metric"] == metric] for metric in chosen}
        ordered = [row for metric in chosen for row in by_metric[metric]]
        return comparison_table(ordered, style)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.table()


def compare(
    build_model: BuildModel,
    groups: DataGroups,
    loss: Loss,
    *,
    schedule: SparsitySchedule,
    steps: int,
    epochs: int,
    optimizer: OptimizerFactory,
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    protocol: Protocol | None = None,
    single: SingleModel | None = None,
    split: str = "test",
    task: str = "task",
    run_folder: str | os.PathLike[str] | None = None,
    **recipe: Any,
) -> Comparison:
    """Train methods with the same budget over seeds and measure them on one split.

    Every method sees the same number of samples: a single model gets the steps of all K tickets
    together, on batches that mix the groups.

    Args:
        build_model: ``seed -> nn.Module``; called afresh for every training, under a seed of its
            own, so it need not seed torch.
        groups: the data groups, with validation and test splits.
        loss: ``loss(model, batch) -> scalar tensor``.
        schedule: sparsity after each round.
        steps: discovery steps of every (round, group).
        epochs: retraining epochs.
        optimizer: as for ``discover``.
        methods: names among ``"adaptive tickets"``, ``"IMP single"``, ``"IMP multiple"``,
            ``"dense"``, ``"shared mask"``, ``"random tickets"``, ``"shared statistics"``.
        seeds: one training of every method each.
        protocol: how to score: ``rtl.protocols.GroupedClassification`` (the default),
            ``OneVsRest`` or ``MeanOfMetric``.
        single: model and loss of the single-model methods, where they differ (one-vs-rest).
        split: ``"test"``, or ``"validation"`` for tuning.
        task: a name for the rows.
        run_folder: checkpoints and results; the same call again resumes, to the same bytes.
        recipe: ``prunable``, ``importance``, ``floor``, ``rewind_to``, ``private_parameters``,
            ``progress``: as for ``discover`` and ``retrain``.

    Returns:
        Means with 95 % confidence intervals over seeds, and the raw results.

    Raises:
        InvalidArgument: an unknown method, no seeds, or another argument out of range.
        InvalidGroups: a group lacks the split that is asked for.
        RunFolderMismatch: the run folder was made with other arguments.

    Example:
        >>> import torch
        >>> from rtl_plugin import OneShotSchedule
        >>> data = [(torch.randn(8, 4), torch.arange(8) % 2)]
        >>> comparison = compare(
        ...     lambda seed: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)),
        ...     DataGroups.from_loaders({"a": data}, validation={"a": data}, test={"a": data}),
        ...     lambda model, batch: torch.nn.functional.cross_entropy(model(batch[0]), batch[1]),
        ...     schedule=OneShotSchedule(0.5),
        ...     steps=2,
        ...     epochs=1,
        ...     optimizer=lambda params: torch.optim.Adam(params),
        ...     methods=["adaptive tickets", "dense"],
        ...     seeds=[0, 1],
        ... )
        >>> [row["parameters"] for row in comparison.rows if row["metric"] == "accuracy"]
        [16, 32]

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, protocol and baselines.
    """
    settings = TrainingSettings(schedule, steps, epochs, optimizer, **recipe)
    chosen = list(methods)
    for name in chosen:
        method_named(name)
    seeds = list(seeds)
    if not seeds or not chosen or len(set(seeds)) < len(seeds) or len(set(chosen)) < len(chosen):
        raise InvalidArgument(f"need distinct seeds and methods, got {seeds} and {chosen}")
    if split not in ("test", "validation"):
        raise InvalidArgument(f"split must be 'test' or 'validation', got {split!r}")
    protocol = protocol or GroupedClassification()
    folder = RunFolder(run_folder, "compare") if run_folder is not None else None
    root = None if folder is None else Path(folder.root)
    raw = []
    for seed in seeds:
        run = SeedRun(build_model, groups, loss, settings, seed, root, single)
        if folder is not None:
            folder.open(_arguments(run, settings, protocol, split, task, build_model))
        raw += [_measured(name, run, protocol, split, folder) for name in chosen]
    rows = _rows(raw, schedule.target, task)
    result = Comparison(rows, raw, protocol.headline)
    if folder is not None:
        content = {"rows": rows, "raw": raw, "headline": result.headline}
        folder.write_json(folder.result("results"), content)
    return result


def _arguments(
    run: SeedRun,
    settings: TrainingSettings,
    protocol: Protocol,
    split: str,
    task: str,
    build_model: BuildModel,
) -> dict[str, Any]:
    importance = importance_from(settings.importance)
    return {
        "groups": run.groups.signature(),
        "schedule": settings.schedule.description(),
        "steps": settings.steps,
        "epochs": settings.epochs,
        "floor": settings.floor,
        "importance": f"{type(importance).__module__}.{type(importance).__qualname__}",
        "rewind_to": settings.rewind_to,
        "private_parameters": list(settings.private_parameters),
        "build_model": callable_name(build_model),
        "loss": callable_name(run.loss),
        "optimizer": callable_name(settings.optimizer),
        "model": model_structure(run.model()),
        "protocol": type(protocol).__name__,
        "split": split,
        "task": task,
    }


def _measured(
    name: str, run: SeedRun, protocol: Protocol, split: str, folder: RunFolder | None
) -> dict[str, Any]:
    path = None
    if folder is not None:
        path = folder.result(f"{name.replace(' ', '-')}-seed-{run.seed}")
        if path.exists():
            return folder.read_json(path)
    trained = method_named(name)(run)
    result = {
        "method": name,
        "seed": run.seed,
        "theta_0": model_values(run.model(single=trained.single)),
        "metrics": protocol.score(trained, run.groups, split),
        "parameters": trained.parameters,
        "bytes": trained.bytes,
    }
    if folder is not None and path is not None:
        folder.write_json(path, result)
        folder.log("measured", method=name, seed=run.seed)
    return result


def _rows(raw: list[dict[str, Any]], sparsity: float, task: str) -> list[dict[str, Any]]:
    rows = []
    for method in dict.fromkeys(result["method"] for result in raw):
        results = [result for result in raw if result["method"] == method]
        for metric in results[0]["metrics"]:
            interval = confidence_interval([result["metrics"][metric] for result in results])
            rows.append(
                {
                    "task": task,
                    "sparsity": 0.0 if method == "dense" else sparsity,
                    "method": method,
                    "metric": metric,
                    **interval._asdict(),
                    "seeds": [result["seed"] for result in results],
                    "parameters": _mean([result["parameters"] for result in results]),
                    "bytes": _mean([result["bytes"] for result in results]),
                }
            )
    return rows


def _mean(counts: list[int]) -> int:
    return round(sum(counts) / len(counts))
