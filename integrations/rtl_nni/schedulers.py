"""The core's sparsity schedules as scheduled pruners of NNI, for use in any NNI pipeline."""

import abc
import math
from typing import Any

from rtl_nni.host_types import ComboPruner, Pruner
from rtl_nni.optimizer_names import optimized_names, refuse_strangers
from rtl_plugin.integration_api import (
    GeometricSchedule,
    InvalidArgument,
    PruningFailed,
    survivors,
    whole_number,
)


class _PathPruner(ComboPruner, abc.ABC):  # type: ignore[misc]
    """A scheduled pruner whose goals follow a path."""

    def __init__(
        self, pruner: Any, interval_steps: int, total_times: int, evaluator: Any = None
    ) -> None:
        if not isinstance(pruner, Pruner):
            raise InvalidArgument(
                f"{type(self).__name__} wraps an NNI pruner object, got {type(pruner).__name__}"
            )
        if pruner.evaluator is not None and evaluator is not None:
            raise InvalidArgument(
                f"{type(pruner).__name__} has an evaluator already: leave evaluator= out here"
            )
        if pruner.evaluator is None and evaluator is None:
            raise InvalidArgument(
                f"{type(self).__name__} trains while it prunes: give the evaluator to the "
                f"{type(pruner).__name__} that it wraps"
            )
        if evaluator is not None and not evaluator._initialization_complete:
            refuse_strangers(type(self).__name__, evaluator, _unwrapped(pruner))
        super().__init__(
            pruner,
            whole_number("interval_steps", interval_steps, 1),
            whole_number("total_times", total_times, 1),
            evaluator,
        )
        _check_trained(self, pruner)
        self.interval_steps: int
        self.total_times: int

    def compress(self, max_steps: int | None, max_epochs: int | None) -> Any:
        """Train and prune, as NNI's scheduled pruners do.

        Args:
            max_steps: optimizer steps, at least ``interval_steps * total_times``.
            max_epochs: instead of steps.

        Returns:
            The model, wrapped, and its masks.

        Raises:
            InvalidArgument: there are too few steps, or neither is given.
        """
        least = self.interval_steps * self.total_times
        if max_steps is None and max_epochs is None:
            raise InvalidArgument(f"{type(self).__name__} needs max_steps or max_epochs")
        if max_steps is not None and max_steps < least:
            raise InvalidArgument(
                f"{type(self).__name__} makes its final masks after {least} steps (interval_steps "
                f"* total_times), and max_steps is {max_steps}"
            )
        return super().compress(max_steps, max_epochs)

    @abc.abstractmethod
    def goal_at(self, key: str, goal: float, times: int) -> float:
        """A setting after some of the updates.

        Args:
            key: ``"sparse_ratio"``, ``"sparse_threshold"``, ``"min_sparse_ratio"`` or
                ``"max_sparse_ratio"``.
            goal: its final value.
            times: updates so far, from 1 to ``total_times``.
        """

    def update_sparse_goals(self, current_times: int) -> None:
        """Set what the wrapped pruner goes by.

        Args:
            current_times: updates so far, from 1 to ``total_times``.
        """
        last = current_times >= self.total_times
        for module, targets in self.sparse_goals.items():
            for target, goals in targets.items():
                for key, goal in goals.items():
                    value = goal if last else self.goal_at(key, goal, current_times)
                    setattr(self._target_spaces[module][target], key, float(value))


class GeometricPruner(_PathPruner):
    """Removes the same fraction of the survivors at every update, beside NNI's Linear and AGP.

    Args:
        pruner: a fresh NNI pruner that has the evaluator; its ratios are the final ones.
        interval_steps: optimizer steps between two updates.
        total_times: number of updates.
        evaluator: where the pruner has none and does not train it yet; tied to the model before
            any pruner wrapped it.

    Raises:
        InvalidArgument: an argument is out of range, there is no evaluator or two, or the
            evaluator's optimizer does not hold the model's parameters.

    Thresholds have no survivors to count and rise evenly.

    Example:
        >>> import nni, torch
        >>> from nni.compression.pruning import LevelPruner
        >>> from rtl_nni import torch_evaluators
        >>> model = torch.nn.Linear(4, 4)
        >>> evaluator = torch_evaluators(
        ...     model,
        ...     {"all": [torch.ones(2, 4)]},
        ...     training_step=lambda batch, model: model(batch).square().mean(),
        ...     optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
        ... )["all"]
        >>> config = [{"op_types": ["Linear"], "sparse_ratio": 0.75}]
        >>> inner = LevelPruner(model, config, evaluator)
        >>> _, masks = GeometricPruner(inner, interval_steps=2, total_times=2).compress(4, None)
        >>> float(masks[""]["weight"].mean())
        0.25
    """

    def goal_at(self, key: str, goal: float, times: int) -> float:
        """As documented in the base class."""
        fraction = times / self.total_times
        if key == "sparse_threshold":
            return goal * fraction
        if goal >= 1:  # a maximum that is none
            return goal
        return GeometricSchedule(0.5, rounds=1).path(goal, fraction)


