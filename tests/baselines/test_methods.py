"""What every method of a comparison leaves behind, on a network small enough to count by hand."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from rtl_plugin import OneShotSchedule, Ticket, compare
from rtl_plugin.baselines.methods import METHODS, TrainedMethod, method_named
from rtl_plugin.errors import InvalidArgument
from tests.baselines.tiny import (
    HIDDEN,
    PRUNABLE,
    RECIPE,
    ROWS,
    Counting,
    adam,
    batches,
    build_model,
    groups,
    seed_run,
)

KEPT = PRUNABLE // 2
WEIGHTS = 4 * (24 + 6 + 12 + 36 + 6 + 12 + 2)  # every parameter, float32
STATE = 4 * HIDDEN + 4 * HIDDEN + 8  # mean, variance, counter
MASKS = 3 + 5  # 24 and 36 bits
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained() -> Mapping[str, TrainedMethod]:
    run = seed_run()
    return {name: method_named(name)(run) for name in METHODS}


def only_set(method: TrainedMethod) -> Mapping[str, Ticket]:
    (tickets,) = method.tickets
    return tickets


def kept(ticket: Ticket) -> set[tuple[str, int]]:
    """The places of all kept weights, counted without TicketSet.union."""
    return {
        (name, place)
        for name, mask in ticket.masks.items()
        for place in mask.flatten().nonzero().flatten().tolist()
    }


def statistics(ticket: Ticket) -> torch.Tensor:
    return torch.cat([ticket.state["1.running_mean"], ticket.state["1.running_var"]])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_predictor_for_every_group(
    trained: Mapping[str, TrainedMethod], name: str
) -> None:
    method = trained[name]
    assert method.method == name
    assert list(method.predictors) == ["a", "b"]
    assert method.single is (name in ("IMP single", "dense"))
    for predictor in method.predictors.values():
        assert isinstance(predictor, nn.Sequential)
        assert not any(module.training for module in predictor.modules())
        assert predictor(X).shape == (5, 2)
    theta_0 = seed_run().model()
    assert not torch.equal(method.predictors["a"][5].weight, theta_0[5].weight), "it was trained"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adaptive tickets", WEIGHTS + 2 * (STATE + MASKS)),
        ("shared mask", WEIGHTS + 2 * (STATE + MASKS)),
        ("random tickets", WEIGHTS + 2 * (STATE + MASKS)),
        ("shared statistics", WEIGHTS + 2 * (STATE + MASKS)),
        ("IMP single", WEIGHTS + STATE + MASKS),
        ("dense", WEIGHTS + STATE),
        ("IMP multiple", 2 * (WEIGHTS + STATE + MASKS)),
    ],
)
def test_bytes(trained: Mapping[str, TrainedMethod], name: str, expected: int) -> None:
    assert trained[name].bytes == expected


def test_parameters_are_the_union_or_the_sum_over_models(
    trained: Mapping[str, TrainedMethod],
) -> None:
    for name in ("adaptive tickets", "shared statistics", "random tickets"):
        a, b = only_set(trained[name]).values()
        assert len(kept(a)) == len(kept(b)) == KEPT
        assert trained[name].parameters == len(kept(a) | kept(b))
        assert KEPT < trained[name].parameters < 2 * KEPT, "tickets that differ and overlap"
    assert trained["IMP multiple"].parameters == 2 * KEPT
    assert trained["IMP single"].parameters == trained["shared mask"].parameters == KEPT
    assert trained["dense"].parameters == PRUNABLE


def test_dense_keeps_everything(trained: Mapping[str, TrainedMethod]) -> None:
    (ticket,) = only_set(trained["dense"]).values()
    assert all(bool(mask.all()) for mask in ticket.masks.values())
    for name, parameter in trained["dense"].predictors["a"].named_parameters():
        assert bool((parameter != 0).all()) or name.endswith("bias"), name


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dense"])
def test_pruned_weights_are_zero_in_every_predictor(
    trained: Mapping[str, TrainedMethod], name: str
) -> None:
    sets = trained[name].tickets
    by_group = {n: t for tickets in sets for n, t in tickets.items()}
    for group, predictor in trained[name].predictors.items():
        ticket = by_group.get(group, by_group.get("all"))
        assert ticket is not None
        for parameter, mask in ticket.masks.items():
            weight = predictor.get_parameter(parameter)
            assert not weight[~mask].any()
            assert weight[mask].all()


def test_shared_mask_is_one_mask_with_statistics_of_its_own(
    trained: Mapping[str, TrainedMethod],
) -> None:
    a, b = only_set(trained["shared mask"]).values()
    (pooled,) = only_set(trained["IMP single"]).values()
    assert kept(a) == kept(b) == kept(pooled)
    assert not torch.allclose(statistics(a), statistics(b), atol=0.1)


def test_shared_statistics_are_shared(trained: Mapping[str, TrainedMethod]) -> None:
    shared_a, shared_b = only_set(trained["shared statistics"]).values()
    own_a, own_b = only_set(trained["adaptive tickets"]).values()
    assert kept(shared_a) == kept(own_a)
    assert kept(shared_b) == kept(own_b)
    assert torch.equal(statistics(shared_a), statistics(shared_b))
    # 2 epochs of 3 batches of both groups went into the one set, of one group into an own one.
    assert shared_a.state["1.num_batches_tracked"] == 12
    assert own_a.state["1.num_batches_tracked"] == 6
    assert not torch.allclose(statistics(own_a), statistics(own_b), atol=0.1)


def test_random_tickets_are_random_exact_and_repeatable() -> None:
    first = seed_run(0).random_tickets()
    again = seed_run(0).random_tickets()
    other = seed_run(1).random_tickets()
    assert [len(kept(ticket)) for ticket in first.values()] == [KEPT, KEPT]
    assert kept(first["a"]) != kept(first["b"])
    assert kept(first["a"]) == kept(again["a"])
    assert kept(first["a"]) != kept(other["a"])


def test_random_tickets_have_floors() -> None:
    for seed in range(10):
        run = seed_run(seed, schedule=OneShotSchedule(0.95))
        for ticket in run.random_tickets().values():
            assert len(kept(ticket)) == 3  # floor((1 - 0.95) * 60 + 0.5)
            assert all(bool(mask.any()) for mask in ticket.masks.values())


def test_tickets_share_dense_weights_and_independent_models_do_not(
    trained: Mapping[str, TrainedMethod],
) -> None:
    together = trained["adaptive tickets"].predictors
    assert torch.equal(together["a"][5].weight, together["b"][5].weight)
    alone = trained["IMP multiple"].predictors
    assert not torch.equal(alone["a"][5].weight, alone["b"][5].weight)
    assert len(trained["IMP multiple"].tickets) == 2
    for tickets in trained["IMP multiple"].tickets:
        ((name, ticket),) = tickets.items()
        assert kept(ticket) == kept(only_set(trained["adaptive tickets"])[name])


def test_an_independent_model_never_sees_the_other_group() -> None:
    """Group a's model is bit-identical whatever group b's data is; a ticket's is not."""
    outputs: dict[str, list[torch.Tensor]] = {"IMP multiple": [], "adaptive tickets": []}
    for data in (groups(), groups(b=batches(2, -5.0, 99))):
        run = seed_run(data=data)
        for name, kinds in outputs.items():
            kinds.append(method_named(name)(run).predictors["a"](X))
    assert torch.equal(*outputs["IMP multiple"])
    assert not torch.equal(*outputs["adaptive tickets"])


