"""Streaming means of groups of vectors."""

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument


class GroupMeans:
    """Count, mean and scatter of K groups of vectors, one batch after the other, in float64.

    Args:
        groups: K.
        width: D.

    Example:
        >>> means = GroupMeans(groups=2, width=1)
        >>> means.add(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 0, 1]))
        >>> means.means.flatten().tolist(), means.radius("euclidean") ** 2 * 3
        ([2.0, 9.0], 2.0)

    Source:
        Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1979: means and scatter of two parts give those of the whole without the
        cancellation of a difference of large sums.
    """

    def __init__(self, groups: int, width: int) -> None:
        self.counts = torch.zeros(groups, dtype=torch.long)
        self.means = torch.zeros(groups, width, dtype=torch.float64)
        self.scatter = torch.zeros(groups, dtype=torch.float64)

    def add(self, features: torch.Tensor, positions: torch.Tensor) -> None:
        """Count a batch in.

        Args:
            features: floating tensor [B, D] on the CPU.
            positions: int64 tensor [B] of groups in 0..K-1.

        Raises:
            InvalidArgument: the vectors are of another width than before.
        """
        if features.shape[1] != self.means.shape[1]:
            raise InvalidArgument(
                f"a batch has {features.shape[1]} features, those before had "
                f"{self.means.shape[1]}: every batch must have the same"
            )
        rows = features.double()
        for group in positions.unique().tolist():
            part = rows[positions == group]
            count, mean = len(part), part.mean(dim=0)
            before, whole = int(self.counts[group]), int(self.counts[group]) + count
            step = mean - self.means[group]
            self.scatter[group] += (part - mean).square().sum()
            self.scatter[group] += step.square().sum() * (before * count / whole)
            self.means[group] += step * (count / whole)
            self.counts[group] = whole

    def radius(self, metric: str) -> float:
        """How far a vector lies from the mean of its group, over all groups.

        Args:
            metric: ``"euclidean"``: the root mean square distance. ``"cosine"``: the mean of one
                minus the cosine, where unit vectors were added.

        Returns:
            The distance, 0 for groups of one.
        """
        total = self.counts.sum().clamp(min=1)
        if metric == "euclidean":
            return float((self.scatter.sum() / total).sqrt())
        # The mean over a group of <x, m / |m|> is |m|.
        lengths = nn.functional.relu(1 - self.means.norm(dim=1))
        return float((lengths * self.counts).sum() / total)
