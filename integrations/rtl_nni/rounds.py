"""The loop over rounds and groups."""

import time
from dataclasses import replace
from typing import Any

from torch import nn

from rtl_nni.achieved import check_reached, check_trained
from rtl_nni.config_check import HEADLINE, ConfigCheck, refuse
from rtl_nni.config_entries import progress_factor, scaled
from rtl_nni.host_run import check_length, host_refusals, run
from rtl_nni.pruner_parts import spaces_of
from rtl_nni.pruner_source import PrunerSource, Training
from rtl_nni.report import Report, global_notes, round_row
from rtl_nni.rewinding import Rewinding
from rtl_nni.survivors import check_nested, start_from
from rtl_nni.target_row import TargetRow
from rtl_nni.target_traps import output_faults
from rtl_plugin.integration_api import Progress, RewindPoint, SparsitySchedule, Where

NniMasks = dict[str, dict[str, Any]]


def number_of_rounds(schedule: SparsitySchedule | None, prunable: int) -> int:
    """How many rounds a schedule takes.

    Args:
        schedule: the user's; None is one round.
        prunable: number of weights under a ratio or threshold.
    """
    return 1 if schedule is None else schedule.rounds_for(prunable)


class Rounds:
    """Trains and prunes every group in every round, each with a fresh pruner.

    Args:
        plan: the configuration.
        schedule: the path of its ratios.
        source: makes pruners.
        training: how long each trains.
        rewinding: what every training starts from.
        point: the rewind point.
    """

    def __init__(
        self,
        plan: ConfigCheck,
        schedule: SparsitySchedule | None,
        source: PrunerSource,
        training: Training,
        rewinding: Rewinding,
        point: RewindPoint,
    ) -> None:
        self._plan, self._schedule, self._source = plan, schedule, source
        self._training, self._rewinding, self._point = training, rewinding, point

    def run(self, report: Report, progress: Progress) -> dict[str, NniMasks]:
        """Run them all.

        Args:
            report: gets a row a (round, group).
            progress: gets a line.

        Returns:
            Group -> NNI mask dictionary of the last round, in the model's order.
        """
        total = number_of_rounds(self._schedule, self._plan.prunable)
        masks: dict[str, NniMasks] = {}
        for round in range(1, total + 1):
            for group in self._rewinding.evaluators:
                began = time.perf_counter()
                masks[group], rows = self._one(round, group, masks.get(group), round == total)
                row = round_row(round, group, rows, masks[group], time.perf_counter() - began)
                report.rows.append(row)
                if round == total:
                    report.notes += global_notes(group, rows, masks[group])
                progress.say(
                    f"round {round}/{total}, {group}: {row.achieved:.1%} of the weights masked, "
                    f"{row.seconds:.1f} s"
                )
        return masks

    def _one(
        self, round: int, group: str, before: NniMasks | None, last: bool
    ) -> tuple[NniMasks, list[Any]]:
        where = Where("rtl_nni", group, "round", round)
        factor = progress_factor(self._schedule, round, self._plan.prunable)
        config = [entry.as_config(factor) for entry in self._plan.entries]
        rows = [replace(row, settings=scaled(row.settings, factor)) for row in self._plan.rows]
        evaluator, model = self._rewinding.evaluators[group], self._rewinding.model
        with self._rewinding.before(self._point, round, group):
            with host_refusals(self._source.name):
                pruner = self._source.fresh(model, config, evaluator, self._training.steps)
            self._source.check_asked(pruner, rows)
            refuse(HEADLINE, output_faults(model, _as_pruned(rows, pruner)))
            check_length(pruner, self._training)
            if before is not None:
                start_from(pruner, before)
            masks = _in_order(model, run(pruner, evaluator, self._training))
        if self._training.steps != 0:
            names = pruner._get_param_names_map()
            ranked = {row.name for row in rows if row.ranked}
            check_trained(self._point.parameters, model, names, before or {}, where, ranked)
        check_reached(rows, masks, pruner, where, last)
        if before is not None:
            check_nested(masks, before, where)
        return masks, rows


def _as_pruned(rows: list[TargetRow], pruner: Any) -> list[TargetRow]:
    """With the granularity that the pruner chose, which a function's pruner settles only now."""
    spaces = spaces_of(pruner)
    return [
        replace(row, granularity=spaces[row.layer, row.target].granularity)
        for row in rows
        if row.ranked
    ]


def _in_order(model: nn.Module, masks: NniMasks) -> NniMasks:
    return {name: masks[name] for name, _ in model.named_modules() if name in masks}
