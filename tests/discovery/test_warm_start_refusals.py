"""What differs in anything that decides a round is trained, not taken over."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rtl_plugin import CollapseRule, DataGroups
from rtl_plugin.discovery import identity
from rtl_plugin.errors import InvalidArgument
from tests.discovery.search_runs import (
    LOOKS,
    REHEARSED,
    Search,
    geometric,
    mean_output,
    measured_groups,
    other_values,
)
from tests.discovery.setups import CONV, MLP, adam, built, named_groups, shuffled_groups


def smoothed(amount: float) -> Callable[[Any, Any], torch.Tensor]:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=amount)

    return loss


def same(x: Any) -> Any:
    return x


def twice(x: Any) -> Any:
    return 2 * x


def through(helper: Any) -> Any:
    """A loss that reaches its helper where nobody can look."""
    hidden = weakref.ref(helper)

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return F.cross_entropy(hidden()(model(batch[0])), batch[1])

    return loss


def measured_through(helper: Any) -> Any:
    """A metric that reaches its helper where nobody can look."""
    hidden = weakref.ref(helper)
    return lambda model, batches: hidden()(mean_output(model, batches))


class Tempered(nn.Module):
    """Its temperature is in no parameter, in no buffer, and not in what it prints."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = built(CONV), temperature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) / self.temperature


def with_epsilon(epsilon: float) -> nn.Module:
    model = built(CONV)
    model[1].eps = epsilon  # type: ignore[index, union-attr]
    return model


def warming_up(steps: int) -> Any:
    def factory(params: Any) -> Any:
        optimizer = torch.optim.SGD(params, 0.1)
        later = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / steps))
        return optimizer, later

    return factory


class Power:
    """An importance with a setting."""

    needs_gradients = False

    def __init__(self, exponent: float) -> None:
        self.exponent = torch.tensor(exponent)

    def scores(self, values: Any, gradients: Any) -> Any:
        return {name: value.abs() ** self.exponent for name, value in values.items()}


def above(threshold: float) -> Any:
    def fraction_above(model: Any, batches: Iterable[Any]) -> float:
        above = [(model(x) > threshold).float().mean() for x, *_ in batches]
        return float(torch.stack(above).mean())

    return fraction_above


def changed(split: str, part: int, at: int) -> Callable[[], DataGroups]:
    return lambda: other_values(measured_groups(), split, part, at)


MEASURED: dict[str, Any] = {"groups": measured_groups, "evaluate": mean_output}
# Name of a test -> settings of the donor and of us, and the entry that tells them apart.
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "seed": ({}, {"seed": 1}, "seed=0"),
    "steps": ({}, {"steps": 3}, "steps.a=2"),
    "floor": ({}, {"floor": 0.3}, "floor."),
    "importance": ({}, {"importance": "random"}, "importance.class="),
    "importance's settings": (
        {"importance": Power(2.0)}, {"importance": Power(3.0)}, "code.importance=",
    ),
    "rewind_to": ({"rewind_to": 1}, {"rewind_to": 2}, "rewind_to=1"),
    "optimizer": ({}, {"optimizer": adam}, "optimizer.class='SGD'"),
    "learning rate": (
        {}, {"optimizer": lambda p: torch.optim.SGD(p, 0.2, momentum=0.9)}, "optimizer.groups.",
    ),
    "learning rate schedule": (
        {"optimizer": warming_up(2)}, {"optimizer": warming_up(3)}, "code.optimizer=",
    ),
    "loss": ({"loss": smoothed(0.1)}, {}, "loss="),
    "loss's settings": ({"loss": smoothed(0.1)}, {"loss": smoothed(0.2)}, "code.loss="),
    "loss's helper": (
        {"loss": through(same), "vouched": True}, {"loss": through(twice), "vouched": True},
        "first_loss.a=",
    ),
    "stop rule": ({}, {"stop_before_collapse": CollapseRule(warm_up=1, window=0.1)}, "stop_before"),
    "model's values": ({}, {"model": lambda: built(CONV, seed=1)}, "theta_0="),
    "model's modules": ({}, {"model": lambda: with_epsilon(0.1)}, "modules="),
    "model's hidden attributes": (
        {"model": lambda: Tempered(1.0)}, {"model": lambda: Tempered(2.0)}, "first_loss.a=",
    ),
    "metric": (MEASURED, {**MEASURED, "evaluate": above(0.0)}, "evaluate.metric="),
    "no metric": ({"groups": measured_groups}, MEASURED, "evaluate=None"),
    "metric's settings": (
        {**MEASURED, "evaluate": above(-9.0)}, {**MEASURED, "evaluate": above(-8.0)},
        "code.evaluate=",
    ),
    "metric's helper": (
        {**MEASURED, "evaluate": measured_through(same), "vouched": True},
        {**MEASURED, "evaluate": measured_through(twice), "vouched": True}, "first_metric.a=",
    ),
    "samples": (MEASURED, {**MEASURED, "groups": changed("train", 0, 0)}, "data.b="),
    "later samples": (MEASURED, {**MEASURED, "groups": changed("train", 0, 1)}, "data.b="),
    "labels": (MEASURED, {**MEASURED, "groups": changed("train", 1, 0)}, "data.b="),
    "validation samples": (
        MEASURED, {**MEASURED, "groups": changed("validation", 0, 1)}, "held_out.b=",
    ),
    "groups' names": (
        {"groups": lambda: named_groups(CONV)},
        {"groups": lambda: named_groups(CONV, a=2, c=2)}, "groups.",
    ),
    "key": ({"key": {"noise": 0.1}}, {"key": {"noise": 0.2}}, "key.noise=0.1"),
    "number in the key": ({"key": {"noise": 1}}, {"key": {"noise": True}}, "key_as_json="),
    "no key": ({"key": {"noise": 0.1}}, {}, "key={'noise': 0.1}"),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_trained_and_not_taken(name: str, tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(2))
    theirs, ours, reason = DIFFERENCES[name]
    search.run("donor", **theirs)
    search.run("warm", ["donor"], **ours)
    search.run("cold", **ours)
    search.check_same_bytes("warm", "cold")
    assert search.taken("warm") == {}
    assert search.calls["warm"] == search.calls["cold"]
    (told,) = search.events("warm", "passed_over")
    assert told["reason"].startswith(f"it has {reason}"), told["reason"]
    assert Path(told["folder"]).name == "donor"
    search.run("alike", ["donor"], **theirs)
    assert len(search.taken("alike")) >= 4, "the same settings would have been taken over"


