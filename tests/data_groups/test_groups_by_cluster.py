"""DataGroups.from_clusters."""

import builtins
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, InvalidGroups, MissingExtra

WHOLE: dict[str, Any] = {"validation": 0, "test": 0}


def blobs() -> tuple[TensorDataset, torch.Tensor]:
    """Three tight blobs of 20, sample i in blob i % 3; the dataset holds the indices."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centers[torch.arange(60) % 3] + 0.3 * torch.randn(60, 2, generator=generator)
    return TensorDataset(torch.arange(60)), points


def with_strays() -> tuple[TensorDataset, torch.Tensor]:
    """The blobs, and two far samples of which 60 is nearest to blob 1 and 61 to blob 2."""
    _, points = blobs()
    strays = torch.tensor([[40.0, 5.0], [5.0, 60.0]])
    return TensorDataset(torch.arange(62)), torch.cat((points, strays))


def clusters(groups: DataGroups) -> list[list[int]]:
    return sorted(
        sorted(int(i) for _, loader in group.loaders() for (x,) in loader for i in x)
        for group in groups.values()
    )


BLOBS = [list(range(k, 60, 3)) for k in range(3)]


@pytest.mark.parametrize("options", [{"n_clusters": 3}, {"algorithm": "hdbscan"}])
@pytest.mark.parametrize("kind", ["tensor", "array", "lists", "bfloat16"])
def test_clusters_are_found(options: dict[str, Any], kind: str) -> None:
    dataset, points = blobs()
    embeddings: Any = {
        "tensor": points.clone().requires_grad_(),
        "array": points.numpy(),
        "lists": points.tolist(),
        "bfloat16": points.bfloat16(),
    }[kind]
    groups = DataGroups.from_clusters(dataset, embeddings, batch_size=5, **options)
    assert groups.names == ("cluster-0", "cluster-1", "cluster-2")
    assert clusters(groups) == BLOBS


def test_splits_and_pooling() -> None:
    dataset, points = blobs()
    groups = DataGroups.from_clusters(dataset, points, n_clusters=3, batch_size=5)
    sizes = [
        sum(len(x) for (x,) in loader)
        for loader in (groups["cluster-1"].train, groups["cluster-1"].validation)
        if loader is not None
    ]
    assert sizes == [14, 2]
    pooled = groups.pooled()["all"]
    assert sum(len(x) for (x,) in pooled.train) == 42


def test_kmeans_depends_on_the_seed_alone() -> None:
    dataset, _ = blobs()
    points = torch.rand(60, 8, generator=torch.Generator().manual_seed(1))

    def members(seed: int) -> list[Any]:
        made = DataGroups.from_clusters(
            dataset, points, n_clusters=4, batch_size=1, seed=seed, **WHOLE
        )
        return [group.train.dataset.indices for group in made.values()]  # type: ignore[attr-defined]

    state = torch.get_rng_state()
    np.random.seed(1)
    first = members(2**40)
    np.random.seed(2)
    assert members(2**40) == first
    assert members(5) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_one_cluster() -> None:
    dataset, points = blobs()
    groups = DataGroups.from_clusters(dataset, points, n_clusters=1, batch_size=5)
    assert clusters(groups) == [list(range(60))]


def test_noise_goes_to_the_nearest_centroid() -> None:
    dataset, points = with_strays()
    groups = DataGroups.from_clusters(dataset, points, algorithm="hdbscan", batch_size=5)
    assert clusters(groups) == [BLOBS[0], [*BLOBS[1], 60], [*BLOBS[2], 61]]


def test_noise_is_dropped_everywhere() -> None:
    dataset, points = with_strays()
    groups = DataGroups.from_clusters(
        dataset, points, algorithm="hdbscan", noise="drop", batch_size=5
    )
    assert clusters(groups) == BLOBS
    assert clusters(groups.pooled()) == [list(range(60))]


def test_noise_is_an_error_that_counts() -> None:
    dataset, points = with_strays()
    with pytest.raises(InvalidGroups, match="2 of 62 samples are noise"):
        DataGroups.from_clusters(dataset, points, algorithm="hdbscan", noise="error", batch_size=5)


def test_no_noise_is_no_error() -> None:
    dataset, points = blobs()
    groups = DataGroups.from_clusters(
        dataset, points, algorithm="hdbscan", noise="error", batch_size=5
    )
    assert clusters(groups) == BLOBS


@pytest.mark.parametrize("noise", ["nearest", "drop", "error"])
def test_nothing_but_noise_is_an_error(noise: Any) -> None:
    points = torch.arange(10.0)[:, None] ** 3
    with pytest.raises(InvalidGroups, match="found no cluster: all 10 samples are noise"):
        DataGroups.from_clusters(
            list(range(10)), points, algorithm="hdbscan", noise=noise, batch_size=1
        )


def test_another_dataset_goes_to_the_nearest_centroid() -> None:
    dataset, points = blobs()
    other = TensorDataset(torch.arange(100, 104))
    near = [[9.0, 1.0], [1.0, 1.0], [1.0, 9.0], [12.0, -3.0]]
    groups = DataGroups.from_clusters(
        dataset, points, n_clusters=3, batch_size=5, validation=0, test=(other, near)
    )
    found = [sorted(int(i) for (x,) in group.test for i in x) for group in groups.values()]  # type: ignore[union-attr]
    assert sorted(found) == [[100, 103], [101], [102]]
    home = {0: 1, 1: 0, 2: 2}  # the blob of the first member -> what the other dataset sends there
    for group, tested in zip(groups.values(), found, strict=True):
        blob = group.train.dataset.indices[0] % 3  # type: ignore[attr-defined]
        assert tested[0] - 100 == {v: k for k, v in home.items()}.get(blob, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs n_clusters, got None"),
        ({"n_clusters": 0}, "n_clusters must be a whole number of at least 1"),
        ({"n_clusters": 61}, "n_clusters=61 is more than the 60 distinct"),
        ({"n_clusters": 3, "algorithm": "hdbscan"}, 'n_clusters=3 contradicts algorithm="hdbscan"'),
        ({"algorithm": "dbscan"}, "algorithm must be 'kmeans' or 'hdbscan', got 'dbscan'"),
        ({"algorithm": "hdbscan", "min_cluster_size": 1}, "min_cluster_size must be .* at least 2"),
        ({"algorithm": "hdbscan", "min_cluster_size": 61}, "61 is more than the 60 samples"),
        ({"n_clusters": 3, "noise": "keep"}, "noise must be one of .* got 'keep'"),
        ({"n_clusters": 3, "seed": -2}, "seed must be a whole number of at least 0"),
        ({"n_clusters": 3, "batch_size": 0}, "batch_size must be a whole number"),
        ({"n_clusters": 3, "test": [1, 2]}, r"must be a fraction or a pair \(dataset, embeddings"),
        ({"n_clusters": 3, "test": ([1], [[1.0]])}, "of test must have 2 columns.* got 1"),
        ({"n_clusters": 3, "test": ([1], [])}, r"of test must be a matrix \[N, D\]"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    dataset, points = blobs()
    with pytest.raises(InvalidArgument, match=message):
        DataGroups.from_clusters(dataset, points, **{"batch_size": 5, **options})


def test_identical_embeddings_make_no_two_clusters() -> None:
    with pytest.raises(InvalidArgument, match="n_clusters=2 is more than the 1 distinct"):
        DataGroups.from_clusters(list(range(9)), torch.ones(9, 3), n_clusters=2, batch_size=1)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (torch.zeros(59, 2), "one row for each of the 60 samples, got 59"),
        (torch.zeros(60), r"must be a matrix \[N, D\], got shape \(60,\)"),
        (torch.zeros(60, 0), "must be a matrix"),
        (torch.zeros(60, 2, 2), "must be a matrix"),
        ([[0.0, 1.0]] * 58 + [[0.0, float("nan")], [float("inf"), 0.0]], "2 rows.* row 58"),
        ([["a", "b"]] * 60, "must be numbers"),
        ([[0.0], [0.0, 1.0]] * 30, "must be numbers"),
    ],
)
def test_bad_embeddings_are_refused(embeddings: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        DataGroups.from_clusters(blobs()[0], embeddings, n_clusters=2, batch_size=5)


def test_a_small_cluster_and_an_empty_held_out_cluster_are_refused() -> None:
    dataset, points = blobs()
    with pytest.raises(InvalidGroups, match="group 'cluster-0' has 14 training samples"):
        DataGroups.from_clusters(dataset, points, n_clusters=3, batch_size=15)
    with pytest.raises(InvalidGroups, match=r"group 'cluster-\d' has no test samples"):
        DataGroups.from_clusters(
            dataset, points, n_clusters=3, batch_size=5, test=([1, 2], [[0.0, 0.0], [10.0, 0.0]])
        )


@pytest.mark.parametrize("options", [{"n_clusters": 3}, {"algorithm": "hdbscan"}])
def test_missing_scikit_learn_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.setattr("importlib.import_module", absent)
    for module in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    dataset, points = blobs()
    with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[cluster\]'"):
        DataGroups.from_clusters(dataset, points, batch_size=5, **options)
