"""Groups by cluster: k-means or HDBSCAN on one embedding per sample."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rtl_plugin.arguments import whole_number
from rtl_plugin.data_groups.checks import size_of_dataset
from rtl_plugin.data_groups.splits import Members, Split, members_of
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.extras import require

_NOISE = ("nearest", "drop", "error")


@dataclass(frozen=True)
class ClusterGroups:
    """Clusters of a dataset's embeddings.

    Args:
        labels: the cluster of every sample, int64 [N]; -1 for a sample left out.
        centroids: the mean embedding of every cluster, float64 [K, D].

    Example:
        >>> groups = ClusterGroups(torch.tensor([1, 0, -1]), torch.tensor([[0.0], [9.0]]).double())
        >>> groups.members()
        {'cluster-0': tensor([1]), 'cluster-1': tensor([0])}
    """

    labels: torch.Tensor
    centroids: torch.Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names, "cluster-0" and so on."""
        return tuple(f"cluster-{k}" for k in range(len(self.centroids)))

    def members(self) -> Members:
        """The samples of every cluster, without those left out.

        Returns:
            Group name -> ascending indices, int64.

        Example:
            >>> ClusterGroups(torch.tensor([0, 0]), torch.zeros(1, 2)).members()
            {'cluster-0': tensor([0, 1])}
        """
        return {name: (self.labels == k).nonzero().flatten() for k, name in enumerate(self.names)}

    def assign(self, given: Any, split: str) -> Split:
        """Sort another dataset's samples into the clusters with the nearest centroids.

        Args:
            given: a pair (dataset, embeddings [M, D]).
            split: the argument it came in, "validation" or "test".

        Returns:
            The split.

        Raises:
            InvalidArgument: it is not such a pair.
            InvalidGroups: a cluster gets no sample.

        Example:
            >>> groups = ClusterGroups(torch.tensor([1, 0]), torch.tensor([[0.0], [9.0]]).double())
            >>> groups.assign((["x", "z"], [[8.0], [1.0]]), "test").members
            {'cluster-0': tensor([1]), 'cluster-1': tensor([0])}
        """
        if not isinstance(given, tuple) or len(given) != 2:
            raise InvalidArgument(
                f"{split}= of from_clusters must be a fraction or a pair (dataset, embeddings), "
                f"got {type(given).__name__}: without embeddings its clusters are unknown"
            )
        dataset, embeddings = given
        points = checked_embeddings(embeddings, size_of_dataset(dataset, split), split)
        if points.shape[1] != self.centroids.shape[1]:
            raise InvalidArgument(
                f"the embeddings of {split} must have {self.centroids.shape[1]} columns like the "
                f"training embeddings, got {points.shape[1]}"
            )
        assigned = [self.names[k] for k in _nearest(points, self.centroids).tolist()]
        return Split(dataset, members_of(assigned, self.names, split))


