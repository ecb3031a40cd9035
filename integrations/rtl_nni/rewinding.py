"""Where every round starts: weights, random state and data order."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import nn

from rtl_nni.achieved import check_trained
from rtl_nni.bare_model import BareModel
from rtl_nni.data_order import DataOrder
from rtl_nni.host_run import train
from rtl_nni.pruner_source import Training
from rtl_plugin.integration_api import InvalidArgument, RewindPoint, Where


class Rewinding:
    """Puts the model, the random state and the data order back before each training.

    Args:
        bare: holds the model.
        evaluators: group -> evaluator, tied to parameter names.
        order: random state and generators.
    """

    def __init__(self, bare: BareModel, evaluators: Mapping[str, Any], order: DataOrder) -> None:
        self._bare, self.evaluators, self._order = bare, evaluators, order

    @property
    def model(self) -> nn.Module:
        """The user's network."""
        return self._bare.model

    def to(self, steps: int) -> RewindPoint:
        """The common rewind point.

        Each group's evaluator trains the dense network for its share of the steps, the groups one
        after the other: an evaluator owns its loop, so that single batches cannot take turns.

        Args:
            steps: of all groups together; 0 is the model as it is.

        Returns:
            The rewind point.

        Raises:
            InvalidArgument: there are fewer steps than groups.
            PruningFailed: a weight did not move.
            TrainingDiverged: a weight is NaN or infinite.
        """
        start = self._bare.start
        if steps == 0:
            return start
        if steps < len(self.evaluators):
            raise InvalidArgument(
                f"rewind_to={steps} is less than one step for each of {len(self.evaluators)} groups"
            )
        share, rest = divmod(steps, len(self.evaluators))
        point = start
        for number, (group, evaluator) in enumerate(self.evaluators.items()):
            with self.before(point, 0, group):
                own = share + (number < rest)
                train(self.model, evaluator, Training(own, None), None)
            names = {name: name for name in point.parameters}
            where = Where("rtl_nni", group, "round", 0)
            check_trained(point.parameters, self.model, names, {}, where)
            point = replace(RewindPoint.capture(self.model), step=steps)
        return point

    def before(self, point: RewindPoint, round: int, group: str) -> AbstractContextManager[None]:
        """Rewind everything; the block's random draws are those of the (round, group).

        Args:
            point: the weights and buffers to start from.
            round: counted from 1; 0 is the training before a late rewind point.
            group: its name.

        Raises:
            RewindFailed: the model does not hold the rewind point's bits.
        """
        self._bare.rewind(point, Where("rtl_nni", group, "round", round))
        return self._order.rewound(round, group)
