"""Names, keys, numbers and seeds of odd kinds; and routers made in odd modes."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin.errors import DamagedFile, InvalidArgument, UnknownTicket
from rtl_plugin.routing import (
    ClassifierRouter,
    EpsilonGreedyRouter,
    KnownGroupRouter,
    NearestCentroidRouter,
    OnlineRouter,
    Outcome,
    StochasticEnsembleRouter,
    ThompsonSamplingRouter,
)
from rtl_plugin.routing.group_keys import labelled_batches, ticket_positions
from rtl_plugin.routing.router_codec import decode_router, encode_router
from tests.routing.router_cases import NAMES, Normed, adam, clusters

X = torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("tickets", "message"),
    [
        ("abc", "must be a ticket set or a list of ticket names"),
        ([1, 2], "must be a ticket set or a list of ticket names"),
        ([], "must be a ticket set or a list of ticket names"),
        (["a", "a"], "holds a name twice"),
    ],
)
def test_names_of_a_known_group_router(tickets: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        KnownGroupRouter(tickets)


UNORDERED = [{"indoor", "street"}, {"indoor": 1, "street": 2}, {"indoor": 1, "street": 2}.values()]


@pytest.mark.parametrize("given", UNORDERED, ids=["set", "dict", "view"])
def test_keys_without_an_order(given: Any) -> None:
    with pytest.raises(InvalidArgument, match="context must be one key, or a sequence, tensor"):
        KnownGroupRouter(NAMES).route(X, given)
    with pytest.raises(InvalidArgument, match="groups must be one key, or a sequence, tensor"):
        NearestCentroidRouter(NAMES[:2]).fit(X, given)


@pytest.mark.parametrize(
    "keys",
    [
        [np.int64(1), np.uint8(0)],
        [torch.tensor(1), torch.tensor(0, dtype=torch.int8)],
        np.array([1, 0]),
        [np.str_("street"), np.array(0)],
    ],
)
def test_keys_of_numpy_and_torch(keys: Any) -> None:
    assert ticket_positions(keys, NAMES, 2).tolist() == [1, 0]


def test_tensors_as_keys_of_a_context() -> None:
    router = KnownGroupRouter(NAMES, {5: "indoor", 7: "field"})
    indices = router.route(X, [torch.tensor(7), torch.tensor(5)]).indices
    assert indices is not None
    assert indices.tolist() == [2, 0]


@pytest.mark.parametrize(
    "key",
    [True, np.bool_(True), torch.tensor(True), 1.0, np.float64(1), torch.tensor(1.0), None, 3, -1],
)
def test_keys_that_are_no_position(key: Any) -> None:
    with pytest.raises(UnknownTicket, match="is neither a ticket nor a position"):
        ticket_positions([key, 0], NAMES, 2)


def test_outcomes_and_targets_of_any_real_kind() -> None:
    outcome = Outcome(latency_s=np.float32(0.1), quality=np.int64(1))  # type: ignore[arg-type]
    assert type(outcome.latency_s) is float
    assert outcome.latency_s == float(np.float32(0.1))
    assert outcome == Outcome(float(np.float32(0.1)), Fraction(1))  # type: ignore[arg-type]
    targets = OnlineRouter(["a"], np.float32(0.1), np.int8(1)).targets  # type: ignore[arg-type]
    assert type(targets.latency_s) is type(targets.quality) is float


@pytest.mark.parametrize("value", [True, np.bool_(True), 10**400, 1j, torch.tensor(1.0), "1"])
def test_numbers_that_are_none(value: Any) -> None:
    for values in ((value, 1.0), (1.0, value)):
        with pytest.raises(InvalidArgument, match="of an outcome must be a finite number"):
            Outcome(*values)
        with pytest.raises(InvalidArgument, match="_target must be a number"):
            OnlineRouter(["a"], *values)


def test_seeds() -> None:
    for seed in (2**63, 2**70):
        for make in (
            lambda seed: OnlineRouter(NAMES, 1.0, 0.5, seed=seed),
            lambda seed: StochasticEnsembleRouter(NAMES, 1, seed),
            lambda seed: ClassifierRouter(nn.Linear(4, 3), NAMES).fit(
                *clusters(6), optimizer=adam, seed=seed
            ),
        ):
            with pytest.raises(InvalidArgument, match=r"seed must be at most 2\*\*63 - 1"):
                make(seed)
    StochasticEnsembleRouter(NAMES, 1, 2**63 - 1).route(X)


@pytest.mark.parametrize("kind", [OnlineRouter, EpsilonGreedyRouter, ThompsonSamplingRouter])
@pytest.mark.parametrize("most", [1e15, 2e15, 1e308])
def test_counts_that_nobody_observed(kind: Any, most: float) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = encode_router(kind(NAMES, 1.0, 0.5, seed=0), tensors, "")
    changed = {
        name: torch.full_like(value, most) if value.dtype == torch.float64 else value
        for name, value in tensors.items()
    }
    if most == 1e15:
        decode_router(text, changed).route(X)
        return
    with pytest.raises(DamagedFile, match=r"counts over 1e\+15"):
        decode_router(text, changed)


@pytest.mark.parametrize(
    ("rows", "expected"), [(129, [64, 65]), (65, [65]), (1, [1]), (66, [2, 64])]
)
def test_a_last_batch_of_one_row_joins_the_one_before(rows: int, expected: list[int]) -> None:
    x = torch.arange(rows)
    batches = list(labelled_batches(x, torch.zeros(rows).long(), ("a",), rows=64)())
    assert sorted(len(positions) for _, positions in batches) == expected
    assert torch.equal(torch.cat([part for part, _ in batches]).sort().values, x)


def test_batch_norm_trains_on_any_number_of_rows() -> None:
    router = ClassifierRouter(Normed(3), NAMES).fit(*clusters(65), optimizer=adam, epochs=2)
    assert router.classifier.norm.num_batches_tracked == 2


def test_an_estimator_that_the_user_fits_later() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, groups = clusters(60)
    own = sklearn.LogisticRegression()
    router = ClassifierRouter(own, NAMES)
    with pytest.raises(InvalidArgument, match="is not fitted"):
        router.route(x)
    own.fit(x.numpy(), [NAMES[g] for g in groups])  # classes in the order of the alphabet
    assert (router.route(x).indices == groups).double().mean() > 0.9  # type: ignore[union-attr]
    own.fit(x.numpy(), groups.numpy())
    assert (router.route(x).indices == groups).double().mean() > 0.9  # type: ignore[union-attr]
    own.fit(x.numpy(), groups.numpy() + 1)
    with pytest.raises(InvalidArgument, match="which are not the tickets"):
        router.route(x)


def test_a_fit_that_fails_keeps_the_mapping() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, groups = clusters(60)
    own = sklearn.LogisticRegression().fit(x.numpy(), 7 + groups.numpy())
    mapping = {7: "indoor", 8: "street", 9: "field"}
    router = ClassifierRouter(own, NAMES, mapping)
    with pytest.raises(UnknownTicket):
        router.fit(x, ["moon"] * 60)
    assert router.classes == mapping
    assert (router.route(x).indices == groups).double().mean() > 0.9  # type: ignore[union-attr]
    assert router.fit(x, groups).classes is None


def test_everything_learns_under_inference_mode() -> None:
    with torch.inference_mode():
        x, groups = clusters(60)
        batches = list(zip(x.split(20), groups.split(20), strict=True))
        trained = [
            ClassifierRouter(Normed(3), NAMES).fit(x, groups, optimizer=adam),
            ClassifierRouter(Normed(3), NAMES).fit(batches, optimizer=adam),
            NearestCentroidRouter(NAMES).fit(batches),
        ]
        online = OnlineRouter(NAMES, 1.0, 0.5, seed=0)
    for router in trained:
        assert (router.route(x).indices == groups).double().mean() > 0.8
    classifier = trained[0].classifier
    assert not any(tensor.is_inference() for tensor in classifier.state_dict().values())
    online.observe(online.route(X), Outcome(0.5, 0.9))
    assert float(online.counts().sum()) == 1
