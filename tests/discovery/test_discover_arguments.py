"""What discover refuses before it trains, and that it names the argument and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from rtl_plugin import DataGroups, GeometricSchedule, discover
from rtl_plugin.errors import (
    InvalidArgument,
    InvalidGroups,
    NothingPrunable,
    RtlError,
    UnsupportedOptimizer,
)
from tests.discovery.setups import (
    MLP,
    Interrupting,
    built,
    cross_entropy,
    files_of,
    found,
    named_groups,
    sgd,
)
from tests.models import ZOO, Network


def refused(
    error: type[Exception], message: str, model: nn.Module | None = None, **arguments: Any
) -> None:
    """The call is refused without a single step."""
    loss = Interrupting()
    with pytest.raises(error, match=message) as caught:
        found(model or built(MLP), named_groups(MLP), loss, **arguments)
    assert isinstance(caught.value, RtlError)
    assert loss.calls == 0


@pytest.mark.parametrize("given", [{"a": [1]}, [1], None])
def test_groups_must_be_data_groups(given: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"groups must be DataGroups, got .*from_loaders"):
        found(built(MLP), given)


def test_model_must_be_a_module() -> None:
    with pytest.raises(InvalidArgument, match=r"model must be a torch\.nn\.Module, got function"):
        found(cross_entropy, named_groups(MLP))  # type: ignore[arg-type]


def test_loss_must_be_callable() -> None:
    with pytest.raises(
        InvalidArgument, match=r"loss must be callable as loss\(model, batch\), got"
    ):
        found(built(MLP), named_groups(MLP), loss=None)


@pytest.mark.parametrize("schedule", [0.5, GeometricSchedule, lambda ratio, steps: [0.5], None])
def test_schedule_must_be_one(schedule: Any) -> None:
    refused(InvalidArgument, "schedule must be a sparsity schedule, got", schedule=schedule)


def test_either_steps_or_epochs() -> None:
    for number in (None, 2):
        loss = Interrupting()
        message = rf"give either steps= .* or epochs=, got steps={number} and epochs={number}"
        with pytest.raises(InvalidArgument, match=message):
            discover(
                built(MLP), named_groups(MLP), loss, schedule=GeometricSchedule(0.5, rounds=1),
                optimizer=sgd, steps=number, epochs=number,
            )  # fmt: skip
        assert loss.calls == 0


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "2"])
def test_steps_and_epochs_are_whole_numbers(number: Any) -> None:
    message = "must be a whole number of at least 1, got"
    refused(InvalidArgument, f"steps {message}", steps=number)
    refused(InvalidArgument, f"epochs {message}", epochs=number)


@pytest.mark.parametrize("seed", [-1, 2.0, True, None])
def test_seed_is_a_whole_number(seed: Any) -> None:
    refused(InvalidArgument, "seed must be a whole number of at least 0, got", seed=seed)


@pytest.mark.parametrize("floor", [1.0, -0.5, float("nan")])
def test_floor_is_a_fraction(floor: float) -> None:
    refused(InvalidArgument, r"floor must be a fraction in \[0, 1\), got", floor=floor)


def test_an_unknown_backend_is_refused_even_before_late_rewinding() -> None:
    refused(InvalidArgument, "unknown backend 'fast': one of auto, sequential", backend="fast")
    refused(InvalidArgument, "unknown backend 'fast'", backend="fast", rewind_to=2)


def test_nothing_prunable() -> None:
    refused(NothingPrunable, "prunable='9.*' matches no parameter", prunable="9.*")
    refused(NothingPrunable, "no parameter of Linear may be pruned: .*classifier", nn.Linear(5, 3))


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_a_frozen_model(network: Network) -> None:
    model = built(network).requires_grad_(False)
    refused(NothingPrunable, "no parameter of .* may be pruned: .*, or unfreeze them", model)


def test_a_partly_frozen_model_prunes_and_trains_the_rest() -> None:
    model = built(MLP)
    model[0].requires_grad_(False)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        parameters = dict(view.named_parameters())
        seen.append(
            (parameters["0.weight"].detach().clone(), parameters["2.bias"].detach().clone())
        )
        return cross_entropy(view, batch)

    tickets = found(model, named_groups(MLP), loss)
    assert list(tickets.shapes) == ["2.weight"]
    assert all(torch.equal(frozen, model[0].weight) for frozen, _ in seen)
    assert not torch.equal(seen[0][1], seen[1][1])


def test_the_meta_device() -> None:
    with torch.device("meta"):
        model = MLP.build()
    refused(InvalidArgument, "the model is on the meta device and has no values", model)


def test_one_group_is_ordinary_iterative_magnitude_pruning() -> None:
    tickets = found(built(MLP), named_groups(MLP, all=2))
    assert tickets.names == ("all",)
    assert tickets["all"].kept == 42
    assert [(row["round"], row["group"]) for row in tickets.history] == [(1, "all"), (2, "all")]


@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_count_passes_over_each_group(epochs: int) -> None:
    calls = {"a": 0, "b": 0}

    def loss(view: Any, batch: Any) -> torch.Tensor:
        calls[batch[2]] += 1
        return cross_entropy(view, batch)

    found(built(MLP), named_groups(MLP, a=3, b=2), loss, epochs=epochs)
    assert calls == {"a": 2 * epochs * 3, "b": 2 * epochs * 2}


def test_steps_cycle_a_loader_that_is_shorter() -> None:
    seen: list[torch.Tensor] = []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        seen.append(batch[0])
        return cross_entropy(view, batch)

    found(built(MLP), named_groups(MLP, a=2), loss, steps=5, schedule=GeometricSchedule(0.5, 1))
    assert [next(i for i in (0, 1) if torch.equal(x, seen[i])) for x in seen] == [0, 1, 0, 1, 0]


BUILT: dict[str, tuple[Any, str]] = {
    "an optimizer": (torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1),
                     r"callable params -> torch\.optim\.Optimizer, got SGD: write lambda params"),
    "nothing": (lambda params: None, "it returned NoneType"),
    "junk": (lambda params: "sgd", "it returned str"),
    "a triple": (lambda params: (sgd(params), None, None), "it returned tuple"),
    "two optimizers": (lambda params: (sgd(params), sgd(params)),
                       "a pair with SGD, expected a learning-rate scheduler"),
    "swapped": (lambda params: (ExponentialLR(sgd(params), 1), sgd(params)),
                "it returned ExponentialLR"),
    "a plateau": (lambda params: (lambda o: (o, ReduceLROnPlateau(o)))(sgd(params)),
                  "ReduceLROnPlateau needs a metric at every step"),
    "too few": (lambda params: sgd(params[1:]), r"leaves prunable parameters out: \['0\.weight'\]"),
    "foreign": (lambda params: sgd([*params, nn.Parameter(torch.ones(1))]),
                "must optimise the parameters it is given and no others: write"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BUILT)
def test_what_the_optimizer_factory_returns(kind: str, tmp_path: Path) -> None:
    factory, message = BUILT[kind]
    refused(InvalidArgument, message, optimizer=factory)
    refused(InvalidArgument, message, optimizer=factory, run_folder=tmp_path)
    assert files_of(tmp_path) == {}, "a call that is refused leaves nothing to resume"


def test_an_optimizer_over_the_models_own_parameters() -> None:
    model = built(MLP)
    refused(
        InvalidArgument, r"no others: write lambda params: .* not \.\.\. model\.parameters\(\)",
        model, optimizer=lambda params: sgd(model.parameters()),
    )  # fmt: skip


def test_lbfgs_is_refused_by_name() -> None:
    refused(
        UnsupportedOptimizer, "LBFGS mixes all weights in one update", optimizer=torch.optim.LBFGS
    )


def test_a_dense_parameter_may_stay_out_of_the_optimizer() -> None:
    seen: list[torch.Tensor] = []

    def loss(view: Any, batch: Any) -> torch.Tensor:
        seen.append(dict(view.named_parameters())["4.bias"].detach().clone())
        return cross_entropy(view, batch)

    found(built(MLP), named_groups(MLP), loss, optimizer=lambda params: sgd(params[:-1]))
    assert all(torch.equal(value, seen[0]) for value in seen)


def test_a_group_without_batches_that_only_a_pass_can_tell() -> None:
    class Empty:
        def __iter__(self) -> Any:
            return iter(())

    groups = DataGroups.from_loaders({"a": Empty()})
    with pytest.raises(InvalidGroups, match="is empty, expected at least one batch"):
        found(built(MLP), groups, epochs=1)
    with pytest.raises(InvalidGroups, match="pass 1 over a loader gave no batch: is it one-shot"):
        found(built(MLP), groups, steps=1)


def test_steps_need_no_end_of_the_data() -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield from named_groups(MLP)["a"].train

    assert found(built(MLP), DataGroups.from_loaders({"a": Endless()}), steps=3)["a"].kept == 42


def test_batches_of_any_nesting_reach_the_loss_as_they_are() -> None:
    batch = {"x": [torch.randn(4, 5)], "y": (torch.randint(3, (4,)), "note"), "none": None}
    seen: list[Any] = []

    def loss(view: Any, given: Any) -> torch.Tensor:
        seen.append(given)
        return cross_entropy(view, (given["x"][0], given["y"][0]))

    found(built(MLP), DataGroups.from_loaders({"a": [batch]}), loss)
    assert seen[0].keys() == batch.keys()
    assert seen[0]["y"][1] == "note"
