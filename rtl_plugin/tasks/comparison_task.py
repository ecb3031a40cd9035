"""Everything a comparison needs beside its budget, so that a command line can run it."""

from dataclasses import dataclass, field

from rtl_plugin.baselines.scoring import GroupedClassification, Protocol
from rtl_plugin.baselines.settings import BuildModel, SingleModel
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.prunable import Prunable
from rtl_plugin.training_step import Loss


@dataclass(frozen=True)
class ComparisonTask:
    """A problem to compare methods on.

    Args:
        name: for tables and rows.
        build_model: ``seed -> nn.Module``.
        groups: with validation and test splits.
        loss: ``loss(model, batch) -> scalar tensor``.
        optimizer: as for ``discover``.
        protocol: how methods are scored.
        single: model and loss of the single-model methods, where they differ.
        prunable: as for ``discover``.

    Example:
        >>> import torch
        >>> task = ComparisonTask(
        ...     "toy",
        ...     build_model=lambda seed: torch.nn.Linear(2, 2),
        ...     groups=DataGroups.from_loaders({"a": [(torch.zeros(1, 2), torch.zeros(1))]}),
        ...     loss=lambda model, batch: model(batch[0]).sum(),
        ...     optimizer=lambda params: torch.optim.Adam(params),
        ... )
        >>> task.protocol.headline
        'accuracy'
    """

    name: str
    build_model: BuildModel
    groups: DataGroups
    loss: Loss
    optimizer: OptimizerFactory
    protocol: Protocol = field(default_factory=GroupedClassification)
    single: SingleModel | None = None
    prunable: Prunable = None
