"""A run folder that does not belong to the call, or is damaged: refused by name."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from rtl_plugin.errors import DamagedFile, InvalidArgument, RunFolderMismatch, StructureMismatch
from tests.discovery.setups import (
    MLP,
    NETWORKS,
    Interrupting,
    adam,
    built,
    files_of,
    named_groups,
    random_tickets,
    same_bits,
    shuffled_groups,
    tensors_of,
)
from tests.joint_training.setups import OPTIMIZERS, trained, with_scheduler
from tests.models import Network

EPOCHS = 3


def finished(folder: Path, loss: Any, network: Network = MLP) -> nn.Module:
    """Retrain a fresh model in a folder."""
    model = built(network)
    trained(
        model, random_tickets(model), shuffled_groups(network), loss, epochs=EPOCHS,
        run_folder=folder,
    )  # fmt: skip
    return model


def sum_of_squares(model: Any, batch: Any) -> torch.Tensor:
    return model(batch[0]).square().sum()


CHANGES: dict[str, dict[str, Any]] = {
    "tickets": {"tickets": random_tickets(built(MLP), density=0.4)},
    "groups": {"groups": named_groups(MLP, a=3, b=2)},
    "loss": {"loss": sum_of_squares},
    "optimizer": {"optimizer": adam},
    "optimizer ": {"optimizer": lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.3)},
    "optimizer  ": {
        "optimizer": with_scheduler(OPTIMIZERS["AdamW"], lambda o: CosineAnnealingLR(o, 12))
    },
    "private_parameters": {"private_parameters": ["4.*"]},
    "own_statistics": {"own_statistics": False},
    "epochs": {"epochs": 4},
    "batches_per_epoch": {"batches_per_epoch": 7},
    "seed": {"seed": 3},
}


@pytest.mark.parametrize("state", ["no epoch yet", "unfinished", "finished"])
@pytest.mark.parametrize("name", CHANGES)
def test_other_arguments_are_refused_by_name(name: str, state: str, tmp_path: Path) -> None:
    def call(at: int | None = None, **changes: Any) -> None:
        model = built(MLP)
        arguments = {"model": model, "tickets": random_tickets(model), "epochs": EPOCHS,
                     "groups": named_groups(MLP), "loss": Interrupting(at), **changes}  # fmt: skip
        before = tensors_of(model)
        try:
            trained(run_folder=tmp_path, **arguments)
        except RunFolderMismatch:
            assert same_bits(tensors_of(model), before)
            raise

    if state == "finished":
        call()
    else:
        with pytest.raises(KeyboardInterrupt):
            call(at=1 if state == "no epoch yet" else 5)
    before, argument = files_of(tmp_path), name.strip()
    entry = rf"{argument}(?:\.[^ =]+)?"
    message = rf"was made with {entry}=.*, this call has {entry}=.*another run_folder, or the"
    with pytest.raises(RunFolderMismatch, match=message):
        call(**CHANGES[name])
    assert files_of(tmp_path) == before
    call()


def test_other_weights_or_another_network_are_refused(tmp_path: Path) -> None:
    def call(model: nn.Module, loss: Any) -> None:
        tickets = random_tickets(model, known_weights=False)
        trained(model, tickets, named_groups(MLP), loss, run_folder=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        call(built(MLP), Interrupting(at=1))
    with pytest.raises(RunFolderMismatch, match="made with weights="):
        call(built(MLP, seed=1), Interrupting())
    wide = nn.Sequential(nn.Linear(5, 9), nn.Linear(9, 3))
    with pytest.raises(RunFolderMismatch, match="made with model="):
        call(wide, Interrupting())


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
@pytest.mark.parametrize("name", ["checkpoint.safetensors", "arguments.json"])
def test_a_damaged_file_is_named(name: str, damage: str, tmp_path: Path) -> None:
    whole = finished(tmp_path, Interrupting())
    path = tmp_path / "retrain" / name
    content = path.read_bytes()
    changed = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "empty": b"",
        "foreign": b"\x80\x04K\x01.",  # a pickle
    }[damage]
    path.write_bytes(changed)
    model, loss = built(MLP), Interrupting()
    with pytest.raises((DamagedFile, RunFolderMismatch), match=re.escape(str(tmp_path))):
        trained(model, random_tickets(model), shuffled_groups(MLP), loss, epochs=EPOCHS,
                run_folder=tmp_path)  # fmt: skip
    assert loss.calls == 0
    assert same_bits(tensors_of(model), tensors_of(built(MLP)))
    path.write_bytes(content)
    assert same_bits(tensors_of(finished(tmp_path, loss)), tensors_of(whole))


def test_a_checkpoint_without_its_arguments_is_not_trusted(tmp_path: Path) -> None:
    finished(tmp_path, Interrupting())
    (tmp_path / "retrain" / "arguments.json").unlink()
    with pytest.raises(DamagedFile, match=r"arguments\.json is missing although .* holds results"):
        finished(tmp_path, Interrupting())


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    finished(tmp_path / "a", Interrupting())
    finished(tmp_path / "b", Interrupting(), NETWORKS["transformer"])
    other = (tmp_path / "b" / "retrain" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "a" / "retrain" / "checkpoint.safetensors").write_bytes(other)
    with pytest.raises(StructureMismatch, match="holds the weights of another network: delete it"):
        finished(tmp_path / "a", Interrupting())
    tickets = (tmp_path / "b" / "retrain" / "tickets.safetensors").read_bytes()
    (tmp_path / "a" / "retrain" / "checkpoint.safetensors").write_bytes(tickets)
    with pytest.raises(DamagedFile, match="is a file of format 'rtl-plugin tickets', expected"):
        finished(tmp_path / "a", Interrupting())


def test_state_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["seen"] = {1, 2}

    model = built(MLP)
    with pytest.raises(InvalidArgument, match="holds a set, which a checkpoint cannot keep: leave"):
        trained(model, random_tickets(model), named_groups(MLP), run_folder=tmp_path,
                optimizer=lambda p: Odd(p, 0.1))  # fmt: skip
