"""``rtl-plugin inspect``."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rtl_plugin import GeometricSchedule, MixtureOfMasks, Ticket, TicketSet, discover, retrain
from rtl_plugin.cli import main
from tests.cli import toy_task
from tests.mixture.plain_loop import random_tickets


@pytest.fixture
def found(tmp_path: Path) -> TicketSet:
    task = toy_task.task()
    torch.manual_seed(0)
    return discover(
        toy_task.build_model(),
        task.groups,
        task.loss,
        schedule=GeometricSchedule(0.5, rounds=2),
        steps=2,
        optimizer=task.optimizer,
    )


def test_a_ticket_file(
    found: TicketSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tickets.safetensors"
    found.save(path)
    assert main(["inspect", str(path)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert f"{path}: tickets file, {path.stat().st_size:,} bytes, checksum right" in output.out
    assert found.summary() in output.out
    assert "masked parameters: 0.weight, 3.weight" in output.out
    assert "4 rows of history" in output.out
    assert f"theta_0: {found.theta_0}" in output.out
    assert "shared weights" not in output.out


def test_a_ticket_file_as_json(
    found: TicketSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tickets.safetensors"
    found.save(path)
    assert main(["inspect", str(path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["kind"] == "tickets"
    assert [t["name"] for t in content["tickets"]] == ["low", "high"]
    assert [t["kept"] for t in content["tickets"]] == [48, 48]
    assert [t["density"] for t in content["tickets"]] == [0.5, 0.5]
    assert content["tickets"][0]["state"] == list(found["low"].state)
    assert content["parameters"] == {"0.weight": [8, 4], "3.weight": [8, 8]}
    assert content["active_parameters"] == found.active_parameters()
    assert content["similarity"][0][1] == pytest.approx(found.similarity()[0, 1])
    assert content["schedule"] == found.schedule
    assert content["history"] == found.history
    assert content["fingerprint"] == {"structure": found.structure, "theta_0": found.theta_0}
    assert content["weights"] == []


def test_a_mixture_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = toy_task.build_model()
    path = tmp_path / "mixture.safetensors"
    MixtureOfMasks(model, random_tickets(model)).save(path)
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "mixture file" in text
    assert f"shared weights: {len(model.state_dict())} tensors" in text
    assert "theta_0: unknown" in text
    assert "schedule: none recorded; 0 rows of history" in text
    assert main(["inspect", str(path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["kind"] == "mixture"
    assert sorted(content["weights"]) == sorted(model.state_dict())
    assert content["schedule"] is None


def test_one_ticket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one"
    TicketSet([Ticket("only", {"w": torch.tensor([True, False])})]).save(path)
    assert main(["inspect", str(path)]) == 0
    assert "only" in capsys.readouterr().out
    assert main(["inspect", str(path), "--json"]) == 0
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text)["similarity"] == [[1.0]]


def test_damaged_foreign_and_missing_files(
    found: TicketSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tickets.safetensors"
    found.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-10] ^= 1
    cases = {
        b"": "is not a readable file of rtl-plugin",
        whole[: len(whole) // 2]: "is not a readable",
        bytes(flipped): "SHA-256 does not match",
        safetensors.torch.save({"w": torch.zeros(1)}): "is not a file of rtl-plugin",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        for json_wanted in ([], ["--json"]):
            assert main(["inspect", str(path), *json_wanted]) == 1
            output = capsys.readouterr()
            assert message in output.err
            assert str(path) in output.err
            assert output.out == ""
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == f"rtl-plugin: no such file: {tmp_path / 'nowhere'}\n"
    assert main(["inspect", str(tmp_path)]) == 1
    assert "is a folder, expected a file" in capsys.readouterr().err


def test_other_files_of_a_run_folder_are_named_for_what_they_are(
    found: TicketSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = toy_task.task()
    torch.manual_seed(0)
    model = toy_task.build_model()
    retrain(
        model,
        found,
        task.groups,
        task.loss,
        epochs=1,
        optimizer=task.optimizer,
        run_folder=tmp_path,
    )
    folder = tmp_path / "retrain"
    assert main(["inspect", str(folder / "checkpoint.safetensors")]) == 1
    message = capsys.readouterr().err
    assert "is a retraining checkpoint of a run folder: inspect reads files of Tick" in message
    assert main(["inspect", str(folder / "tickets.safetensors")]) == 0
