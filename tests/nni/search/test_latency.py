"""The latency of a mixed batch: what is timed, how, and that nothing is left changed."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import rtl_plugin as rtl
from rtl_nni.search import latency
from rtl_nni.search.latency import measured_latency
from rtl_plugin.errors import InvalidArgument, UnknownTicket

NAMES = ["a", "b", "a", "b"]


class Seen(nn.Module):
    """Notes how it is run; the mixture runs copies of it, which share the list."""

    def __init__(self, log: list) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        object.__setattr__(self, "log", log)

    def __deepcopy__(self, memo: dict) -> "Seen":
        other = Seen(self.log)
        other.load_state_dict(self.state_dict())
        return other.train(self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (torch.is_inference_mode_enabled(), self.training, torch.get_num_threads())
        self.log.append(state)
        return self.layer(x)


def mixture_of(model: nn.Module, layer: str = "layer.") -> rtl.MixtureOfMasks:
    shape = model.get_parameter(f"{layer}weight").shape
    masks = {name: torch.arange(shape.numel()).view(shape) % 2 == n for n, name in enumerate("ab")}
    tickets = [rtl.Ticket(name, {f"{layer}weight": mask}) for name, mask in masks.items()]
    return rtl.MixtureOfMasks(model, rtl.TicketSet(tickets))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Readings of a clock whose every second interval is a run: 9, 2, 5, then 4 seconds each."""
    given: list[float] = []
    lengths = [9.0, 2.0, 5.0]

    def read() -> float:
        runs = len(given) // 2
        step = (lengths[runs] if runs < len(lengths) else 4.0) if len(given) % 2 else 100.0
        given.append((given[-1] if given else 0.0) + step)
        return given[-1]

    monkeypatch.setattr(latency.time, "thread_time", read)
    return given


def test_the_fastest_run_by_the_clock_of_the_thread(clock: list[float]) -> None:
    mixture = mixture_of(nn.Linear(3, 2), "")
    mixture(torch.rand(4, 3), tickets=NAMES)
    clock.clear()
    assert measured_latency(mixture, torch.rand(4, 3), NAMES, rounds=3) == 2.0 / 4
    taken = [b - a for a, b in pairwise(clock)]
    assert taken[::2][-3:] == [9.0, 2.0, 5.0]


def test_how_it_runs_and_what_it_leaves() -> None:
    log: list = []
    model = Seen(log)
    mixture, before = mixture_of(model), torch.get_num_threads()
    x = torch.rand(4, 3)
    expected = mixture(x, tickets=NAMES)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        log.clear()
        seconds = measured_latency(mixture, x, NAMES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert 0 < seconds < 1
    assert torch.equal(torch.get_rng_state(), state)
    assert set(log) == {(True, False, 1)}
    assert not torch.is_inference_mode_enabled()
    assert model.training
    assert torch.equal(mixture(x, tickets=NAMES), expected)


def test_three_runs_come_before_those_that_count() -> None:
    class Counting(rtl.MixtureOfMasks):
        calls = 0

        def forward(self, *inputs, **kwargs):
            self.calls += 1
            return super().forward(*inputs, **kwargs)

    plain = mixture_of(nn.Linear(3, 2), "")
    mixture = Counting(plain.model, plain.tickets)
    measured_latency(mixture, torch.rand(4, 3), NAMES, rounds=2)
    assert mixture.calls == 3 + 2


def test_threads_come_back_after_an_error() -> None:
    mixture, before = mixture_of(nn.Linear(3, 2), ""), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            measured_latency(mixture, torch.rand(4, 7), NAMES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_work_takes_longer() -> None:
    small, large = mixture_of(nn.Linear(8, 8), ""), mixture_of(nn.Linear(1500, 1500), "")
    fast = measured_latency(small, torch.rand(64, 8), NAMES * 16)
    assert measured_latency(large, torch.rand(64, 1500), NAMES * 16) > 3 * fast


def test_tickets_by_position() -> None:
    mixture = mixture_of(nn.Linear(3, 2), "")
    assert measured_latency(mixture, torch.rand(4, 3), torch.tensor([0, 1, 1, 0]), rounds=1) > 0
    assert measured_latency(mixture, torch.rand(4, 3), (0, 1, 1, 0), rounds=1) > 0


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"mixture": nn.Linear(3, 2)}, InvalidArgument, "must be a MixtureOfMasks, got Linear"),
        ({"x": torch.rand(0, 3)}, InvalidArgument, r"B >= 1 samples.*got \[0, 3\]"),
        ({"x": torch.tensor(1.0)}, InvalidArgument, r"got \[\]"),
        ({"x": [1.0]}, InvalidArgument, "got list"),
        ({"tickets_per_sample": "a"}, InvalidArgument, "each of the 4 samples, got 'a'"),
        ({"tickets_per_sample": 0}, InvalidArgument, "each of the 4 samples, got 0"),
        ({"tickets_per_sample": torch.tensor(0)}, InvalidArgument, "each of the 4 samples"),
        ({"tickets_per_sample": ["a"]}, InvalidArgument, "each of the 4 samples, got 1"),
        ({"tickets_per_sample": ["a", "b", "c", "a"]}, UnknownTicket, "'c'"),
        ({"rounds": 0}, InvalidArgument, "rounds must be a whole number of at least 1"),
    ],
)
def test_bad_arguments(changed: dict, error: type[Exception], message: str) -> None:
    given = {"x": torch.rand(4, 3), "tickets_per_sample": NAMES, "rounds": 1, **changed}
    mixture = given.pop("mixture", None) or mixture_of(nn.Linear(3, 2), "")
    with pytest.raises(error, match=message):
        measured_latency(mixture, **given)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    small = mixture_of(nn.Linear(64, 64).cuda(), "")
    large = mixture_of(nn.Linear(8192, 8192).cuda(), "")
    fast = measured_latency(small, torch.rand(64, 64), NAMES * 16)
    assert 0 < fast < measured_latency(large, torch.rand(64, 8192), NAMES * 16) < 0.1
