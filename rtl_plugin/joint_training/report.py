"""What a joint retraining reports."""

from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True)
class RetrainReport:
    """What a joint retraining did.

    Args:
        rows: one object an (epoch, group): ``epoch``, ``group``, ``loss`` (mean of the epoch).
        batches_per_epoch: batches that every group gave in each epoch.

    Example:
        >>> print(RetrainReport([{"epoch": 1, "group": "a", "loss": 0.5}], 10))
          epoch  group      loss
        -------  -------  ------
              1  a        0.5000
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    batches_per_epoch: int = 0

    def __str__(self) -> str:
        table = [(row["epoch"], row["group"], row["loss"]) for row in self.rows]
        return tabulate(table, headers=("epoch", "group", "loss"), floatfmt=".4f")
