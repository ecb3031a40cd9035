"""The ways to make data groups: from labels, metadata, clusters, or loaders."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from rtl_plugin.data_groups.building import LoaderOptions, plain_groups, pooled_group
from rtl_plugin.data_groups.by_cluster import checked_embeddings, find_clusters
from rtl_plugin.data_groups.by_label import LabelGroups, labels_of
from rtl_plugin.data_groups.by_metadata import MetadataGroups
from rtl_plugin.data_groups.checks import size_of_dataset
from rtl_plugin.data_groups.group import DataGroup, check_names
from rtl_plugin.data_groups.group_mapping import GroupMapping
from rtl_plugin.data_groups.one_vs_rest import one_vs_rest_groups
from rtl_plugin.data_groups.splits import make_splits
from rtl_plugin.errors import InvalidArgument, InvalidGroups


class DataGroups(GroupMapping):
    """The data of all tickets: an ordered mapping from group name to :class:`DataGroup`.

    Usually made by one of the ``from_`` constructors.

    Args:
        groups: the groups, in order.
        pooled: the group "all" for a single model; by default mixed from the groups' batches.

    Raises:
        InvalidGroups: there is no group, a name is not a distinct non-empty str, or a loader is not
            a re-iterable of batches, is empty, or could not be replayed.

    Example:
        >>> groups = DataGroups([DataGroup("a", train=[1], validation=None, test=None)])
        >>> groups.names, groups["a"].train
        (('a',), [1])
    """

    @classmethod
    def from_labels(
        cls,
        dataset: Any,
        *,
        batch_size: int = 64,
        negatives: Literal["balanced"] | None = "balanced",
        groups: Mapping[str, Iterable[Any]] | None = None,
        labels: Any = None,
        validation: Any = 0.1,
        test: Any = 0.2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> "DataGroups":
        """One group per label, or per list of labels.

        With ``negatives="balanced"`` (Stefański, Presta, Byra, Routing the Lottery,
        arXiv 2601.22141, appendix A.2) a batch is ``(x, y)``, y float32 [B] in {0, 1}. A training
        batch takes one half from the group and one from all others, and an epoch passes over the
        group once; validation and test pass over all samples of their split, as they come.

        Args:
            dataset: map-style, of ``(x, y)``; x of any nesting that ``default_collate`` takes.
            batch_size: samples in a batch, at least 1; even if balanced.
            negatives: "balanced", or None for the group's own samples as the dataset gives them.
            groups: group name -> labels; by default one a label, sorted, named ``str(label)``.
            labels: one label a sample [N]; by default the dataset's ``targets`` or ``labels``, the
                second tensor of a TensorDataset, or the second part of every sample.
            validation: a fraction in [0, 1) of every group's samples (at least one), or a dataset.
            test: as ``validation``.
            seed: at least 0; fixes the split.
            num_workers: worker processes of each loader.

        Returns:
            The groups.

        Raises:
            InvalidArgument: an argument is out of range or of the wrong kind.
            InvalidGroups: a label is missing, in no group or in two; a group is empty or has fewer
                training samples than its share of a batch; a single group with balanced negatives.

        Example:
            >>> import torch
            >>> data = torch.utils.data.TensorDataset(torch.rand(60, 3), torch.arange(60) % 3)
            >>> groups = DataGroups.from_labels(data, batch_size=8)
            >>> x, y = next(iter(groups["1"].train))
            >>> groups.names, x.shape, y.mean()
            (('0', '1', '2'), torch.Size([8, 3]), tensor(0.5000))
        """
        if negatives not in ("balanced", None):
            raise InvalidArgument(f'negatives must be "balanced" or None, got {negatives!r}')
        options = LoaderOptions(batch_size, num_workers)
        known = labels_of(dataset, labels)
        sorting = LabelGroups(groups, known)
        splits = make_splits(
            dataset,
            sorting.members(known, "training"),
            validation=validation,
            test=test,
            seed=seed,
            assign=sorting.assign,
        )
        build = plain_groups if negatives is None else one_vs_rest_groups
        return cls(build(splits, options), pooled=pooled_group(splits, options))

    @classmethod
    def from_metadata(
        cls,
        dataset: Any,
        *,
        key: Callable[[Any], Any],
        batch_size: int = 64,
        names: Iterable[str] | None = None,
        validation: Any = 0.1,
        test: Any = 0.2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> "DataGroups":
        """One group per value of a function of the sample.

        Args:
            dataset: map-style, of anything that ``default_collate`` takes; read once.
            key: sample -> group name, converted with ``str``; None and NaN mean in no group.
            batch_size: samples in a batch, at least 1.
            names: the allowed names, in order; by default all that are found, sorted.
            validation: a fraction in [0, 1) of every group's samples (at least one), or a dataset.
            test: as ``validation``.
            seed: at least 0; fixes the split.
            num_workers: worker processes of each loader.

        Returns:
            The groups.

        Raises:
            InvalidArgument: an argument is out of range or of the wrong kind.
            InvalidGroups: a sample is in no group or in one not allowed; a group is empty or has
                fewer training samples than a batch; bad names.

        Example:
            >>> data = [{"x": float(i), "scene": ("indoor", "street")[i % 2]} for i in range(40)]
            >>> groups = DataGroups.from_metadata(data, key=lambda s: s["scene"], batch_size=8)
            >>> groups.names, next(iter(groups["street"].train))["scene"][0]
            (('indoor', 'street'), 'street')
        """
        options = LoaderOptions(batch_size, num_workers)
        sorting = MetadataGroups(key, names)
        splits = make_splits(
            dataset,
            sorting.assign(dataset, "training").members,
            validation=validation,
            test=test,
            seed=seed,
            assign=sorting.assign,
        )
        return cls(plain_groups(splits, options), pooled=pooled_group(splits, options))

    @classmethod
    def from_clusters(
        cls,
        dataset: Any,
        embeddings: Any,
        *,
        algorithm: Literal["kmeans", "hdbscan"] = "kmeans",
        n_clusters: int | None = None,
        min_cluster_size: int = 5,
        noise: Literal["nearest", "drop", "error"] = "nearest",
        batch_size: int = 64,
        validation: Any = 0.1,
        test: Any = 0.2,
        seed: int = 0,
        num_workers: int = 0,
    ) -> "DataGroups":
        """One group per cluster of the samples' embeddings, named "cluster-0" and so on.

        Clusters are found on all samples, then each is split. Needs the extra ``cluster``.

        Args:
            dataset: map-style with N samples, of anything that ``default_collate`` takes.
            embeddings: array or tensor [N, D], finite.
            algorithm: "kmeans" or "hdbscan".
            n_clusters: the number of groups, for k-means only.
            min_cluster_size: the smallest cluster of HDBSCAN, in [2, N].
            noise: where samples go that HDBSCAN puts in no cluster: to the nearest centroid,
                nowhere, or to an error.
            batch_size: samples in a batch, at least 1.
            validation: a fraction in [0, 1) of every group's samples (at least one), or a pair
                (dataset, embeddings), whose samples go to the nearest centroid.
            test: as ``validation``.
            seed: at least 0; fixes k-means and the split.
            num_workers: worker processes of each loader.

        Returns:
            The groups.

        Raises:
            InvalidArgument: an argument is out of range, of the wrong kind or contradicts another;
                embeddings are not finite or not one row a sample.
            InvalidGroups: all samples are noise, or some with ``noise="error"``; a group is empty
                or has fewer training samples than a batch.
            MissingExtra: scikit-learn is not installed.

        Example:
            >>> import torch
            >>> points = torch.cat((torch.zeros(20, 2), torch.ones(20, 2)))
            >>> data = torch.utils.data.TensorDataset(points)
            >>> groups = DataGroups.from_clusters(data, points, n_clusters=2, batch_size=7)
            >>> groups.names, len(groups["cluster-0"].train)
            (('cluster-0', 'cluster-1'), 2)
        """
        options = LoaderOptions(batch_size, num_workers)
        points = checked_embeddings(embeddings, size_of_dataset(dataset, "dataset"))
        clusters = find_clusters(
            points,
            algorithm=algorithm,
            n_clusters=n_clusters,
            min_cluster_size=min_cluster_size,
            noise=noise,
            seed=seed,
        )
        splits = make_splits(
            dataset,
            clusters.members(),
            validation=validation,
            test=test,
            seed=seed,
            assign=clusters.assign,
        )
        return cls(plain_groups(splits, options), pooled=pooled_group(splits, options))

    @classmethod
    def from_loaders(
        cls,
        train: Mapping[str, Iterable[Any]],
        *,
        validation: Mapping[str, Iterable[Any]] | None = None,
        test: Mapping[str, Iterable[Any]] | None = None,
    ) -> "DataGroups":
        """One group per loader.

        A run can be repeated and resumed exactly if iterating a loader again under the same global
        seed gives the same batches; a ``torch.Generator`` of the loader's own is re-seeded too.

        Args:
            train: group name -> re-iterable of batches (a DataLoader, a list), in order.
            validation: the same for some or all of these groups, or None.
            test: as ``validation``.

        Returns:
            The groups.

        Raises:
            InvalidArgument: an argument is not a mapping.
            InvalidGroups: there is no group, a name is bad or unknown, or a loader is a dataset, a
                one-shot iterator, empty, has persistent or unordered workers, or shares its
                generator with another group's.

        Example:
            >>> groups = DataGroups.from_loaders({"indoor": [1, 2], "street": [3]})
            >>> groups.signature()
            {'names': ['indoor', 'street'], 'batches': {'indoor': 2, 'street': 1}}
        """
        held_out = {"validation": validation, "test": test}
        for split, loaders in {"train": train, **held_out}.items():
            if not isinstance(loaders, Mapping) and not (loaders is None and split in held_out):
                raise InvalidArgument(
                    f"{split} must map group names to loaders, got {type(loaders).__name__}"
                )
        check_names(train)
        for split, loaders in held_out.items():
            unknown = [name for name in loaders or () if name not in train]
            if unknown:
                raise InvalidGroups(
                    f"{split} names groups {unknown} that are not in train, which has "
                    f"{list(train)}: rename or drop them"
                )
        return cls(
            DataGroup(name, loader, (validation or {}).get(name), (test or {}).get(name))
            for name, loader in train.items()
        )