class FixedCountPruner(_PathPruner):
    """Removes a fixed number of weights at every update, the rest in the last.

    Args:
        pruner: a fresh NNI pruner that has the evaluator; its ratios are the final ones.
        interval_steps: optimizer steps between two updates.
        count: weights removed an update, over all layers; each layer gives in proportion to what
            its ratio asks of it.
        evaluator: as for :class:`GeometricPruner`.

    Raises:
        InvalidArgument: as for :class:`GeometricPruner`, or a layer has a threshold and no ratio.

    ``total_times`` follows from the count: ``compress`` needs as many times ``interval_steps``.

    Example:
        >>> import nni, torch
        >>> from nni.compression.pruning import LevelPruner
        >>> from rtl_nni import torch_evaluators
        >>> model = torch.nn.Linear(4, 4)
        >>> evaluator = torch_evaluators(
        ...     model,
        ...     {"all": [torch.ones(2, 4)]},
        ...     training_step=lambda batch, model: model(batch).square().mean(),
        ...     optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
        ... )["all"]
        >>> config = [{"op_types": ["Linear"], "sparse_ratio": 0.75}]
        >>> pruner = FixedCountPruner(
        ...     LevelPruner(model, config, evaluator), interval_steps=1, count=5
        ... )
        >>> pruner.total_times
        3
    """

    def __init__(self, pruner: Any, interval_steps: int, count: int, evaluator: Any = None) -> None:
        self.count = whole_number("count", count, 1)
        self._to_remove = _weights_to_remove(pruner)
        total_times = max(1, math.ceil(self._to_remove / self.count))
        super().__init__(pruner, interval_steps, total_times, evaluator)

    def goal_at(self, key: str, goal: float, times: int) -> float:
        """As documented in the base class."""
        return goal * min(1.0, self.count * times / self._to_remove)


def _weights_to_remove(pruner: Any) -> int:
    if not isinstance(pruner, Pruner):
        raise InvalidArgument(
            f"FixedCountPruner wraps an NNI pruner object, got {type(pruner).__name__}"
        )
    total = 0
    for module, targets in pruner._target_spaces.items():
        for target, space in targets.items():
            if space.sparse_threshold is not None:
                raise InvalidArgument(
                    f"FixedCountPruner counts weights, and {module}.{target} has a "
                    "sparse_threshold, which does not say how many go: use a sparse_ratio"
                )
            if space.sparse_ratio is not None:
                numel = space.target.numel()
                total += numel - survivors(_within_limits(space), numel)
    if total == 0:
        raise PruningFailed("the wrapped pruner's configuration asks for no sparsity")
    return total


def _within_limits(space: Any) -> float:
    low, high = space.min_sparse_ratio, space.max_sparse_ratio
    return float(min(1.0 if high is None else high, max(low or 0.0, space.sparse_ratio)))


def _check_trained(scheduled: Any, pruner: Any) -> None:
    """Refuse an evaluator that was tied to the model when another pruner had wrapped it."""
    held = optimized_names(scheduled.evaluator)
    lost = [
        f"{module}.{target}" if module else target
        for module, targets in pruner._target_spaces.items()
        for target, space in targets.items()
        if space.target is not None
        and space.target.requires_grad
        and (f"{module}.{target}" if module else target) not in held
    ]
    if lost:
        scheduled.unwrap_model()
        raise InvalidArgument(
            f"{len(lost)} parameters that are to be pruned are in no optimizer of the evaluator "
            f"and would not train ({', '.join(lost[:4])}): make the optimizer of "
            "model.parameters(), and the evaluator before any pruner wraps the model"
        )


def _unwrapped(pruner: Any) -> Any:
    if pruner._is_wrapped:
        pruner.unwrap_model()
    return pruner.bound_model
