"""Killed anywhere, called again: the same bytes as a run that was never interrupted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import GeometricSchedule, LinearSchedule, TicketSet
from rtl_plugin.errors import DamagedFile, RunFolderMismatch, StructureMismatch
from rtl_plugin.run_folder import RunFolder
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    adam,
    built,
    files_of,
    found,
    named_groups,
    same_bits,
    sgd,
    shuffled_groups,
    tensors_of,
    ticket_tensors,
)
from tests.models import ZOO, Network

STEPS, ROUNDS = 2, 2
CALLS = STEPS * ROUNDS * 2


def run(network: Network, folder: Path, loss: Any, **others: Any) -> TicketSet:
    """A call as from a new process: new model, new loaders, other global random states."""
    torch.manual_seed(id(loss) % 1000)
    tickets = found(
        built(network), shuffled_groups(network), loss, run_folder=folder,
        **{"optimizer": adam, **others},
    )  # fmt: skip
    assert isinstance(tickets, TicketSet)
    return tickets


def check_every_cut(network: Network, tmp_path: Path, cuts: range, **others: Any) -> None:
    whole = run(network, tmp_path / "whole", Interrupting(), **others)
    expected = files_of(tmp_path / "whole")
    assert len(expected) == 2 + ROUNDS * 2
    for at in cuts:
        folder = tmp_path / f"cut-{at}"
        with pytest.raises(KeyboardInterrupt):
            run(network, folder, Interrupting(at), **others)
        resumed = Interrupting()
        tickets = run(network, folder, resumed, **others)
        assert resumed.calls == CALLS - (at - 1) // STEPS * STEPS, "finished rounds are kept"
        assert files_of(folder) == expected
        assert tickets.history == whole.history
        assert same_bits(ticket_tensors(tickets), ticket_tensors(whole))


def test_cut_at_every_single_step(tmp_path: Path) -> None:
    check_every_cut(MLP, tmp_path, range(1, CALLS + 1))


@pytest.mark.parametrize("network", [n for n in ZOO if n.name != "mlp"], ids=str)
def test_cut_at_every_round_and_group(network: Network, tmp_path: Path) -> None:
    check_every_cut(network, tmp_path, range(1, CALLS + 1, STEPS))


def test_cut_with_random_importance_and_dropout(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 3))

    network = Network("dropout", build, MLP.inputs, False)
    check_every_cut(network, tmp_path, range(1, CALLS + 1, STEPS), importance="random")


def test_cut_again_and_again(tmp_path: Path) -> None:
    run(CONV, tmp_path / "whole", Interrupting())
    for done in range(ROUNDS * 2):
        rounds = list((tmp_path / "cut").rglob("round-*"))
        assert len(rounds) == done
        with pytest.raises(KeyboardInterrupt):  # one (round, group) further every time
            run(CONV, tmp_path / "cut", Interrupting(at=STEPS + 1 if done < 3 else STEPS))
    run(CONV, tmp_path / "cut", Interrupting())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_finished_folder_returns_its_result_without_training(tmp_path: Path) -> None:
    first = run(CONV, tmp_path, Interrupting())
    before, untouched = files_of(tmp_path), Interrupting(at=1)
    model = built(CONV).eval()
    again = found(model, shuffled_groups(CONV), untouched, optimizer=adam, run_folder=tmp_path)
    assert untouched.calls == 0
    assert same_bits(ticket_tensors(again), ticket_tensors(first))
    assert (again.history, again.schedule) == (first.history, first.schedule)
    assert (again.theta_0, again.structure) == (first.theta_0, first.structure)
    assert files_of(tmp_path) == before
    assert same_bits(tensors_of(model), tensors_of(built(CONV)))


def test_a_run_folder_changes_nothing_in_the_result(tmp_path: Path) -> None:
    kept = run(CONV, tmp_path, Interrupting())
    loose = found(built(CONV), shuffled_groups(CONV), optimizer=adam)
    assert same_bits(ticket_tensors(kept), ticket_tensors(loose))
    assert kept.history == loose.history
    loose.save(tmp_path / "loose.safetensors")
    saved = (tmp_path / "discover" / "tickets.safetensors").read_bytes()
    assert (tmp_path / "loose.safetensors").read_bytes() == saved


def test_times_are_in_the_log_alone(tmp_path: Path) -> None:
    run(MLP, tmp_path, Interrupting())
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    of_a_round = ["round", "round", "compared", "compared"]
    assert [event["event"] for event in events] == ["started", *of_a_round, *of_a_round, "finished"]
    assert all(event["stage"] == "discover" and event["time"] > 1e9 for event in events)
    assert all(event["seconds"] > 0 for event in events if event["event"] == "round")
    for name, content in files_of(tmp_path).items():
        assert b"seconds" not in content, name
        assert b'"time"' not in content, name


def wider() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))


def with_buffer(value: float) -> nn.Module:
    model = built(CONV)
    with torch.no_grad():
        model[1].running_mean.fill_(value)
    return model


def sum_of_squares(model: Any, batch: Any) -> torch.Tensor:
    return model(batch[0]).square().sum()


def scheduled(gamma: float) -> Any:
    def factory(params: Any) -> Any:
        optimizer = sgd(params)
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma)

    return factory


CHANGES: dict[str, dict[str, Any]] = {
    "schedule": {"schedule": LinearSchedule(0.6, rounds=2)},
    "schedule ": {"schedule": GeometricSchedule(0.61, rounds=2)},
    "optimizer": {"optimizer": adam},
    "optimizer ": {"optimizer": lambda params: torch.optim.SGD(params, 0.2, momentum=0.9)},
    "optimizer  ": {"optimizer": scheduled(0.9)},
    "steps": {"steps": 3},
    "floor": {"floor": 0.3},
    "prunable": {"prunable": ["2.weight", "0.weight", "2.bias"]},
    "rewind_to": {"rewind_to": 1},
    "seed": {"seed": 1},
    "importance": {"importance": "random"},
    "loss": {"loss": sum_of_squares},
    "groups": {"groups": named_groups(MLP, a=2, c=2)},
    "groups ": {"groups": named_groups(MLP, a=2, b=3)},
    "groups  ": {"groups": named_groups(MLP, b=2, a=2)},
    "model": {"model": wider()},
    "theta_0": {"model": built(MLP, seed=1)},
}


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize("name", CHANGES)
def test_other_arguments_are_refused_by_name(name: str, finished: bool, tmp_path: Path) -> None:
    def call(at: int | None = None, **changes: Any) -> None:
        arguments = {
            "model": built(MLP), "groups": named_groups(MLP), "loss": Interrupting(at), **changes,
        }  # fmt: skip
        found(run_folder=tmp_path, **arguments)

    if finished:
        call()
    else:
        with pytest.raises(KeyboardInterrupt):
            call(at=3)
    before, argument = files_of(tmp_path), name.strip()
    entry = rf"{argument}(?:\.[^ =]+)?"
    message = rf"was made with {entry}=.*, this call has {entry}=.*another run_folder, or the"
    with pytest.raises(RunFolderMismatch, match=message):
        call(**CHANGES[name])
    assert files_of(tmp_path) == before
    call()


def test_another_learning_rate_schedule_is_refused(tmp_path: Path) -> None:
    found(built(MLP), named_groups(MLP), optimizer=scheduled(0.9), run_folder=tmp_path)
    found(built(MLP), named_groups(MLP), optimizer=scheduled(0.9), run_folder=tmp_path)
    with pytest.raises(
        RunFolderMismatch,
        match=r"made with optimizer\.scheduler\.settings\.gamma=",
    ):
        found(built(MLP), named_groups(MLP), optimizer=scheduled(0.8), run_folder=tmp_path)


class Powered:
    """An importance with a setting, kept in a slot or as an attribute."""

    __slots__ = ("exponent",)
    needs_gradients = False

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def scores(self, values: Any, gradients: Any) -> Any:
        return {name: value.abs() ** self.exponent for name, value in values.items()}


class Attributed(Powered):
    pass


def test_another_setting_of_the_same_importance_is_refused(tmp_path: Path) -> None:
    found(built(MLP), named_groups(MLP), importance=Powered(1.0), run_folder=tmp_path / "slots")
    other = Attributed(1.0)
    other.shift = 1  # type: ignore[attr-defined]
    found(built(MLP), named_groups(MLP), importance=other, run_folder=tmp_path)
    other.shift = 2  # type: ignore[attr-defined]
    with pytest.raises(RunFolderMismatch, match=r"was made with importance\.shift="):
        found(built(MLP), named_groups(MLP), importance=other, run_folder=tmp_path)


def test_other_buffers_are_refused(tmp_path: Path) -> None:
    found(with_buffer(0.0), named_groups(CONV), run_folder=tmp_path)
    with pytest.raises(RunFolderMismatch, match="was made with buffers="):
        found(with_buffer(1.0), named_groups(CONV), run_folder=tmp_path)


def test_epochs_that_come_to_the_same_steps_are_the_same_call(tmp_path: Path) -> None:
    found(built(MLP), named_groups(MLP), steps=2, run_folder=tmp_path)
    loss = Interrupting()
    with pytest.raises(RunFolderMismatch, match="was made with loss="):
        found(built(MLP), named_groups(MLP), loss, epochs=1, run_folder=tmp_path)
    found(built(MLP), named_groups(MLP), epochs=1, run_folder=tmp_path)


FILES = ["tickets.safetensors", "round-0001-group-0001.safetensors", "arguments.json"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(name: str, damage: str, tmp_path: Path) -> None:
    run(MLP, tmp_path, Interrupting())
    if name != "tickets.safetensors":  # the finished result makes the others unnecessary
        (tmp_path / "discover" / "tickets.safetensors").unlink()
    path = tmp_path / "discover" / name
    content = path.read_bytes()
    changed = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "empty": b"",
        "foreign": b"\x80\x04K\x01.",  # a pickle
    }[damage]
    path.write_bytes(changed)
    loss = Interrupting()
    with pytest.raises((DamagedFile, RunFolderMismatch), match=re.escape(str(tmp_path))) as caught:
        run(MLP, tmp_path, loss)
    assert isinstance(caught.value, ValueError)
    assert loss.calls == 0
    path.write_bytes(content)
    run(MLP, tmp_path, loss)
    assert loss.calls == 0


def test_a_round_of_another_run_is_refused(tmp_path: Path) -> None:
    run(MLP, tmp_path, Interrupting())
    folder = RunFolder(tmp_path, "discover")
    folder.tickets.unlink()
    tickets = TicketSet.load(folder.round_ticket(1, 1))
    for wrong in (TicketSet.load(folder.round_ticket(1, 0)), TicketSet(list(tickets.values()))):
        wrong.save(folder.round_ticket(1, 1))
        with pytest.raises(StructureMismatch, match="does not belong to this run: delete it"):
            run(MLP, tmp_path, Interrupting())


def test_half_written_files_of_a_killed_process_do_no_harm(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(MLP, tmp_path / "cut", Interrupting(at=3))
    half = tmp_path / "cut" / "discover" / ".round-0001-group-0001.safetensors.1.tmp"
    half.write_bytes(b"half")
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"time": 1')
    run(MLP, tmp_path / "cut", Interrupting())
    run(MLP, tmp_path / "whole", Interrupting())
    half.unlink(missing_ok=True)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
