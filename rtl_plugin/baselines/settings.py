"""What a comparison trains with: one set of arguments for every method."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from rtl_plugin.arguments import whole_number
from rtl_plugin.discovery.importance import Importance
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.prunable import Prunable
from rtl_plugin.training_step import Loss

BuildModel = Callable[[int], nn.Module]


@dataclass(frozen=True)
class TrainingSettings:
    """The budget and recipe that every method shares.

    Args:
        schedule: sparsity after each round, for every method that prunes.
        steps: discovery steps of every (round, group); a single model gets K times as many, on
            the groups' data pooled.
        epochs: retraining epochs of M batches of every group; a single model gets K * M batches.
        optimizer: ``params -> optimizer`` or ``params -> (optimizer, lr_scheduler)``.
        prunable: as for ``discover``.
        importance: as for ``discover``.
        floor: as for ``discover``.
        rewind_to: as for ``discover``.
        private_parameters: as for ``retrain``; tickets with private statistics only.
        progress: show bars on a terminal.

    Raises:
        InvalidArgument: steps or epochs are not whole numbers of at least 1.

    Example:
        >>> import torch
        >>> from rtl_plugin import OneShotSchedule
        >>> TrainingSettings(OneShotSchedule(0.5), 10, 1, lambda p: torch.optim.Adam(p)).floor
        0.01
    """

    schedule: SparsitySchedule
    steps: int
    epochs: int
    optimizer: OptimizerFactory
    prunable: Prunable = None
    importance: str | Importance = "magnitude"
    floor: float = 0.01
    rewind_to: int = 0
    private_parameters: Sequence[str] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "epochs"):
            whole_number(name, getattr(self, name), least=1)


@dataclass(frozen=True)
class SingleModel:
    """The ordinary model that one-vs-rest tickets are compared with: all classes at once.

    Args:
        build_model: ``seed -> nn.Module`` with one output a class.
        loss: ``loss(model, batch)`` on batches with the dataset's own labels.

    Example:
        >>> single = SingleModel(lambda seed: nn.Linear(4, 3), lambda model, batch: model(batch))
        >>> single.build_model(0).out_features
        3
    """

    build_model: BuildModel
    loss: Loss


def stage_folder(root: Path | None, *parts: str) -> Path | None:
    """A folder for one training of a comparison, or None without a run folder."""
    return None if root is None else root.joinpath(*parts)
