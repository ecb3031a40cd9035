"""Nothing carries over from one training to the next, and nothing bad into the results."""

import itertools
import math
from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.compression.pruning import LevelPruner, SlimPruner
from torch import nn

import rtl_nni
import rtl_plugin as rtl
from rtl_nni.group_evaluators import train_on
from rtl_plugin.errors import InvalidArgument, PruningFailed, StructureMismatch, TrainingDiverged
from tests.nni import lightning_models, transformers_models
from tests.nni.networks import (
    CNN,
    L1,
    LEVEL,
    MLP,
    batches,
    cross_entropy,
    evaluators_of,
    pruner_of,
    same_masks,
)
from tests.nni.traits import Before


def tickets_over(model: nn.Module, *names: str) -> rtl.TicketSet:
    """Tickets that keep every second row of the first layer."""
    layer = model.get_submodule("0")
    keep = torch.zeros_like(layer.weight)
    keep[::2] = 1
    return rtl.TicketSet.from_nni({name: {"0": {"weight": keep}} for name in names}, model)


@pytest.mark.parametrize("bad_call", [1, 4])
def test_a_loss_that_becomes_nan_in_a_later_turn_changes_nothing(bad_call: int) -> None:
    model = MLP.build()
    before, calls = Before(model), itertools.count()

    def step(batch: Any, network: nn.Module) -> torch.Tensor:
        loss = cross_entropy(batch, network)
        return loss * math.nan if next(calls) >= bad_call else loss

    evaluators = evaluators_of(MLP, model, "a", training_step=step)
    tickets = tickets_over(model, "a")
    with pytest.raises(TrainingDiverged):
        rtl_nni.retrain(model, tickets, evaluators, turns=3, steps=2)
    before.check()


def test_a_later_turn_that_trains_nothing_is_refused() -> None:
    class Once:
        """Gives its batches the first time only."""

        walks = 0

        def __iter__(self) -> Any:
            self.walks += 1
            return iter(batches(MLP, "a") if self.walks == 1 else [])

    def loop(model: nn.Module, optimizers: Any, step: Any, *_: Any, loader: Any) -> None:
        for batch in loader:
            optimizers.zero_grad()
            step(batch, model).backward()
            optimizers.step()

    model = MLP.build()
    evaluators = evaluators_of(MLP, model, "a", loaders={"a": Once()}, training_func=loop)
    with pytest.raises(PruningFailed, match="did not move"):
        rtl_nni.retrain(model, tickets_over(model, "a"), evaluators, turns=2, epochs=1)


def test_a_group_that_freezes_late_does_not_freeze_the_next() -> None:
    seen: list[list[bool]] = []

    def freezing(model: nn.Module, *given: Any, loader: Any) -> None:
        seen.append([p.requires_grad for p in model.parameters()])
        train_on(model, *given, loader=loader)
        model.requires_grad_(False)

    model = CNN.build()
    evaluators = evaluators_of(CNN, model, training_func=freezing)
    pruner_of(CNN, model, L1, evaluators=evaluators).compress()
    assert all(all(flags) for flags in seen)
    assert all(p.requires_grad for p in model.parameters())


def test_retraining_refuses_tied_parameters() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coder = nn.Linear(4, 4, bias=False)
            self.decoder = nn.Linear(4, 4, bias=False)
            self.decoder.weight = self.coder.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.coder(x))

    model = Tied()
    tickets = rtl.TicketSet([rtl.Ticket("a", {"coder.weight": torch.eye(4).bool()})])
    evaluators = rtl_nni.torch_evaluators(
        model, {"a": [torch.rand(2, 4)]},
        training_step=lambda batch, network: network(batch).square().mean(),
        optimizer=lambda ps: nni.trace(torch.optim.SGD)(ps, lr=0.1),
    )  # fmt: skip
    with pytest.raises(InvalidArgument, match=r"tied.*decoder\.weight"):
        rtl_nni.retrain(model, tickets, evaluators, turns=1, steps=1)


def test_a_late_rewind_point_that_is_not_finite_is_refused() -> None:
    model = MLP.build()
    step = lambda batch, network: cross_entropy(batch, network) * math.nan  # noqa: E731
    evaluators = evaluators_of(MLP, model, training_step=step)
    pruner = pruner_of(MLP, model, LEVEL, 0, evaluators=evaluators, rewind_to=6)
    with pytest.raises(TrainingDiverged):
        pruner.compress()


def test_hooks_with_keywords_come_back_with_their_flags() -> None:
    model = MLP.build()
    hook = model.register_forward_pre_hook(lambda m, args, kw: None, with_kwargs=True)

    def removing(network: nn.Module, *given: Any, loader: Any) -> None:
        hook.remove()
        train_on(network, *given, loader=loader)

    evaluators = evaluators_of(MLP, model, training_func=removing)
    pruner_of(MLP, model, LEVEL, evaluators=evaluators).compress()
    model(MLP.inputs(2))  # the hook would miss its keyword


