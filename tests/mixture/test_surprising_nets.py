"""What three samples do not show must still not make a later batch wrong."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.errors import InvalidArgument
from tests.mixture import surprising_nets as nets
from tests.mixture.plain_loop import close, plain_copy, random_tickets

CHOICE = list("abcdabcd")
SETTINGS = (("auto", None), ("auto", 0), ("slices", None), ("slices", 0), ("scratch", None))


@pytest.fixture(params=SETTINGS, ids=lambda setting: f"{setting[0]}-{setting[1]}")
def setting(request: pytest.FixtureRequest) -> tuple[str, int | None]:
    return request.param


def served(model: nn.Module, setting: tuple[str, int | None], *prunable: str) -> MixtureOfMasks:
    model.double()
    tickets = random_tickets(model, prunable=list(prunable or ("*fc.weight",)))
    return MixtureOfMasks(model, tickets, strategy=setting[0], budget=setting[1])


def by_ticket(mixture: MixtureOfMasks, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Two samples of each of the four tickets, 'abcdabcd', a ticket at a time."""
    out: list[torch.Tensor] = [torch.empty(0)] * 8
    for k, name in enumerate("abcd"):
        rows = torch.tensor([k, k + 4])
        given = [a[rows] if isinstance(a, torch.Tensor) and len(a) == 8 else a for a in args]
        both = plain_copy(mixture.model, mixture.tickets[name])(*given, **kwargs)
        out[k], out[k + 4] = both[0], both[1]
    return torch.stack(out)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_calls_that_depend_on_the_ticket(setting: tuple[str, int | None]) -> None:
    model = nets.ExtraWhereLarge().double()
    drawn = random_tickets(model, prunable=["fc.weight", "extra.weight"])
    none = torch.zeros(4, 4, dtype=torch.bool)  # the ticket that is looked at never runs the extra
    first = Ticket("a", {"fc.weight": none, "extra.weight": ~none})
    tickets = TicketSet([first, *(drawn[name] for name in "bcd")])
    mixture = MixtureOfMasks(model, tickets, strategy=setting[0], budget=setting[1])
    x = torch.randn(8, 4).double()
    close(mixture(x, tickets=CHOICE), by_ticket(mixture, x))
    fresh = MixtureOfMasks(model, tickets, strategy=setting[0], budget=setting[1])
    close(fresh(x, tickets="b"), plain_copy(model, tickets["b"])(x))


def test_a_side_input_left_on_a_layer(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.ToldBefore(), setting, "block.weight", "head.weight")
    x, condition = torch.randn(8, 4).double(), torch.randn(8, 1).double()
    close(mixture(x, condition, tickets=CHOICE), by_ticket(mixture, x, condition))


def test_a_layer_that_is_inside_another_unit_too(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.SharedInside(), setting, "first.weight", "block.fc.weight")
    x = torch.randn(8, 4).double()
    close(mixture(x, tickets=CHOICE), by_ticket(mixture, x))


def test_options_of_any_type_are_told_apart(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.ByEnum(), setting)
    x = torch.randn(8, 3, 4).double()
    for order in nets.Order:
        close(mixture(x, order, tickets=CHOICE), by_ticket(mixture, x, order))


def test_fields_beside_the_tensors_are_told_apart(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.ByField(), setting)
    x = torch.randn(8, 3, 4).double()
    expected = mixture(nets.Request(x, "samples"), tickets=CHOICE)
    # Merging one way or the other is the same function of a sample.
    close(mixture(nets.Request(x, "positions"), tickets=CHOICE), expected)


def test_a_call_that_is_left_out(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.FirstUseSkipped(), setting)
    x, asked = torch.randn(8, 3, 4).double(), torch.ones(8, dtype=torch.bool)
    close(mixture(x, asked, tickets=CHOICE), by_ticket(mixture, x, asked))
    close(mixture(x, ~asked, tickets=CHOICE), by_ticket(mixture, x, ~asked))


def test_looking_leaves_nothing_behind(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.Peak(), setting)
    x = torch.randn(8, 4).double()
    assert not mixture(x, tickets=CHOICE).isnan().any()
    assert not mixture(x, tickets="a").isnan().any()


