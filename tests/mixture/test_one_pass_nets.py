"""Networks that move, merge or fold the batch give what a loop over their samples gives."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, TicketSet
from rtl_plugin.nested import map_tensors, tensors_in
from tests.mixture.one_pass_cases import CASES, Case
from tests.mixture.plain_loop import NAMES, close, plain_copy, random_tickets

# Strategy and budget: everything kept, nothing kept, and room for a part of it.
SETTINGS = (
    ("auto", None),
    ("auto", 0),
    ("auto", 1500),
    ("slices", 0),
    ("grouped", None),
    ("grouped", 1500),
    ("scratch", None),
)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def as_double(nested: Any) -> Any:
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, nested)


def one_sample(nested: Any, i: int) -> Any:
    return map_tensors(lambda tensor: tensor[i : i + 1], nested)


def built(case: Case) -> tuple[nn.Module, TicketSet]:
    torch.manual_seed(0)
    model = case.build().double()
    prunable = None if case.prunable is None else list(case.prunable)
    return model, random_tickets(model, prunable=prunable)


def loop_over_samples(
    copies: Sequence[nn.Module], args: tuple[Any, ...], choice: torch.Tensor
) -> list[torch.Tensor]:
    rows = [list(tensors_in(copies[int(k)](*one_sample(args, i)))) for i, k in enumerate(choice)]
    return [torch.cat(pieces) for pieces in zip(*rows, strict=True)]


def equal(outputs: Any, expected: Sequence[torch.Tensor]) -> None:
    given = list(tensors_in(outputs))
    assert len(given) == len(expected) > 0
    for tensor, wanted in zip(given, expected, strict=True):
        close(tensor, wanted)


@pytest.mark.parametrize(("strategy", "budget"), SETTINGS)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_equals_the_loop_over_samples(
    case: Case, strategy: str, budget: int | None, grad: bool
) -> None:
    model, tickets = built(case)
    copies = [plain_copy(model, ticket) for ticket in tickets.values()]
    mixture = MixtureOfMasks(model, tickets, strategy=strategy, budget=budget)
    with torch.set_grad_enabled(grad):
        for size in (8, 3, 2, 1, 5):  # the first decides how the others pass
            args = as_double(case.inputs(size))
            choice = torch.randint(len(NAMES), (size,))
            outputs = mixture(*args, tickets=choice)
            if case.alone:
                equal(outputs, loop_over_samples(copies, args, choice))
            equal(mixture(*args, tickets="c"), list(tensors_in(copies[2](*args))))
            parts = mixture.memory().parts
            assert budget is None or parts["masked copies"] <= budget


def test_batch_mates_of_the_same_ticket_are_the_ones_that_count() -> None:
    case = next(case for case in CASES if not case.alone)
    model, tickets = built(case)
    copies = [plain_copy(model, ticket) for ticket in tickets.values()]
    mixture = MixtureOfMasks(model, tickets)
    (x,) = as_double(case.inputs(8))
    outputs = mixture(x, tickets=list("abababcd"))
    for k, name in enumerate(NAMES):
        rows = [i for i, n in enumerate("abababcd") if n == name]
        close(outputs[rows], copies[k](x[rows]))


@pytest.mark.parametrize(("strategy", "budget"), [s for s in SETTINGS if s[0] != "auto"])
def test_passes_once_where_samples_can_be_told_apart(
    case: Case, strategy: str, budget: int | None
) -> None:
    model, tickets = built(case)
    mixture = MixtureOfMasks(model, tickets, strategy=strategy, budget=budget)
    args = as_double(case.inputs(8))
    mixture(*args, tickets=torch.arange(8) % 4)  # looks at the network
    told = mixture.explain()
    assert "different outputs" not in told, told  # a broken way would hide behind the fallback
    assert ("one pass" in told.splitlines()[1]) is case.one_pass, told


def test_gradients_to_the_input_are_those_of_the_loop(case: Case) -> None:
    if not case.alone:
        pytest.skip("a loop over samples is another function")
    model, tickets = built(case)
    copies = [plain_copy(model, ticket) for ticket in tickets.values()]
    choice = torch.arange(6) % 4
    args = as_double(case.inputs(6))
    wanted = [t.requires_grad_() for t in tensors_in(args) if t.is_floating_point()]
    if not wanted:
        pytest.skip("integers have no gradients")

    def gradients(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(sum((o**2).sum() for o in outputs), wanted)

    expected = gradients(loop_over_samples(copies, args, choice))
    for strategy, budget in SETTINGS:
        mixture = MixtureOfMasks(model, tickets, strategy=strategy, budget=budget)
        given = gradients(list(tensors_in(mixture(*args, tickets=choice))))
        for got, want in zip(given, expected, strict=True):
            close(got, want)
    assert all(parameter.grad is None for parameter in model.parameters())
