"""``steps=`` needs no length, so an endless loader trains; an empty stream is refused."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import rtl_plugin as rtl


class Stream:
    def __init__(self, count: int | None) -> None:
        self.count = count

    def __iter__(self) -> Iterator[torch.Tensor]:
        given = 0
        while self.count is None or given < self.count:
            given += 1
            yield torch.ones(2, 3)


def found(stream: Stream, steps: int | None = 3, epochs: int | None = None) -> rtl.TicketSet:
    torch.manual_seed(0)
    return rtl.discover(
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)),
        rtl.DataGroups.from_loaders({"a": stream}),
        lambda model, batch: model(batch).square().mean(),
        schedule=rtl.OneShotSchedule(0.5),
        steps=steps,
        epochs=epochs,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
    )


def test_an_endless_loader_trains_for_its_steps() -> None:
    endless, finite = found(Stream(None)), found(Stream(3))
    assert torch.equal(endless["a"].masks["0.weight"], finite["a"].masks["0.weight"])


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(rtl.errors.InvalidGroups, match="gave no batch"):
        found(Stream(0))


def test_epochs_count_a_finite_stream() -> None:
    assert found(Stream(3), steps=None, epochs=2)["a"].kept == 6