def test_a_first_batch_of_nan_decides_nothing(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.Centred(), setting)
    x = torch.randn(8, 4).double()
    mixture(torch.full_like(x, float("nan")), tickets=CHOICE)
    close(mixture(x, tickets=CHOICE), by_ticket(mixture, x))


def test_a_warm_up_of_zeros_decides_nothing(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.CentredTokens(), setting)
    ids = torch.randint(9, (8, 5))
    mixture(torch.zeros_like(ids), tickets=CHOICE)
    close(mixture(ids, tickets=CHOICE), by_ticket(mixture, ids))


def test_looking_ends_where_nan_never_converges(
    setting: tuple[str, int | None],
) -> None:
    steps = 0

    class Counted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            return super().forward(x)

    model = nets.FixedPoint()
    linear = model.fc
    model.fc = Counted(4, 4)
    model.fc.load_state_dict(linear.state_dict())
    mixture = served(model, setting)
    x = torch.randn(8, 4).double()
    expected = by_ticket(mixture, x)
    steps = 0
    close(mixture(x, tickets=CHOICE), expected)
    assert steps < nets.FixedPoint.limit  # a pass with NaN would reach it


def test_outputs_without_tensors_are_refused(setting: tuple[str, int | None]) -> None:
    mixture = served(nets.Distribution(), setting, "fc.weight")
    with pytest.raises(InvalidArgument, match="Normal"):
        mixture(torch.randn(8, 4).double(), tickets=CHOICE)


def test_buffers_that_a_forward_writes_to_are_a_calls_own(setting: tuple[str, int | None]) -> None:
    class Steps(nets.Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                self.steps.add_(1)
                time.sleep(5e-4)
            return self.fc(x) * 0 + self.steps

    model = Steps()
    drawn = random_tickets(model, prunable=["fc.weight"])
    own = [Ticket(n, drawn[n].masks, {"steps": torch.tensor(10.0 * k)}) for k, n in enumerate("ab")]
    mixture = MixtureOfMasks(model, TicketSet(own), strategy=setting[0], budget=setting[1])
    seen: list[float] = []

    def serve() -> None:
        seen.extend(float(mixture(torch.ones(2, 4), tickets="b").detach()[0, 0]) for _ in range(25))

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {13.0}
    assert len(seen) == 100


@pytest.mark.parametrize("setting", [("auto", 0)], ids=["auto-0"], indirect=True)
def test_what_is_remembered_stays_bounded(setting: tuple[str, int | None]) -> None:
    mixture = served(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), setting, "*")
    with torch.no_grad():
        for length in range(1, 1200):
            mixture(torch.ones(2, length, 4).double(), tickets=["a", "b"])
    assert len(mixture.explain().splitlines()) < 2_200


def test_explain_while_another_thread_serves(setting: tuple[str, int | None]) -> None:
    mixture = served(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), setting, "*")
    done = threading.Event()

    def serve() -> None:
        with torch.no_grad():
            for length in range(1, 150):
                mixture(torch.ones(2, length, 4).double(), tickets=["a", "b"])
        done.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while not done.wait(0.001):  # without a pause it would keep the other thread from running
            mixture.explain()
    finally:
        thread.join()


def test_a_small_table_is_no_batch(setting: tuple[str, int | None]) -> None:
    class WithTable(nets.Net):
        def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.fc(x @ table)))

    for rows in (2, 3, 4, 5):
        mixture = served(WithTable(), setting)
        x, table = torch.randn(8, rows).double(), torch.randn(rows, 4).double()
        close(mixture(x, table, tickets=CHOICE), by_ticket(mixture, x, table))
        assert "mixes samples" not in mixture.explain()


def test_a_module_that_is_replaced_is_seen(setting: tuple[str, int | None]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    mixture = served(model, setting, "0.weight")
    x = torch.randn(8, 4).double()
    mixture(x, tickets=CHOICE)
    model[2] = nn.Linear(4, 2).double()
    close(mixture(x, tickets=CHOICE), by_ticket(mixture, x))
