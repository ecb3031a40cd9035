"""NNI's pruners train under Lightning 2, from either package, and leave nothing behind."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch
import nni
import pytest
import torch
from torch import Tensor, nn

from rtl_nni.host import quiet
from rtl_nni.lightning_evaluator import LightningEvaluator
from rtl_plugin.integration_api import InvalidArgument, MissingExtra, PruningFailed
from tests.nni import lightning_models as models

with quiet():
    from nni.compression.pruning import (
        LevelPruner,
        LinearPruner,
        MovementPruner,
        TaylorPruner,
    )
    from nni.compression.utils import evaluator as host_module

CONFIG = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]
PACKAGE = "lightning.pytorch"
FORMS: list[Callable[[list[nn.Parameter]], Any]] = [
    models.single,
    models.listed,
    models.with_config,
    models.with_scheduler,
    models.two_lists,
    models.as_groups,
]

pytestmark = [
    # Workers for 32 samples would only cost time.
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    # Lightning 2.6 uses a class of torch that 2.15 deprecates.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


def evaluator_over(package: str = PACKAGE, seed: int = 0, **keywords: Any) -> LightningEvaluator:
    data_module = nni.trace(models.data(package))(seed=seed)
    return LightningEvaluator(models.trainer(package, **keywords), data_module)


def scheduled(model: Any, evaluator: Any, steps: int = 4) -> Any:
    inner = LevelPruner(model, CONFIG, evaluator)
    return LinearPruner(inner, interval_steps=steps // 2, total_times=2, evaluator=evaluator)


def bound(model: Any, evaluator: LightningEvaluator) -> LightningEvaluator:
    if not evaluator._initialization_complete:
        evaluator._init_optimizer_helpers(model)
    evaluator.bind_model(model)
    return evaluator


def counted_steps(evaluator: LightningEvaluator) -> list[None]:
    steps: list[None] = []
    evaluator.patch_optimizer_step([], [lambda: steps.append(None)])
    return steps


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def density(masks: Any) -> float:
    kept = [targets["weight"] for targets in masks.values()]
    return float(sum(m.sum() for m in kept) / sum(m.numel() for m in kept))


def methods_on(model: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(model).items() if callable(value)}


def unmoved(before: dict[str, Tensor], model: nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if torch.equal(before[name], value)]


@pytest.mark.parametrize("limits", [(4, None), (None, 1)], ids=["steps", "epochs"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("package", models.PACKAGES)
def test_a_scheduled_pruner_reaches_its_ratio(
    package: str,
    form: Callable[[list[nn.Parameter]], Any],
    limits: tuple[int | None, int | None],
) -> None:
    model = models.net(package, form)
    before = weights_of(model)
    evaluator = evaluator_over(package)
    pruner = scheduled(model, evaluator)
    pruner.compress(*limits)
    pruner.unwrap_model()
    assert density(pruner.get_masks()) == pytest.approx(0.5, abs=0.01)
    assert unmoved(before, model) == []
    assert evaluator.model is None


@pytest.mark.parametrize("package", models.PACKAGES)
@pytest.mark.parametrize("form", FORMS)
def test_a_pruner_that_counts_steps_itself_reaches_its_ratio(
    package: str, form: Callable[[list[nn.Parameter]], Any]
) -> None:
    model = models.net(package, form)
    before = weights_of(model)
    pruner = TaylorPruner(model, CONFIG, evaluator_over(package), training_steps=6)
    _, masks = pruner.compress()
    pruner.unwrap_model()
    assert density(masks) == pytest.approx(0.5, abs=0.01)
    assert unmoved(before, model) == []


def test_movement_scores_see_the_gradients_of_their_own_step() -> None:
    model = models.net(PACKAGE)
    pruner = MovementPruner(
        model, [{"op_names": ["head"], "sparse_ratio": 0.5}], evaluator_over(), 2, 6
    )
    pruner.compress(8, None)
    assert density(pruner.get_masks()) == pytest.approx(0.5, abs=0.01)
    evaluator = bound(models.net(PACKAGE), evaluator_over())
    weight = evaluator.model.head.weight
    seen: list[bool] = []
    evaluator.patch_optimizer_step([lambda: seen.append(weight.grad is not None)], [])
    evaluator.train(max_steps=2)
    assert seen == [True, True]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_exactly_so_many_steps_run(steps: int) -> None:
    # The trainer's own limits are for fine-tuning, and must not shorten what a pruner asks.
    evaluator = bound(models.net(PACKAGE), evaluator_over(max_epochs=1, max_steps=2))
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=steps)
    assert len(taken) == steps


def test_exactly_so_many_epochs_run() -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over(max_epochs=7, max_steps=2))
    taken = counted_steps(evaluator)
    evaluator.train(max_epochs=3)
    assert len(taken) == 3 * models.BATCHES


@pytest.mark.parametrize(("epochs", "expected"), [(1, models.BATCHES), (2, 6)])
def test_of_two_limits_the_first_ends_the_training(epochs: int, expected: int) -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over())
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=6, max_epochs=epochs)
    assert len(taken) == expected


def test_fine_tuning_lasts_as_long_as_the_trainer_says() -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over(max_epochs=2))
    taken = counted_steps(evaluator)
    evaluator.finetune()
    assert len(taken) == 2 * models.BATCHES


def test_accumulated_gradients_are_one_step() -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over(accumulate_grad_batches=2))
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=3)
    assert len(taken) == 3


def test_no_batch_is_seen_before_training() -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over(limit_val_batches=1))
    evaluator.train(max_steps=1)
    assert evaluator.model.validated == 0


def test_with_several_optimizers_the_steps_of_the_first_count() -> None:
    def two(parameters: list[nn.Parameter]) -> Any:
        return [models.single(parameters[:2]), models.single(parameters[2:])]

    model = models.net(PACKAGE, two)
    model.automatic_optimization = False
    plain = model.training_step

    def manual_step(batch: Any, batch_idx: int) -> None:
        for optimizer in model.optimizers():
            optimizer.zero_grad()
        model.manual_backward(plain(batch, batch_idx))
        for optimizer in model.optimizers():
            optimizer.step()

    model.training_step = manual_step
    evaluator = bound(model, evaluator_over())
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=3)
    evaluator.train(max_steps=5)
    assert len(taken) == 3 + 5
    assert len(evaluator._tasks.after) == 1, "what stops a training ends with it"


def test_the_model_gets_its_own_methods_back() -> None:
    model = models.net(PACKAGE)
    own = methods_on(model)
    evaluator = bound(model, evaluator_over())
    evaluator.patch_loss(lambda loss, _: loss)
    evaluator.patch_optimizer_step([], [])
    evaluator.train(max_steps=1)
    assert model._trainer is None
    evaluator.unbind_model()
    assert methods_on(model) == own
    assert evaluator.data_module.trainer is None


def test_a_method_that_the_user_set_on_the_model_comes_back() -> None:
    model = models.net(PACKAGE)
    mine = model.training_step
    model.training_step = mine
    evaluator = bound(model, evaluator_over())
    evaluator.patch_loss(lambda loss, _: loss)
    assert model.training_step is not mine
    evaluator.unbind_model()
    assert vars(model)["training_step"] is mine


def test_a_crash_leaves_nothing_patched_and_the_evaluator_usable() -> None:
    model = models.net(PACKAGE)
    own = methods_on(model)
    evaluator = evaluator_over()
    bound(model, evaluator)

    def crash(loss: Tensor, _: Any) -> Tensor:
        raise OSError("disk on fire")

    evaluator.patch_loss(crash)
    tasks = counted_steps(evaluator)
    with pytest.raises(OSError, match="disk on fire"):
        evaluator.train(max_steps=2)
    assert model._trainer is None
    evaluator.unbind_model()
    assert methods_on(model) == own
    pruner = scheduled(model, evaluator)
    pruner.compress(4, None)
    assert density(pruner.get_masks()) == pytest.approx(0.5, abs=0.01)
    assert tasks == []


@pytest.mark.parametrize("package", models.PACKAGES)
def test_nnis_module_is_never_touched(package: str) -> None:
    before = dict(vars(host_module))
    model = models.net(package)
    evaluator = bound(model, evaluator_over(package))
    during: list[bool] = []
    evaluator.patch_optimizer_step(
        [], [lambda: during.append(all(vars(host_module)[n] is v for n, v in before.items()))]
    )
    evaluator.patch_optim_param_group({})
    evaluator.train(max_steps=1)
    evaluator.evaluate()
    evaluator.unbind_model()
    assert during == [True]
    assert all(vars(host_module)[name] is value for name, value in before.items())


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")  # that is the case tested
def test_a_batch_that_the_user_skips_stays_skipped() -> None:
    model = models.net(PACKAGE)
    plain = model.training_step
    model.training_step = lambda batch, batch_idx: plain(batch, batch_idx) if batch_idx else None
    evaluator = bound(model, evaluator_over())
    patched: list[None] = []

    def patch(loss: Tensor, _: Any) -> Tensor:
        patched.append(None)
        return loss

    evaluator.patch_loss(patch)
    evaluator.train(max_epochs=1)
    assert len(patched) == models.BATCHES - 1


@pytest.mark.parametrize("as_dictionary", [False, True])
def test_a_loss_is_patched_for_a_step_without_a_batch_number(as_dictionary: bool) -> None:
    model = models.net(PACKAGE)
    plain = model.training_step

    def training_step(batch: Any) -> Any:
        loss = plain(batch, 0)
        return {"loss": loss, "more": 1} if as_dictionary else loss

    model.training_step = training_step
    before = weights_of(model)
    evaluator = bound(model, evaluator_over())
    evaluator.patch_loss(lambda loss, batch: loss * 0 * batch[0].sum())
    evaluator.train(max_steps=2)
    assert unmoved(before, model) == list(before)


def test_parameters_that_a_compressor_adds_are_trained() -> None:
    model = models.net(PACKAGE)
    evaluator = bound(model, evaluator_over())
    added = nn.Parameter(torch.ones(()))
    evaluator.patch_optim_param_group({"head": [added]})
    evaluator.patch_loss(lambda loss, _: loss * added)
    evaluator.train(max_steps=1)
    assert float(added.detach()) != 1.0
    model = evaluator.model
    evaluator.unbind_model()
    bound(model, evaluator)
    assert len(model.configure_optimizers()[0][0].param_groups[0]["params"]) == 5


@pytest.mark.parametrize("package", models.PACKAGES)
def test_evaluating_gives_the_metric_named_default(package: str) -> None:
    model = models.net(package)
    evaluator = bound(model, evaluator_over(package))
    value, results = evaluator.evaluate()
    data_module = evaluator.data_module
    with torch.no_grad():
        hits = [(model.eval()(x).argmax(1) == y).float() for x, y in data_module.test_dataloader()]
    assert value == pytest.approx(float(torch.cat(hits).mean()))
    assert results == [{"default": value}]
    assert model._trainer is None


def test_evaluating_without_that_metric_gives_none() -> None:
    model = models.net(PACKAGE)
    model.test_step = lambda batch, batch_idx: None
    assert bound(model, evaluator_over()).evaluate() == (None, [{}])


def test_several_rounds_of_one_evaluator_agree() -> None:
    model = models.net(PACKAGE)
    evaluator = evaluator_over()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    rounds = []
    for _ in range(2):
        model.load_state_dict(start)
        pruner = scheduled(model, evaluator)
        pruner.compress(4, None)
        rounds.append(pruner.get_masks())
        pruner.unwrap_model()
    assert all(
        torch.equal(mask, rounds[1][name][target])
        for name, targets in rounds[0].items()
        for target, mask in targets.items()
        if mask is not None
    )


def test_evaluators_that_were_made_before_the_first_pruner_all_train() -> None:
    model = models.net(PACKAGE)
    evaluators = [evaluator_over(seed=seed) for seed in range(3)]
    for evaluator in evaluators:
        evaluator._init_optimizer_helpers(model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for evaluator in evaluators:
        model.load_state_dict(start)
        before = weights_of(model)
        pruner = scheduled(model, evaluator)
        pruner.compress(4, None)
        pruner.unwrap_model()
        assert density(pruner.get_masks()) == pytest.approx(0.5, abs=0.01)
        assert unmoved(before, model) == []


def test_a_scheduler_starts_from_the_rate_that_the_user_gave() -> None:
    def warming_up(parameters: list[nn.Parameter]) -> Any:
        optimizer = models.as_groups(parameters)
        schedule = nni.trace(torch.optim.lr_scheduler.LambdaLR)(optimizer, lambda step: step / 4)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    model = models.net(PACKAGE, warming_up)
    evaluator = bound(model, evaluator_over())
    rates: list[float] = []
    built = model.configure_optimizers()[0][0]
    evaluator.patch_optimizer_step([], [lambda: rates.append(_rate(evaluator))])
    evaluator.train(max_steps=3)
    assert rates == pytest.approx([0.0, 0.05 / 4, 0.1 / 4])
    assert built.param_groups[0]["initial_lr"] == 0.05


def _rate(evaluator: LightningEvaluator) -> float:
    optimizer: Any = evaluator.model.trainer.optimizers[0]
    return float(optimizer.param_groups[0]["lr"])


def test_the_dummy_input_is_the_users_or_a_batch() -> None:
    assert evaluator_over().get_dummy_input()[0].shape == (models.BATCH, 1, 4, 4)
    data_module = nni.trace(models.data(PACKAGE))()
    given = LightningEvaluator(models.trainer(PACKAGE), data_module, dummy_input=7)
    assert given.get_dummy_input() == 7


def test_it_is_an_evaluator_of_nni() -> None:
    assert isinstance(evaluator_over(), host_module.LightningEvaluator)


# --- wrong arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "kind", "message"),
    [
        (None, None, "got builtins.NoneType"),
        (PACKAGE, None, r"expected an object made with nni.trace, got Trainer \(not traced\)"),
    ],
)
def test_a_wrong_trainer_is_refused(package: Any, kind: Any, message: str) -> None:
    trainer = package and lightning.pytorch.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu"
    )
    with pytest.raises(InvalidArgument, match=message):
        LightningEvaluator(trainer, nni.trace(models.data(PACKAGE))())


def test_a_data_module_that_is_not_traced_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"data_module= .* got Data \(not traced\)"):
        LightningEvaluator(models.trainer(PACKAGE), models.data(PACKAGE)())


@pytest.mark.parametrize(("one", "other"), [models.PACKAGES, models.PACKAGES[::-1]])
def test_two_packages_mixed_are_refused(one: str, other: str) -> None:
    with pytest.raises(InvalidArgument, match=f"data_module= must be a {one}.LightningDataModule"):
        LightningEvaluator(models.trainer(one), nni.trace(models.data(other))())
    with pytest.raises(InvalidArgument, match=f"the model must be a {one}.LightningModule"):
        evaluator_over(one)._init_optimizer_helpers(models.net(other))
    evaluator = evaluator_over(one)
    evaluator._init_optimizer_helpers(models.net(one))
    with pytest.raises(InvalidArgument, match=f"the model must be a {one}.LightningModule"):
        evaluator.bind_model(models.net(other))


def test_without_lightning_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtl_nni.lightning_parts.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install lightning"):
        LightningEvaluator(None, None)


def _untraced(parameters: list[nn.Parameter]) -> Any:
    return torch.optim.SGD(parameters, lr=0.1)


def _untraced_scheduler(parameters: list[nn.Parameter]) -> Any:
    optimizer = models.single(parameters)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def _foreign_scheduler(parameters: list[nn.Parameter]) -> Any:
    return [models.single(parameters)], [models.scheduler_for(models.single(parameters))]


def _iterator(parameters: list[nn.Parameter]) -> Any:
    return nni.trace(torch.optim.SGD)(iter(parameters), lr=0.1)


def _strangers(parameters: list[nn.Parameter]) -> Any:
    return models.single([*parameters, nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (_untraced, r"got SGD \(not traced\): make it with nni.trace\(torch.optim.SGD\)"),
        (_untraced_scheduler, r"got StepLR \(not traced\)"),
        (_foreign_scheduler, "StepLR belongs to an optimizer that is not returned"),
        (_iterator, "SGD got its parameters from an iterator"),
        (_strangers, "1 of the 6 parameters of SGD are not those of Net"),
        (lambda _: None, "must return a traced optimizer, several, .* got None"),
        (lambda _: ([], []), "returned no optimizer"),
        (lambda _: {"lr_scheduler": None}, "expected an optimizer .* got NoneType"),
    ],
)
def test_optimizers_that_nni_cannot_build_are_refused(form: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"Net.configure_optimizers.*{message}"):
        evaluator_over()._init_optimizer_helpers(models.net(PACKAGE, form))


def test_without_a_model_it_says_so() -> None:
    evaluator = evaluator_over()
    with pytest.raises(InvalidArgument, match="_init_optimizer_helpers"):
        evaluator.bind_model(models.net(PACKAGE))
    for call in (evaluator.train, evaluator.evaluate):
        with pytest.raises(InvalidArgument, match="has no model"):
            call()
    evaluator.unbind_model()


class _Stops(lightning.pytorch.Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = True


@pytest.mark.parametrize(
    ("keywords", "limits", "message"),
    [
        ({"callbacks": [_Stops()]}, {"max_steps": 3}, "asked for 3 optimizer steps .* after 1:"),
        ({"limit_train_batches": 0}, {"max_epochs": 3}, "at least 1 optimizer steps .* after 0:"),
    ],
)
def test_a_training_that_ends_early_is_an_error(
    keywords: Any, limits: dict[str, int], message: str
) -> None:
    evaluator = bound(models.net(PACKAGE), evaluator_over(**keywords))
    with pytest.raises(PruningFailed, match=message):
        evaluator.train(**limits)


ONLY_LIGHTNING = """
import sys, warnings
sys.modules["pytorch_lightning"] = None  # importing it fails, as where it is not installed
from rtl_nni.host import imported
from rtl_nni.lightning_evaluator import LightningEvaluator
assert "lightning" not in sys.modules
from tests.nni import lightning_models as models
import nni
warnings.simplefilter("ignore")
model = models.net("lightning.pytorch")
data_module = nni.trace(models.data("lightning.pytorch"))()
evaluator = LightningEvaluator(models.trainer("lightning.pytorch"), data_module)
pruner = imported("nni.compression.pruning").TaylorPruner(
    model, [{"op_types": ["Linear"], "sparse_ratio": 0.5}], evaluator, training_steps=2)
print("density", pruner.compress()[1]["head"]["weight"].mean().item())
host = imported("nni.compression.utils.evaluator")
print("untouched", not hasattr(host, "pl") and not host.LIGHTNING_INSTALLED)
"""


def test_lightning_alone_is_enough_and_is_not_imported_before_it_is_used() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ONLY_LIGHTNING],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'integrations'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "density 0.5" in done.stdout, done.stderr
    assert "untouched True" in done.stdout