def test_the_order_of_methods_does_not_matter() -> None:
    """Methods share a discovery but never each other's training."""
    forwards, backwards = seed_run(), seed_run()
    first = {name: method_named(name)(forwards) for name in METHODS}
    second = {name: method_named(name)(backwards) for name in reversed(METHODS)}
    for name in METHODS:
        for group in ("a", "b"):
            expected = first[name].predictors[group](X)
            assert torch.equal(second[name].predictors[group](X), expected), name


def samples_seen(name: str, **recipe: object) -> Counting:
    loss = Counting()
    options = {**RECIPE, **recipe}
    compare(build_model, groups(), loss, optimizer=adam, methods=[name], seeds=[0], **options)
    return loss


@pytest.mark.parametrize("rewind_to", [0, 4])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_sees_the_same_number_of_samples(name: str, rewind_to: int) -> None:
    # Two groups: 2 rounds of 3 steps, and 2 epochs of 3 batches (the longer group's), each; with
    # late rewinding, 4 common steps before, which repay 2 of every group where there are none.
    seen = samples_seen(name, rewind_to=rewind_to)
    assert seen.batches == 2 * (2 * 3 + 2 * 3) + rewind_to
    assert seen.samples == seen.batches * ROWS


@pytest.mark.parametrize("name", ["dense", "random tickets"])
def test_a_repaid_discovery_is_rounded_up_to_whole_epochs(name: str) -> None:
    seen = samples_seen(name, epochs=4)
    discovery = 2 * 2 * 3
    assert seen.batches == 2 * 4 * (3 + math.ceil(2 * 3 / 4))
    assert 0 <= seen.batches - (discovery + 2 * 4 * 3) < 2 * 4


def test_late_rewinding_reaches_every_method_that_discovers() -> None:
    run = seed_run(rewind_to=4)
    start = run.model()
    for tickets in (run.adaptive_tickets, run.pooled_ticket, run.shared_mask_tickets()):
        assert tickets.rewind_state is not None
        assert not torch.equal(tickets.rewind_state["5.weight"], start[5].weight)
        ticket = next(iter(tickets.values()))
        assert torch.equal(ticket.state["1.running_mean"], tickets.rewind_state["1.running_mean"])


def test_private_parameters_reach_the_tickets_with_private_statistics() -> None:
    run = seed_run(private_parameters=["1.*"])
    for name in ("adaptive tickets", "shared mask", "random tickets"):
        a, b = only_set(method_named(name)(run)).values()
        assert not torch.equal(a.state["1.weight"], b.state["1.weight"]), name
    single = method_named("IMP single")(run)
    assert "1.weight" not in next(iter(only_set(single).values())).state


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown method 'rtl': one of adaptive tickets, IMP"):
        method_named("rtl")
