"""Inputs and outputs of any nesting, extra arguments split by row or passed whole."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.nested import tensors_in
from tests.mixture.plain_loop import TOLERANCES, plain_copy, random_tickets

WIDTH, ROWS, CHOICE = 4, 6, "cadbba"


class Scores(NamedTuple):
    logits: torch.Tensor
    hidden: torch.Tensor


@dataclass
class Record:
    logits: torch.Tensor
    hidden: torch.Tensor


class Flexible(nn.Module):
    """Takes inputs in a few nestings and returns the nesting that it was asked for."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.form = form
        self.first = nn.Linear(WIDTH, 8)
        self.second = nn.Linear(8, 3)

    def forward(self, x: Any, offset: Any = None, *, scale: Any = None, note: str = "") -> Any:
        x = sum(tensors_in(x))
        for shift in tensors_in(offset):
            x = x + shift
        hidden = torch.tanh(self.first(x))
        logits = self.second(hidden)
        if scale is not None:
            logits = logits * scale
        if note:
            logits = logits + len(note)
        return {
            "tensor": logits,
            "tuple": (logits, hidden),
            "list": [logits, [hidden]],
            "dict": {"logits": logits, "more": {"hidden": hidden, "unit": "nat"}},
            "ordered": OrderedDict(logits=logits, hidden=hidden),
            "named tuple": Scores(logits, hidden),
            "dataclass": Record(logits, hidden),
        }[self.form]


def made(strategy: str, form: str = "tensor") -> tuple[MixtureOfMasks, dict[str, nn.Module]]:
    torch.manual_seed(0)
    model = Flexible(form).double()
    tickets = random_tickets(model)
    copies = {name: plain_copy(model, ticket) for name, ticket in tickets.items()}
    return MixtureOfMasks(model, tickets, strategy=strategy), copies


def rows(count: int = ROWS) -> torch.Tensor:
    return torch.randn(count, WIDTH, dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[torch.float64])


@pytest.mark.parametrize(
    "form", ["tensor", "tuple", "list", "dict", "ordered", "named tuple", "dataclass"]
)
def test_outputs_of_any_nesting(strategy: str, form: str) -> None:
    mixture, copies = made(strategy, form)
    x = rows()
    outputs = mixture(x, tickets=list(CHOICE))
    expected = [copies[name](x[i : i + 1]) for i, name in enumerate(CHOICE)]
    assert type(outputs) is type(expected[0])
    if form == "dict":
        assert outputs["more"]["unit"] == "nat"
    together = zip(*(list(tensors_in(each)) for each in expected), strict=True)
    for actual, pieces in zip(tensors_in(outputs), together, strict=True):
        close(actual, torch.cat(pieces))


@pytest.mark.parametrize(
    "nest",
    [
        lambda a, b: {"image": a, "text": {"b": b}},
        lambda a, b: (a, [b]),
        Scores,
        Record,
        lambda a, b: OrderedDict(a=a, b=b),
    ],
    ids=["dict", "tuple", "named tuple", "dataclass", "ordered"],
)
def test_inputs_of_any_nesting(strategy: str, nest: Any) -> None:
    mixture, copies = made(strategy)
    a, b = rows(), rows()
    outputs = mixture(nest(a, b), tickets=list(CHOICE))
    expected = [copies[n](nest(a[i : i + 1], b[i : i + 1])) for i, n in enumerate(CHOICE)]
    close(outputs, torch.cat(expected))


def test_arguments_with_a_row_a_sample_are_split(strategy: str) -> None:
    mixture, copies = made(strategy)
    x, offset, scale = rows(), rows(), torch.rand(ROWS, 1, dtype=torch.float64)
    outputs = mixture(x, {"shift": offset}, scale=scale, tickets=list(CHOICE))
    expected = [
        copies[name](x[i : i + 1], offset[i : i + 1], scale=scale[i : i + 1])
        for i, name in enumerate(CHOICE)
    ]
    close(outputs, torch.cat(expected))


@pytest.mark.parametrize(
    ("offset", "scale", "note"),
    [
        (torch.ones(1, WIDTH).double(), torch.tensor(2.0).double(), "note"),
        ([torch.arange(WIDTH).double()], torch.rand(1, 3).double(), ""),
        (None, 2.5, "x"),
    ],
)
def test_other_arguments_pass_whole(strategy: str, offset: Any, scale: Any, note: str) -> None:
    mixture, copies = made(strategy)
    x = rows()
    outputs = mixture(x, offset, scale=scale, note=note, tickets=list(CHOICE))
    expected = [
        copies[name](x[i : i + 1], offset, scale=scale, note=note) for i, name in enumerate(CHOICE)
    ]
    close(outputs, torch.cat(expected))
    one = mixture(x, offset, scale=scale, note=note, tickets="b")
    close(one, copies["b"](x, offset, scale=scale, note=note))


def test_all_inputs_by_name(strategy: str) -> None:
    mixture, copies = made(strategy)
    x, scale = rows(), torch.rand(ROWS, 1, dtype=torch.float64)
    outputs = mixture(x=x, scale=scale, tickets=list(CHOICE))
    close(outputs, mixture(x, scale=scale, tickets=list(CHOICE)))
    close(mixture(x=x, tickets="b"), copies["b"](x))


class Sequencer(nn.Module):
    """Output [T, B, C], as of a recurrent layer with its default layout; or a mean over B."""

    def __init__(self, reduce: bool) -> None:
        super().__init__()
        self.reduce = reduce
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        return y.mean() if self.reduce else y[None].repeat(5, 1, 1)


@pytest.mark.parametrize(("reduce", "shape"), [(True, r"\(\)"), (False, r"\(5, 2, 2\)")])
def test_outputs_that_are_not_batch_first_are_refused(
    strategy: str, reduce: bool, shape: str
) -> None:
    torch.manual_seed(0)
    model = Sequencer(reduce).double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    x = rows(4)
    with pytest.raises(InvalidArgument, match=rf"one row a sample, got shape {shape} for 2 sampl"):
        mixture(x, tickets=list("abab"))
    alone = plain_copy(model, mixture.tickets["a"])(x)
    close(mixture(x, tickets="a"), alone)  # one ticket for the batch may return anything


class Moody(nn.Module):
    """Returns a second tensor for some inputs only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.second(self.first(x))
        return (y, y) if x[0, 0] > 0 else (y,)


def test_outputs_of_different_structure_are_refused(strategy: str) -> None:
    torch.manual_seed(0)
    model = Moody().double()
    mixture = MixtureOfMasks(model, random_tickets(model), strategy=strategy)
    for sign in (1.0, -1.0):
        x = torch.ones(2, WIDTH).double() * torch.tensor([[sign], [-sign]]).double()
        with pytest.raises(InvalidArgument, match=r"outputs of different structure"):
            mixture(x, tickets=["a", "b"])


@pytest.mark.parametrize("x", [{"text": "no tensor"}, torch.tensor(1.0)])
def test_an_input_without_rows_is_refused(strategy: str, x: Any) -> None:
    mixture, _ = made(strategy)
    with pytest.raises(InvalidArgument, match="input tensor whose first dimension is B, got"):
        mixture(x, tickets=["a"])
