"""Centroids: means, distances, confidence by hand, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, InvalidGroups, UnknownTicket
from rtl_plugin.routing import NearestCentroidRouter
from rtl_plugin.routing.centroids import GroupMeans
from tests.routing.router_cases import NAMES, Normed, clusters

X = torch.tensor([[0.0, 0.0], [2.0, 0.0], [10.0, 1.0], [10.0, -1.0]])
GROUPS = ["low", "low", "high", "high"]


def fitted(**options: Any) -> NearestCentroidRouter:
    return NearestCentroidRouter(["low", "high"], **options).fit(X, GROUPS)


def test_distances_to_the_means_by_hand() -> None:
    # Means (1, 0) and (10, 0).
    distances = fitted().distances(torch.tensor([[1.0, 0.0], [4.0, 4.0]]))
    torch.testing.assert_close(distances, torch.tensor([[0.0, 9.0], [5.0, math.sqrt(52)]]))


def test_confidence_by_hand() -> None:
    router = fitted()
    # Every training sample lies 1 from its mean: r = 1. Distances 3 and 6; 0.5 and 8.5; equal; far.
    x = torch.tensor([[4.0, 0.0], [1.5, 0.0], [5.5, 0.0], [5.5, 1e6], [1.0, 0.0]])
    decision = router.route(x)
    assert decision.confidence is not None
    expected = [(6 - 3) / (6 + 3) * (1 / 3), (8.5 - 0.5) / 9, 0.0, 0.0, 1.0]
    torch.testing.assert_close(decision.confidence, torch.tensor(expected), atol=1e-6, rtol=1e-5)
    assert decision.indices is not None
    assert decision.indices[:2].tolist() == [0, 0]
    assert torch.equal(router.scores(x), -router.distances(x))


def test_cosine_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [7.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    router = NearestCentroidRouter(["a", "b"], metric="cosine").fit(x, [*"aaabb"])
    # Lengths do not matter: the mean directions are (1, 0) and (0, 1) + (1, 1) / sqrt 2.
    mean = torch.tensor([1 / math.sqrt(2), 1 + 1 / math.sqrt(2)])
    given = torch.tensor([[5.0, 0.0], [-1.0, 7.0]])
    expected = torch.stack(
        [1 - given[:, 0] / given.norm(dim=1), 1 - given @ mean / given.norm(dim=1) / mean.norm()],
        dim=1,
    )
    torch.testing.assert_close(router.distances(given), expected)
    # r is the mean of one minus the cosine of the training samples, 0 for the first group.
    unit = torch.tensor([[0.0, 1.0], [1 / math.sqrt(2), 1 / math.sqrt(2)]])
    scatter = float((1 - unit @ mean / mean.norm()).sum()) / 5
    found = float(router.route(given[1:]).confidence[0])  # type: ignore[index]
    far, near = expected[1].tolist()
    assert found == pytest.approx((far - near) / (far + near) * min(1, scatter / near), rel=1e-4)


def test_a_fit_in_the_middle_of_a_route_changes_nothing_of_it() -> None:
    """As another thread may fit: means and radius must be of one fit."""
    refit: list[Any] = []

    def space(x: torch.Tensor) -> torch.Tensor:
        if refit:
            router.fit(refit.pop(), GROUPS)
        return x

    router = NearestCentroidRouter(["low", "high"], space).fit(X, GROUPS)
    x = torch.tensor([[4.0, 0.0]])
    before = router.route(x).confidence
    refit.append(X * torch.tensor([5.0, 50.0]))
    torch.testing.assert_close(router.route(x).confidence, before)
    assert not torch.equal(router.route(x).confidence, before), "it was not fitted again"  # type: ignore[arg-type]


def test_one_ticket_is_judged_by_distance_alone() -> None:
    router = NearestCentroidRouter(["only"]).fit(X[:2], ["only"] * 2)
    decision = router.route(torch.tensor([[1.5, 0.0], [5.0, 0.0]]))
    assert decision.confidence is not None
    torch.testing.assert_close(decision.confidence, torch.tensor([1.0, 0.25]))


def test_groups_of_one_sample_say_nothing_about_scatter() -> None:
    router = NearestCentroidRouter(["a", "b"]).fit(torch.tensor([[0.0], [4.0]]), ["a", "b"])
    decision = router.route(torch.tensor([[1.0]]))
    assert decision.confidence is not None
    torch.testing.assert_close(decision.confidence, torch.tensor([0.5]))  # (3 - 1) / (3 + 1)


def test_equal_centroids_give_no_confidence() -> None:
    router = NearestCentroidRouter(["a", "b"]).fit(torch.ones(2, 1), ["a", "b"])
    assert router.route(torch.ones(1, 1)).confidence.tolist() == [0.0]  # type: ignore[union-attr]


def test_batches_give_what_one_batch_gives() -> None:
    x, groups = clusters(61)
    whole = NearestCentroidRouter(NAMES).fit(x, groups)
    batches = list(zip(x.split([1, 20, 0, 40]), groups.split([1, 20, 0, 40]), strict=True))
    parts = NearestCentroidRouter(NAMES).fit(batches)
    once = NearestCentroidRouter(NAMES).fit(iter(batches))  # one pass is enough
    for router in (parts, once):
        torch.testing.assert_close(router.distances(x), whole.distances(x))
        torch.testing.assert_close(router.route(x).confidence, whole.route(x).confidence)


def test_streaming_means_do_not_cancel() -> None:
    generator = torch.Generator().manual_seed(0)
    far = 1e6 + torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    means = GroupMeans(groups=1, width=2)
    for part in far.split(7):
        means.add(part, torch.zeros(len(part), dtype=torch.long))
    torch.testing.assert_close(means.means[0], far.mean(dim=0), rtol=1e-14, atol=0)
    spread = (far - far.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    assert means.radius("euclidean") == pytest.approx(float(spread), rel=1e-9)


def test_single_and_half_precision_are_averaged_in_double() -> None:
    x = (1e4 + torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))).float()
    means = GroupMeans(groups=1, width=1)
    means.add(x, torch.zeros(5000, dtype=torch.long))
    assert float(means.means) == pytest.approx(float(x.double().mean()), rel=1e-13)
    half = torch.full((4096, 1), 1.001, dtype=torch.float16)
    router = NearestCentroidRouter(["a"]).fit(half, ["a"] * 4096)
    assert float(router.distances(half[:1])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "groups",
    [[0, 0, 1, 1], torch.tensor([0, 0, 1, 1]), np.array([0, 0, 1, 1]), np.array(GROUPS), GROUPS],
)
def test_groups_as_names_or_positions(groups: Any) -> None:
    router = NearestCentroidRouter(["low", "high"]).fit(X, groups)
    assert router.route(X).indices.tolist() == [0, 0, 1, 1]  # type: ignore[union-attr]


def test_a_feature_space_is_used_and_nested_inputs_pass() -> None:
    router = NearestCentroidRouter(["low", "high"], lambda x: x["a"][:, :1].unsqueeze(2))
    router.fit({"a": X, "b": 3}, GROUPS)
    distances = router.distances({"a": torch.tensor([[1.0, 77.0]])})
    torch.testing.assert_close(distances, torch.tensor([[0.0, 9.0]]))


def test_a_module_sees_later_training_and_runs_in_eval() -> None:
    space = Normed(2).train()
    router = NearestCentroidRouter(["low", "high"], space)
    x = torch.randn(8, 4)
    router.fit(x, [0, 1] * 4)
    before = router.distances(x)
    assert torch.equal(before, router.distances(x)), "dropout was on"
    with torch.no_grad():
        space.head.weight.add_(1.0)
    assert not torch.equal(before, router.distances(x))
    other = Normed(2, seed=4).eval()
    other.norm.running_mean.fill_(0.5)
    space.load_state_dict(other.state_dict(), assign=True)  # other tensors in the old places
    expected = NearestCentroidRouter(["low", "high"], other).fit(x, [0, 1] * 4)
    router.fit(x, [0, 1] * 4)
    assert torch.equal(router.distances(x), expected.distances(x))


def test_a_second_fit_forgets_the_first() -> None:
    router = fitted().fit(X[:, :1], GROUPS)
    torch.testing.assert_close(router.distances(torch.ones(1, 1)), torch.tensor([[0.0, 9.0]]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(bad: float) -> None:
    x = X.clone()
    x[2, 1] = bad
    with pytest.raises(InvalidArgument, match="features of sample 2 of the batch hold NaN or inf"):
        NearestCentroidRouter(["low", "high"]).fit(x, GROUPS)
    with pytest.raises(InvalidArgument, match="features of sample 2 of the batch hold NaN or inf"):
        fitted().route(x)


@pytest.mark.parametrize(
    ("x", "groups", "error", "message"),
    [
        (X, ["low"] * 4, InvalidGroups, r"saw no sample of \['high'\]"),
        ([], None, InvalidGroups, r"saw no sample of \['low', 'high'\]"),
        (X, ["low"] * 3, InvalidArgument, "3 groups for a batch of 4 samples"),
        (X, ["moon"] * 4, UnknownTicket, r"group 'moon' is neither a ticket nor a position in 0"),
        (X, [0, 1, 2, 0], UnknownTicket, "group 2 is neither a ticket nor a position"),
        (X, [0, 1, -1, 0], UnknownTicket, "group -1 is neither"),
        (X, [0, 1, True, 0], UnknownTicket, "group True is neither"),
        (X, [0.0, 1.0, 0.0, 1.0], UnknownTicket, "group 0.0 is neither"),
        (X, None, InvalidArgument, "fit needs the group of every sample: .* got a Tensor alone"),
        (3, None, InvalidArgument, "fit needs the group of every sample: .* got a int alone"),
        ([X], None, InvalidArgument, r"fit takes batches \(x, groups\), got a Tensor"),
        ([(X, GROUPS, 3)], None, InvalidArgument, r"fit takes batches \(x, groups\), got a tuple"),
        (
            [(X, GROUPS), (X[:, :1], GROUPS)],
            None,
            InvalidArgument,
            "a batch has 1 features, those before had 2",
        ),
    ],
)
def test_what_fit_refuses(x: Any, groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NearestCentroidRouter(["low", "high"]).fit(x, groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tickets": "low"}, "tickets= must be a ticket set or a list of ticket names, got 'low'"),
        ({"tickets": []}, r"tickets= must be .* got \[\]"),
        ({"tickets": ["a", "a"]}, r"tickets= holds a name twice: \['a', 'a'\]"),
        ({"tickets": ["a"], "metric": "manhattan"}, "metric must be one of euclidean, cosine"),
        ({"tickets": ["a"], "feature_space": 3}, r"feature_space= must be an nn.Module or a func"),
    ],
)
def test_what_the_constructor_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        NearestCentroidRouter(**arguments)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda x: x.sum(), r"one row for each of 4 samples, got \(\)"),
        (lambda x: x[:2], r"one row for each of 4 samples, got \(2, 2\)"),
        (lambda x: [x], r"one row for each of 4 samples, got a list"),
        (lambda x: x.cfloat(), "features must be real numbers, got torch.complex64"),
    ],
)
def test_features_of_another_kind(space: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        NearestCentroidRouter(["low", "high"], space).fit(X, GROUPS)


def test_another_width_than_the_centroids() -> None:
    with pytest.raises(InvalidArgument, match="the centroids have 2 features, the batch has 3"):
        fitted().route(torch.zeros(1, 3))


def test_a_module_that_cannot_be_copied() -> None:
    class Locked(nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    with pytest.raises(InvalidArgument, match=r"Locked cannot be deep-copied \(RuntimeError: no"):
        NearestCentroidRouter(["a"], Locked())
