"""All methods side by side over seeds, with confidence intervals; killable and resumable."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_plugin.baselines.methods import POOLED_METHODS, method_named
from rtl_plugin.baselines.preflight import (
    check_classes,
    check_models,
    check_pooled_batches,
    check_scoring,
    chosen_methods,
    chosen_seeds,
    recorded_arguments,
)
from rtl_plugin.baselines.scoring import GROUP_METRIC, GroupedClassification, Protocol
from rtl_plugin.baselines.seed_run import SeedRun
from rtl_plugin.baselines.settings import BuildModel, SingleModel, TrainingSettings
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import preserved_generators
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule
from rtl_plugin.errors import InvalidArgument, RunFolderMismatch
from rtl_plugin.evaluation import confidence_interval
from rtl_plugin.fingerprint import model_values
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.randomness import derived_seed, forked
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

    Example:
        >>> row = {"task": "t", "sparsity": 0.5, "method": "dense", "metric": "accuracy"}
        >>> row |= {"mean": 0.9, "low": None, "high": None, "parameters": 8, "seeds": [0]}
        >>> print(Comparison([row], [], "accuracy").table())
          sparsity  method    accuracy      parameters
        ----------  --------  ----------  ------------
              50 %  dense     0.900                  8
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
        common = [m for m in known if m == self.headline or not m.startswith(GROUP_METRIC)]
        chosen = common if metrics is None else list(metrics)
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
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    protocol: Protocol | None = None,
    single: SingleModel | None = None,
    split: str = "test",
    task: str = "task",
    run_folder: str | os.PathLike[str] | None = None,
    **recipe: Any,
) -> Comparison:
    """Train methods with the same budget over seeds and measure them on one split.

    Every method trains on the same number of batches: a single model gets those of all K tickets
    together, mixing the groups, and methods that need no discovery (dense, random tickets) retrain
    for as many batches more (rounded up to whole batches an epoch).

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
            ``"dense"``, ``"shared mask"``, ``"random tickets"``, ``"shared statistics"``; None
            takes all (without ``"shared mask"`` where ``single`` is given).
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
        InvalidArgument: an unknown method, no seeds, a ``build_model`` that is not deterministic,
            or another argument out of range.
        InvalidGroups: a group lacks a split that scoring needs, or one model cannot train on the
            groups' batches together.
        MissingExtra: scikit-learn or scipy is not installed.
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
    protocol = protocol or GroupedClassification()
    chosen, seeds = chosen_methods(methods, single), chosen_seeds(seeds)
    check_scoring(protocol, groups, chosen, single, split)
    check_pooled_batches(groups, chosen)
    folder = RunFolder(run_folder, "compare") if run_folder is not None else None
    root = None if folder is None else Path(folder.root)
    raw = []
    for seed in seeds:
        run = SeedRun(build_model, groups, loss, settings, seed, root, single)
        check_models(run)
        check_classes(run, protocol, chosen)
        if folder is not None:
            folder.open(recorded_arguments(run, protocol, split, task))
        raw += [_measured(name, run, protocol, split, folder) for name in chosen]
    rows = _rows(raw, schedule.target, task)
    result = Comparison(rows, raw, protocol.headline)
    if folder is not None:
        content = {"rows": rows, "raw": raw, "headline": result.headline}
        folder.write_json(folder.result("results"), content)
    return result


def _measured(
    name: str, run: SeedRun, protocol: Protocol, split: str, folder: RunFolder | None
) -> dict[str, Any]:
    path = None
    if folder is not None:
        path = folder.result(f"{name.replace(' ', '-')}-seed-{run.seed}")
        if path.exists():
            return _remembered(name, run, protocol, folder, path)
    trained = method_named(name)(run)
    with forked(derived_seed(run.seed, "score", name)), preserved_generators(run.groups):
        metrics = protocol.score(trained, run.groups, split)
    result = {
        "method": name,
        "seed": run.seed,
        "theta_0": model_values(run.model(single=trained.single)),
        "metrics": metrics,
        "parameters": trained.parameters,
        "bytes": trained.bytes,
    }
    if folder is not None and path is not None:
        folder.write_json(path, result)
        folder.log("measured", method=name, seed=run.seed)
    return result


def _remembered(
    name: str, run: SeedRun, protocol: Protocol, folder: RunFolder, path: Path
) -> dict[str, Any]:
    result = folder.read_json(path)
    if result.get("theta_0") != model_values(run.model(single=name in POOLED_METHODS)):
        raise RunFolderMismatch(
            f"{path} was measured from other initial weights than build_model({run.seed}) gives "
            "now: use another run_folder, or the build_model that it was made with"
        )
    # JSON objects are written with sorted keys, and the order of rows must not tell a resume.
    metrics = {metric: result["metrics"][metric] for metric in protocol.metrics(run.groups)}
    return {**result, "metrics": metrics}


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