@pytest.mark.filterwarnings("ignore::rtl_nni.IdenticalTickets")  # few steps of whole channels
def test_after_retraining_a_ticket_is_cut_with_its_own_statistics() -> None:
    model = CNN.build()
    evaluators = evaluators_of(CNN, model, "ab")
    config = [{"op_names": ["0"], "sparse_ratio": 0.5}]
    pruner = pruner_of(CNN, model, L1, 6, evaluators=evaluators, config=config)
    pruner.compress()
    tickets = pruner.tickets
    rtl_nni.retrain(model, tickets, evaluators, turns=3, epochs=1)
    mixture, x = rtl.MixtureOfMasks(model, tickets), CNN.inputs(4)
    given = Before(model)
    for name in "ab":
        report = rtl_nni.speedup_with_report(model, tickets[name], x)
        served = mixture(x, tickets=name)
        assert report.network.get_submodule("0").weight.shape[0] == 4
        gap = (report.network(x) - served).abs().max().item()
        assert gap <= report.from_given + 1e-4
        masks_alone = rtl_nni.speedup(model, tickets.to_nni(name), x)
        assert not torch.allclose(masks_alone(x), report.network(x), atol=1e-3)
    given.check()


def test_dependency_ids_do_not_hide_that_the_classifier_is_matched() -> None:
    model = CNN.build()
    config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]
    with pytest.raises(InvalidArgument, match="outputs of the network"):
        rtl_nni.add_dependency_ids(config, model, CNN.inputs(2))


def test_slim_masks_say_why_they_cut_nothing() -> None:
    model = CNN.build()
    slim = pruner_of(
        CNN, model, L1, pruner=SlimPruner, pruner_options=None,
        config=[{"op_types": ["BatchNorm2d"], "sparse_ratio": 0.5}],
    )  # fmt: skip
    _, masks = slim.compress()
    with pytest.raises(PruningFailed, match="SlimPruner"):
        rtl_nni.speedup(model, masks["a"], CNN.inputs(2))


def test_one_module_under_two_names_is_refused() -> None:
    weight = torch.ones_like(MLP.build().get_submodule("0").weight)
    masks = {"0": {"weight": weight}, "module.0": {"weight": weight}}
    with pytest.raises(StructureMismatch, match="same module"):
        rtl.TicketSet.from_nni(masks, MLP.build())


def test_a_frozen_layer_that_is_ranked_is_noted() -> None:
    model = MLP.build()
    model.get_submodule("0").requires_grad_(False)
    checked = rtl_nni.check([{"op_names": ["0"], "sparse_ratio": 0.5}], model)
    assert checked.rows[0].note.startswith("frozen")


def test_seeds_reach_the_trainer_of_transformers(tmp_path: Path) -> None:
    def masks(seed: int | None, draws: int = 0) -> Any:
        torch.manual_seed(3)
        model = transformers_models.bert()
        evaluators = {
            "a": rtl_nni.TransformersEvaluator(transformers_models.trainer(model, tmp_path))
        }
        torch.manual_seed(draws)
        pruner = rtl_nni.RTLPruner(
            model, [{"op_types": ["Linear"], "exclude_op_names": ["classifier"],
                     "sparse_ratio": 0.5}],
            LevelPruner, evaluators, steps=3, seed=seed, progress=False,
        )  # fmt: skip
        return pruner.compress()[1]["a"]

    assert same_masks(masks(1), masks(1))
    assert not same_masks(masks(1), masks(2))
    assert not same_masks(masks(None, draws=1), masks(None, draws=2))


LIGHTNING_NOISE = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers")  # tiny data, on purpose
    , pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning 2.6 on torch 2.15
    , pytest.mark.filterwarnings("ignore:.*logging interval")
]  # fmt: skip


@pytest.mark.parametrize("package", [pytest.param("lightning.pytorch", marks=LIGHTNING_NOISE)])
def test_an_early_stop_counts_anew_in_every_round(package: str) -> None:
    import lightning.pytorch as pl

    steps: list[int] = []

    class Net(type(lightning_models.net(package))):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("worse", float(self.current_epoch))

        def on_train_end(self) -> None:
            steps.append(self.trainer.global_step)

    stop = pl.callbacks.EarlyStopping("worse", patience=1, check_on_train_epoch_end=True)
    trainer = lightning_models.trainer(package, max_epochs=9, callbacks=[stop])
    data_module = nni.trace(lightning_models.data(package))()
    model = Net()
    evaluators = {"a": rtl_nni.LightningEvaluator(trainer, data_module)}
    rtl_nni.RTLPruner(
        model, [{"op_names": ["conv"], "sparse_ratio": 0.5}], LevelPruner, evaluators,
        schedule=rtl.GeometricSchedule(0.5, rounds=3), epochs=6, progress=False,
    ).compress()  # fmt: skip
    assert len(steps) == 3
    assert len(set(steps)) == 1
