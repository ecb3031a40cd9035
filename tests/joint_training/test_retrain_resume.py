"""Killed anywhere, called again with a fresh model: the same bytes and the same weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from rtl_plugin import RetrainReport, TicketSet
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    built,
    cross_entropy,
    files_of,
    found,
    named_groups,
    random_tickets,
    same_bits,
    shuffled_groups,
    tensors_of,
    ticket_tensors,
)
from tests.joint_training.setups import OPTIMIZERS, clipped, trained, with_scheduler
from tests.models import ZOO, Network

EPOCHS, PER_EPOCH = 3, 4  # two groups of two batches


class Result:
    """What a retraining from a fresh model and fresh tickets leaves."""

    def __init__(self, network: Network, folder: Path | None, loss: Any, **others: Any) -> None:
        torch.manual_seed(id(loss) % 1000)
        self.model = built(network)
        self.tickets = random_tickets(self.model)
        self.report: RetrainReport = trained(
            self.model, self.tickets, shuffled_groups(network), loss, run_folder=folder,
            **{"epochs": EPOCHS, **others},
        )  # fmt: skip

    def check_equals(self, other: "Result") -> None:
        assert same_bits(tensors_of(self.model), tensors_of(other.model))
        assert same_bits(ticket_tensors(self.tickets), ticket_tensors(other.tickets))
        assert self.report == other.report


def check_cuts(network: Network, tmp_path: Path, cuts: Any, **others: Any) -> None:
    whole = Result(network, tmp_path / "whole", Interrupting(), **others)
    expected = files_of(tmp_path / "whole")
    names = ("arguments.json", "checkpoint.safetensors", "tickets.safetensors")
    assert list(expected) == [f"retrain/{name}" for name in names]
    whole.check_equals(Result(network, None, Interrupting(), **others))
    for at in cuts:
        folder = tmp_path / f"cut-{at}"
        with pytest.raises(KeyboardInterrupt):
            Result(network, folder, Interrupting(at), **others)
        loss = Interrupting()
        resumed = Result(network, folder, loss, **others)
        finished = (at - 1) // PER_EPOCH
        assert loss.calls == (EPOCHS - finished) * PER_EPOCH, "finished epochs are kept"
        resumed.check_equals(whole)
        assert files_of(folder) == expected


def test_cut_at_every_single_step(tmp_path: Path) -> None:
    check_cuts(CONV, tmp_path, range(1, EPOCHS * PER_EPOCH + 1))


@pytest.mark.parametrize("network", [n for n in ZOO if n.name != "conv_net"], ids=str)
def test_cut_at_every_epoch(network: Network, tmp_path: Path) -> None:
    check_cuts(network, tmp_path, range(1, EPOCHS * PER_EPOCH + 1, PER_EPOCH))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cut_under_every_optimizer(optimizer: str, tmp_path: Path) -> None:
    check_cuts(MLP, tmp_path, [PER_EPOCH + 1], optimizer=OPTIMIZERS[optimizer])


SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, gamma=0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 7, 7], gamma=0.5),  # a Counter
    "Cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 12),
    "OneCycle": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=12),
    "Cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.05, step_size_up=3, cycle_momentum=False),
    "Lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "Warmup": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
    "Chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
    "Restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")  # torch's own SequentialLR
@pytest.mark.parametrize("name", SCHEDULERS)
def test_cut_under_every_learning_rate_schedule(name: str, tmp_path: Path) -> None:
    factory = with_scheduler(clipped(OPTIMIZERS["AdamW"], 0.5), SCHEDULERS[name])
    check_cuts(MLP, tmp_path, [PER_EPOCH + 1, 2 * PER_EPOCH + 2], optimizer=factory)


@pytest.mark.parametrize(
    "others",
    [
        {"private_parameters": ["1.*", "8.*"]},
        {"own_statistics": False},
        {"batches_per_epoch": 2, "seed": 5},
        {"optimizer": lambda p: torch.optim.SGD([{"params": p[:3]}, {"params": p[3:], "lr": 0.01}],
                                                0.1, momentum=0.9)},
    ],
    ids=["private", "shared statistics", "seed", "two parameter groups"],
)  # fmt: skip
def test_cut_with_other_settings(others: dict[str, Any], tmp_path: Path) -> None:
    check_cuts(CONV, tmp_path, [PER_EPOCH + 1, 2 * PER_EPOCH + 3], **others)


def test_cut_with_dropout_and_noise(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 3))

    network = Network("dropout", build, MLP.inputs, False)
    check_cuts(network, tmp_path, [PER_EPOCH + 1, 2 * PER_EPOCH + 2])


def test_cut_between_the_last_checkpoint_and_the_tickets(tmp_path: Path, monkeypatch: Any) -> None:
    whole = Result(CONV, tmp_path / "whole", Interrupting())
    save = TicketSet.save

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TicketSet, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        Result(CONV, tmp_path / "cut", Interrupting())
    monkeypatch.setattr(TicketSet, "save", save)
    loss = Interrupting()
    Result(CONV, tmp_path / "cut", loss).check_equals(whole)
    assert loss.calls == 0
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_finished_folder_returns_its_result_without_training(tmp_path: Path) -> None:
    whole = Result(CONV, tmp_path, Interrupting())
    before, loss = files_of(tmp_path), Interrupting(at=1)
    Result(CONV, tmp_path, loss).check_equals(whole)
    assert loss.calls == 0
    assert files_of(tmp_path) == before
    # The model that was trained is as good as a fresh one: the checkpoint has the weights.
    trained(whole.model, whole.tickets, shuffled_groups(CONV), loss, epochs=EPOCHS,
            run_folder=tmp_path)  # fmt: skip
    assert loss.calls == 0


def test_the_folders_tickets_are_the_retrained_ones(tmp_path: Path) -> None:
    whole = Result(CONV, tmp_path, Interrupting(), private_parameters=["1.*"])
    loaded = TicketSet.load(tmp_path / "retrain" / "tickets.safetensors")
    assert same_bits(ticket_tensors(loaded), ticket_tensors(whole.tickets))
    assert "1.weight" in loaded["a"].state


@pytest.mark.parametrize("rewind_to", [0, 2])
def test_discovery_and_retraining_share_a_folder(rewind_to: int, tmp_path: Path) -> None:
    def run(folder: Path, loss: Any) -> nn.Module:
        model, groups = built(CONV), shuffled_groups(CONV)
        tickets = found(model, groups, loss, run_folder=folder, rewind_to=rewind_to)
        trained(model, tickets, groups, loss, epochs=EPOCHS, run_folder=folder)
        return model

    model = run(tmp_path / "whole", Interrupting())
    whole = files_of(tmp_path / "whole")
    for at in range(1, 21 + rewind_to, 3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"cut-{at}", Interrupting(at))
        resumed = run(tmp_path / f"cut-{at}", Interrupting())
        assert same_bits(tensors_of(resumed), tensors_of(model))
        assert files_of(tmp_path / f"cut-{at}") == whole
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {event["stage"] for event in log} == {"discover", "retrain"}
    assert [e["epoch"] for e in log if e["event"] == "epoch"] == [1, 2, 3]
    assert all(b"seconds" not in content for content in whole.values())


def test_a_run_folder_may_change_nothing(tmp_path: Path) -> None:
    model, other = built(MLP), built(MLP)
    first, second = random_tickets(model), random_tickets(other)
    trained(model, first, named_groups(MLP), run_folder=tmp_path)
    trained(other, second, named_groups(MLP), cross_entropy)
    assert same_bits(tensors_of(model), tensors_of(other))
