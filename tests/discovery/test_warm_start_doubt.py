"""Runs that read what others cannot see: they train, unless somebody vouches for them."""

import functools
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin import DataGroups
from rtl_plugin.discovery import WarmStart
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.tasks import digits
from tests.discovery.search_runs import Search, geometric, mean_output, measured_groups
from tests.discovery.setups import MLP, adam, built, named_groups

CONFIG: dict[str, Any] = {"warm_up": 2, "beta": 0.0, "rounds": 3}
COUNT: dict[str, int] = {"losses": 0}
LOCK = threading.Lock()
ALIVE: list[torch.Tensor] = []


def scheduled(params: Any) -> Any:
    optimizer = torch.optim.Adam(params, 0.1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if step < CONFIG["warm_up"] else 0.0
    )


def locked(model: Any, batch: Any) -> torch.Tensor:
    with LOCK:
        return F.cross_entropy(model(batch[0]), batch[1])


def counting(model: Any, batch: Any) -> torch.Tensor:
    COUNT["losses"] += 1
    return F.cross_entropy(model(batch[0]), batch[1]) / COUNT["losses"]


class Signed(torch.optim.SGD):
    """An optimizer of the user's own."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.sign_()
        return super().step(closure)


def hidden_optimizer(power: float) -> Any:
    """Its rule is where nobody can look; what it does shows."""

    class Rule(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(hidden())
            return super().step(closure)

    ALIVE.append(torch.tensor(power))
    hidden = weakref.ref(ALIVE[-1])
    return lambda params: Rule(params, 0.1)


def pairs() -> DataGroups:
    """Batches of inputs and labels, and nothing else."""
    batches = {name: [b[:2] for b in group.train] for name, group in named_groups(MLP).items()}
    return DataGroups.from_loaders(batches)


ORDINARY: dict[str, dict[str, Any]] = {
    "digits": {"loss": digits.cross_entropy, "optimizer": digits.adam, "groups": pairs},
    "partial": {"optimizer": functools.partial(torch.optim.SGD, lr=0.1)},
    "own optimizer": {"optimizer": lambda params: Signed(params, 0.1)},
    "scheduler": {"optimizer": scheduled},
    "adam": {"optimizer": adam},
    "metric": {"evaluate": torch.no_grad()(mean_output), "groups": lambda: measured_groups(MLP)},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_code_shares_without_a_word(name: str, tmp_path: Path) -> None:
    search = Search(tmp_path, network=MLP, **ORDINARY[name])
    search.run("donor", schedule=geometric(2))
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert {(r, g) for r in (1, 2) for g in "ab"} <= search.taken("warm").keys()
    assert search.events("warm", "passed_over") == []


def test_another_setting_in_a_dict_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path, network=MLP, optimizer=scheduled)
    search.run("donor")
    monkeypatch.setitem(CONFIG, "rounds", 4)
    search.run("alike", ["donor"])
    assert len(search.taken("alike")) == 6, "nobody reads the rounds"
    monkeypatch.setitem(CONFIG, "warm_up", 9)
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert search.taken("warm") == {}
    assert "code.optimizer=" in search.reasons("warm")


def test_an_edited_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, network=MLP, optimizer=lambda params: Signed(params, 0.1))
    search.run("donor")
    monkeypatch.setattr(Signed, "step", torch.optim.SGD.step)
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}
    assert "code.optimizer=" in search.reasons("warm")


class Branching(nn.Module):
    """What it does later shows in its code only."""

    def __init__(self) -> None:
        super().__init__()
        self.net = built(MLP)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_an_edited_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, network=MLP, model=Branching)
    search.run("donor")
    search.run("alike", ["donor"])
    assert len(search.taken("alike")) == 6

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.net(x) if len(x) == 1 else self.net(x)

    monkeypatch.setattr(Branching, "forward", forward)
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}
    assert "code.model=" in search.reasons("warm")


@pytest.mark.parametrize(
    ("loss", "told"),
    [(locked, r"loss: LOCK \(a lock\)"), (counting, "loss: it changes what it reads")],
)
def test_doubt_neither_takes_nor_lends(loss: Any, told: str, tmp_path: Path) -> None:
    search = Search(tmp_path, network=MLP, schedule=geometric(2))
    runs = [("donor", []), ("warm", ["donor"])]
    for name, others in runs:
        COUNT["losses"] = 0
        search.run(name, others, loss=loss)
        assert not (tmp_path / name / "discover" / "identity.json").exists()
        (event,) = search.events(name, "passed_over")
        assert event["folder"] == "all others"
        assert re.search(told, event["reason"])
        assert "vouched=True" in event["reason"]
    assert search.taken("warm") == {}


def test_whoever_vouches_shares(tmp_path: Path) -> None:
    search = Search(tmp_path, network=MLP, loss=locked)
    search.run("donor", key="v1", vouched=True)
    search.run("warm", ["donor"], key="v1", vouched=True)
    search.check_same_bytes("warm", "donor")
    assert len(search.taken("warm")) == 6
    search.run("other", ["donor"], key="v2", vouched=True)
    assert search.taken("other") == {}
    search.run("careful", ["donor"], key="v1")
    assert search.taken("careful") == {}


def test_a_run_that_goes_on_without_the_vouching_goes_on_alone(tmp_path: Path) -> None:
    search = Search(tmp_path, network=MLP, loss=locked)
    search.run("run", vouched=True)
    search.run("run")
    assert not (tmp_path / "run" / "discover" / "identity.json").exists()
    search.run("warm", ["run"], vouched=True)
    assert search.taken("warm") == {}


def test_two_steps_show_what_the_code_does_not(tmp_path: Path) -> None:
    """Also where somebody vouched: what came out differs."""
    search = Search(tmp_path, network=MLP, schedule=geometric(2))
    search.run("donor", optimizer=hidden_optimizer(1.0), vouched=True)
    search.run("alike", ["donor"], optimizer=hidden_optimizer(1.0), vouched=True)
    search.run("warm", ["donor"], optimizer=hidden_optimizer(2.0), vouched=True)
    assert len(search.taken("alike")) == 4
    assert search.taken("warm") == {}
    assert "rehearsal." in search.reasons("warm")


def test_vouching_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="vouched must be True or False, got 1"):
        WarmStart([], vouched=1)  # type: ignore[arg-type]