def checked_embeddings(embeddings: Any, size: int, name: str = "dataset") -> torch.Tensor:
    """Embeddings as a float64 matrix on the CPU.

    Args:
        embeddings: array, tensor or nested lists [N, D].
        size: N, the number of samples.
        name: the dataset's argument name.

    Returns:
        A new float64 tensor [N, D].

    Raises:
        InvalidArgument: not numeric, not a matrix, not one row a sample, or not finite.

    Example:
        >>> checked_embeddings([[1, 2], [3, 4]], 2).dtype
        torch.float64
    """
    what = f"the embeddings of {name}"
    try:
        if isinstance(embeddings, torch.Tensor):
            points = embeddings.detach().to("cpu", torch.float64, copy=True)
        else:
            points = torch.from_numpy(np.array(embeddings, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{what} must be numbers [N, D]: {error}") from error
    if points.ndim != 2 or points.shape[1] == 0:
        raise InvalidArgument(f"{what} must be a matrix [N, D], got shape {tuple(points.shape)}")
    if len(points) != size:
        raise InvalidArgument(
            f"{what} must have one row for each of the {size} samples, got {len(points)} rows"
        )
    bad = (~points.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        raise InvalidArgument(
            f"{what} must be finite, got NaN or infinity in {len(bad)} rows, the first is row "
            f"{int(bad[0])}: drop these samples or repair their embeddings"
        )
    return points


def find_clusters(
    embeddings: torch.Tensor,
    *,
    algorithm: str,
    n_clusters: Any,
    min_cluster_size: Any,
    noise: str,
    seed: int,
) -> ClusterGroups:
    """Cluster embeddings.

    Args:
        embeddings: float64 [N, D], finite.
        algorithm: "kmeans" or "hdbscan".
        n_clusters: for k-means, in [1, number of distinct rows]; None for HDBSCAN.
        min_cluster_size: for HDBSCAN, in [2, N].
        noise: "nearest", "drop" or "error", for the samples that HDBSCAN puts in no cluster.
        seed: for k-means, at least 0.

    Returns:
        The clusters.

    Raises:
        InvalidArgument: an argument is unknown, out of range, or contradicts the algorithm.
        InvalidGroups: all samples are noise, or some are and ``noise="error"``.
        MissingExtra: scikit-learn is not installed.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [9.0], [9.1]], dtype=torch.float64)
        >>> options = {"n_clusters": 2, "min_cluster_size": 5, "noise": "nearest", "seed": 0}
        >>> sorted(find_clusters(points, algorithm="kmeans", **options).centroids.round().tolist())
        [[0.0], [9.0]]
    """
    if noise not in _NOISE:
        raise InvalidArgument(f"noise must be one of {list(_NOISE)}, got {noise!r}")
    if algorithm == "kmeans":
        return _kmeans(embeddings, n_clusters, whole_number("seed", seed, least=0))
    if algorithm == "hdbscan":
        if n_clusters is not None:
            raise InvalidArgument(
                f'n_clusters={n_clusters!r} contradicts algorithm="hdbscan", which finds their '
                'number itself: leave it out, or use algorithm="kmeans"'
            )
        return _hdbscan(embeddings, min_cluster_size, noise)
    raise InvalidArgument(f"algorithm must be 'kmeans' or 'hdbscan', got {algorithm!r}")


def _kmeans(embeddings: torch.Tensor, n_clusters: Any, seed: int) -> ClusterGroups:
    if n_clusters is None:
        raise InvalidArgument('algorithm="kmeans" needs n_clusters, got None: pass n_clusters=8')
    count = whole_number("n_clusters", n_clusters, least=1)
    distinct = len(embeddings.unique(dim=0))
    if count > distinct:
        raise InvalidArgument(
            f"n_clusters={count} is more than the {distinct} distinct embeddings: "
            "use fewer clusters"
        )
    cluster = require("sklearn.cluster", "cluster", "clustering data groups")
    # scikit-learn takes seeds below 2**32 only.
    found = cluster.KMeans(n_clusters=count, n_init=10, random_state=seed % 2**32)
    labels = torch.from_numpy(found.fit_predict(embeddings.numpy()).astype(np.int64))
    return ClusterGroups(labels, _means(embeddings, labels, count))


def _hdbscan(embeddings: torch.Tensor, min_cluster_size: Any, noise: str) -> ClusterGroups:
    least = whole_number("min_cluster_size", min_cluster_size, least=2)
    if least > len(embeddings):
        raise InvalidArgument(
            f"min_cluster_size={least} is more than the {len(embeddings)} samples: "
            "use a smaller one"
        )
    cluster = require("sklearn.cluster", "cluster", "clustering data groups")
    found = cluster.HDBSCAN(min_cluster_size=least, copy=True)
    labels = torch.from_numpy(found.fit_predict(embeddings.numpy()).astype(np.int64))
    stray = labels < 0
    if bool(stray.all()):
        raise InvalidGroups(
            f"HDBSCAN found no cluster: all {len(labels)} samples are noise at "
            f'min_cluster_size={least}: use a smaller one, or algorithm="kmeans"'
        )
    if bool(stray.any()) and noise == "error":
        raise InvalidGroups(
            f"{int(stray.sum())} of {len(labels)} samples are noise, in no cluster: use "
            'noise="nearest" or noise="drop", or another min_cluster_size'
        )
    centroids = _means(embeddings, labels, int(labels.max()) + 1)
    if noise == "nearest":
        labels[stray] = _nearest(embeddings[stray], centroids)
    return ClusterGroups(labels, centroids)


def _means(points: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack([points[labels == k].mean(dim=0) for k in range(count)])


def _nearest(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, centroids, compute_mode=exact).argmin(dim=1)
