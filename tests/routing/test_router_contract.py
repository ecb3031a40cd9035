"""What holds for every router."""

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import KnownGroupRouter, Ticket, TicketSet
from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.mixture.mixture_file import load_mixture, save_mixture
from rtl_plugin.mixture.router_checks import (
    check_router,
    checked_decision,
    checked_output_decision,
)
from rtl_plugin.routing import (
    ClassifierRouter,
    ConfidenceRouter,
    ConfidenceThreshold,
    NearestCentroidRouter,
    OutputRouter,
    Router,
    TopNRouter,
)
from rtl_plugin.routing.contract import needs_outputs
from tests.routing.router_cases import CASES, NAMES, Case, Normed, centroids, same

TICKETS = TicketSet([Ticket(name, {"weight": torch.ones(2, 4).bool()}) for name in NAMES])


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def checked(case: Case, router: Any, x: torch.Tensor) -> None:
    """As a mixture asks, with every check that it makes."""
    if needs_outputs(router):
        checked_output_decision(router, TICKETS, x, None)
    else:
        checked_decision(router, TICKETS, x, "street")


@pytest.mark.parametrize("rows", [0, 1, 2, 33])
def test_shapes_dtypes_and_ranges(case: Case, rows: int) -> None:
    router, x = case.build(), case.batch(rows)
    decision = case.ask(router, x)
    assert decision.batch_size == rows
    if decision.indices is not None:
        assert decision.indices.dtype == torch.long
        assert ((decision.indices >= 0) & (decision.indices < len(NAMES))).all()
    else:
        assert decision.weights is not None
        assert decision.weights.shape == (rows, len(NAMES))
        assert (decision.weights >= 0).all()
        sums = decision.weights.sum(dim=1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
    if decision.confidence is not None:
        assert torch.isfinite(decision.confidence).all()
    for part in (decision.indices, decision.weights, decision.confidence, decision.fallback):
        assert part is None or part.device == x.device
    checked(case, router, x)


def test_it_is_a_router_for_these_tickets(case: Case) -> None:
    router = case.build()
    assert isinstance(router, Router)
    check_router(router, TICKETS)
    others = TicketSet([TICKETS[name] for name in reversed(NAMES)])
    if getattr(router, "tickets", None) is None:
        assert needs_outputs(router), "only outputs come in the mixture's own order"
        check_router(router, others)
    else:
        with pytest.raises(InvalidArgument, match=r"was made for the tickets \['indoor', .*'field"):
            check_router(router, others)


def test_the_other_question_is_refused(case: Case) -> None:
    router, x = case.build(), case.batch(2)
    if needs_outputs(router):
        with pytest.raises(InvalidArgument, match="decides from the outputs of all tickets"):
            router.route(x)
    elif isinstance(router, OutputRouter):
        with pytest.raises(InvalidArgument, match=r"decides from the input .* route\(x\)"):
            router.decide(x)


@pytest.mark.parametrize("case", [case for case in CASES if not case.random], ids=str)
def test_decisions_do_not_depend_on_batch_mates_or_earlier_calls(case: Case) -> None:
    router, x = case.build(), case.batch(12)
    whole = case.ask(router, x)
    for rows in ([3], [11, 0, 5]):
        part = case.ask(router, x[rows])
        for name in ("indices", "weights", "confidence", "fallback"):
            value = getattr(whole, name)
            if value is not None:
                torch.testing.assert_close(getattr(part, name), value[rows])


def test_the_same_seed_gives_the_same_decisions(case: Case) -> None:
    first, second, x = case.build(), case.build(), case.batch(6)
    torch.manual_seed(1)
    seen = [case.ask(first, x) for _ in range(12)]
    torch.manual_seed(2)
    for decision in seen:
        same(case.ask(second, x), decision)


def test_callers_tensors_and_random_streams_stay(case: Case) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    router, x = case.build(), case.batch(6)
    kept = x.clone()
    case.ask(router, x)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_and_pickles_decide_alike(case: Case) -> None:
    router, x = case.build(), case.batch(9)
    copies = [copy.deepcopy(router)]
    if case.name != "own score":  # a lambda
        copies.append(pickle.loads(pickle.dumps(router)))
    expected = [case.ask(router, x) for _ in range(8)]
    for copied in copies:
        for decision in expected:
            same(case.ask(copied, x), decision)


def test_threads_may_share_a_router(case: Case) -> None:
    router = case.build()
    batches = [case.batch(rows, seed=rows) for rows in (1, 2, 5, 8)]
    expected = [case.ask(case.build(), x) for x in batches]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for call in range(40):
                which = (number + call) % len(batches)
                decision = case.ask(router, batches[which])
                if case.random:
                    assert decision.batch_size == len(batches[which])
                else:
                    same(decision, expected[which])
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def saved_linear(path: Path, router: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    save_mixture(path, model, TICKETS, router)
    return model


def test_a_saved_router_decides_alike(case: Case, tmp_path: Path) -> None:
    router, path = case.build(), tmp_path / "m.safetensors"
    if not case.saves:
        with pytest.raises(InvalidArgument, match=r"without pickle: .*save\(path, router=False\)"):
            saved_linear(path, router)
        assert not path.exists()
        return
    model = saved_linear(path, router)
    skeleton = case.skeleton() if case.skeleton else None
    kept = copy.deepcopy(skeleton)
    served, tickets, loaded = load_mixture(path, nn.Linear(4, 2), skeleton)
    assert torch.equal(served.weight, model.weight)
    assert tickets.names == NAMES
    assert type(loaded) is type(router)
    x = case.batch(9)
    for _ in range(8):
        same(case.ask(loaded, x), case.ask(router, x))
    if skeleton is not None:
        for mine, before in zip(modules_of(skeleton), modules_of(kept), strict=True):
            for name, value in before.state_dict().items():
                assert torch.equal(mine.state_dict()[name], value), "load wrote to the skeleton"


def modules_of(router: Any) -> list[nn.Module]:
    inner = getattr(router, "router", None)
    if inner is not None:
        return modules_of(inner)
    return [getattr(router, "classifier", None) or router.feature_space]


@pytest.mark.parametrize("case", [case for case in CASES if case.skeleton], ids=str)
def test_a_module_needs_a_skeleton(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved_linear(path, case.build())
    with pytest.raises(InvalidArgument, match=r"m\.safetensors: .* not its code: give router="):
        load_mixture(path, nn.Linear(4, 2))
    with pytest.raises(InvalidArgument, match=r"the file holds a .*, router= is a "):
        load_mixture(path, nn.Linear(4, 2), CASES[0].build())
    assert load_mixture(path, nn.Linear(4, 2), router=False)[2] is None


UNFITTED = [
    (NearestCentroidRouter(NAMES), "NearestCentroidRouter is not fitted: call fit"),
    (ConfidenceThreshold(CASES[0].build()), "has no threshold: give threshold=, or call fit"),
    (TopNRouter(NearestCentroidRouter(NAMES), 1), "NearestCentroidRouter is not fitted"),
]


@pytest.mark.parametrize(("router", "message"), UNFITTED)
def test_an_unfitted_router_is_refused(router: Any, message: str) -> None:
    check_router(router, TICKETS)  # a mixture may be made before the router is fitted
    with pytest.raises(InvalidArgument, match=message):
        router.route(torch.zeros(2, 4), "street")


def test_an_unfitted_estimator_is_refused() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    router = ClassifierRouter(linear.LogisticRegression(), NAMES)
    with pytest.raises(InvalidArgument, match=r"LogisticRegression is not fitted .* call"):
        router.route(torch.zeros(2, 4))


def test_an_unfitted_router_stays_unfitted_in_a_file(tmp_path: Path) -> None:
    saved_linear(tmp_path / "m", NearestCentroidRouter(NAMES))
    loaded = load_mixture(tmp_path / "m", nn.Linear(4, 2))[2]
    with pytest.raises(InvalidArgument, match="not fitted"):
        loaded.route(torch.zeros(1, 4))


def test_tickets_that_are_no_names_are_refused() -> None:
    class Odd:
        def __init__(self, tickets: Any) -> None:
            self.tickets = tickets

        def route(self, x: Any, context: Any = None) -> None:
            raise AssertionError("not asked")

    check_router(Odd(None), TICKETS)
    check_router(Odd(list(NAMES)), TICKETS)
    check_router(Odd(TICKETS), TICKETS)
    for wrong in (3, "indoor", ("indoor",), NAMES[::-1]):
        with pytest.raises(InvalidArgument, match="was made for the tickets"):
            check_router(Odd(wrong), TICKETS)


def test_routers_for_other_tickets_than_the_files_are_damage(tmp_path: Path) -> None:
    other = NearestCentroidRouter(("a", "b", "c"))
    saved_linear(tmp_path / "m", other)
    with pytest.raises(DamagedFile, match=r"m: the router was made for the tickets \['a'"):
        load_mixture(tmp_path / "m", nn.Linear(4, 2))


def test_modes_of_the_users_modules_stay() -> None:
    space, classifier = Normed(6).train(), Normed(3).train()
    centroids(feature_space=space).route(torch.randn(4, 4))
    ClassifierRouter(classifier, NAMES).route(torch.randn(4, 4))
    for module in (space, classifier):
        assert all(part.training for part in module.modules())
        assert module.norm.num_batches_tracked == 0, "a forward in train mode moved statistics"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_decisions_lie_where_the_batch_lies(case: Case) -> None:
    router, x = case.build(), case.batch(9)
    for module in modules_of(router) if case.skeleton else []:
        module.cuda()
    decision = case.ask(router, x.cuda())
    for part in (decision.indices, decision.weights, decision.confidence, decision.fallback):
        host = isinstance(router, KnownGroupRouter)  # it looks up what the host knows
        assert part is None or part.device.type == ("cpu" if host else "cuda")
    if not case.random:
        for name in ("indices", "fallback"):
            value = getattr(case.ask(case.build(), x), name)
            assert value is None or torch.equal(getattr(decision, name).cpu(), value)


def test_a_wrapper_asks_as_its_inner_router_is_asked() -> None:
    assert needs_outputs(ConfidenceThreshold(TopNRouter(ConfidenceRouter(), 1), 0.5))
    assert not needs_outputs(ConfidenceThreshold(TopNRouter(centroids(), 1), 0.5))