REDUCED = torch.backends.cuda.matmul
SWITCHES: dict[str, Any] = {
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "matmul": lambda: torch.set_float32_matmul_precision("high"),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "autocast_dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "cudnn_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "reduced_precision": lambda: setattr(REDUCED, "allow_fp16_reduced_precision_reduction", False),
}


@pytest.fixture
def settings_restored() -> Iterator[None]:
    threads, matmul = torch.get_num_threads(), torch.get_float32_matmul_precision()
    autocast, tf32 = torch.get_autocast_dtype("cpu"), torch.backends.cudnn.allow_tf32
    reduced = REDUCED.allow_fp16_reduced_precision_reduction
    yield
    torch.set_autocast_dtype("cpu", autocast)
    torch.backends.cudnn.allow_tf32 = tf32
    REDUCED.allow_fp16_reduced_precision_reduction = reduced
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(matmul)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("entry", SWITCHES)
@pytest.mark.usefixtures("settings_restored")
def test_another_numerical_setting(entry: str, tmp_path: Path) -> None:
    model, groups = built(MLP), shuffled_groups(MLP)
    search = Search(tmp_path, schedule=geometric(2), model=lambda: model, groups=lambda: groups)
    search.run("donor")
    SWITCHES[entry]()
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}
    assert f"environment.{entry}" in search.reasons("warm")


def test_another_version_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, schedule=geometric(2))
    search.run("donor")
    monkeypatch.setattr(identity, "software_versions", lambda: {"torch": "1.0"})
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}
    assert "environment.versions." in search.reasons("warm")


def test_a_run_without_warm_start_lends_nothing(tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(2))
    search.run("plain", warm_start=None)
    search.run("warm", ["plain"])
    assert search.taken("warm") == {}


def test_a_run_that_went_on_without_warm_start_lends_nothing(tmp_path: Path) -> None:
    """Its first rounds are known, its later ones may have seen other data."""
    search = Search(tmp_path, schedule=geometric(3))
    with pytest.raises(KeyboardInterrupt):
        search.run("donor", dies_at=LOOKS + REHEARSED + 2 * 2 + 1)
    assert (tmp_path / "donor" / "discover" / "identity.json").exists()
    search.run("donor", warm_start=None)
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}


def test_a_run_begun_without_warm_start_goes_on_alone(tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(3))
    search.run("donor")
    with pytest.raises(KeyboardInterrupt):
        search.run("warm", warm_start=None, dies_at=2 * 2 + 1)
    search.run("warm", ["donor"])
    assert search.taken("warm") == {}
    assert "begun without warm_start" in search.reasons("warm")
    assert not (tmp_path / "warm" / "discover" / "identity.json").exists(), "nor does it lend"
    search.run("plain", warm_start=None)
    search.check_same_bytes("warm", "plain")


def test_a_batch_that_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    groups = measured_groups()
    loaders = {
        name: [(*batch, object()) for batch in group.train] for name, group in groups.items()
    }
    search = Search(tmp_path)
    with pytest.raises(InvalidArgument, match="one holds a object, whose content cannot be read"):
        search.run("run", groups=lambda: DataGroups.from_loaders(loaders))
    search.run("plain", groups=lambda: DataGroups.from_loaders(loaders), warm_start=None)


def test_a_metric_fails_before_any_training(tmp_path: Path) -> None:
    search = Search(tmp_path, **{**MEASURED, "evaluate": lambda model, batches: float("nan")})
    with pytest.raises(InvalidArgument, match=r"evaluate.*group 'a'.*finite number"):
        search.run("run")
    assert search.calls["run"] == 2, "the look at the first batches"
