"""NNI's pruners train under the Trainer of transformers 5, and leave nothing behind."""

from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from rtl_nni.host import quiet
from rtl_nni.transformers_evaluator import TransformersEvaluator
from rtl_plugin.integration_api import InvalidArgument, MissingExtra, PruningFailed, forked
from tests.nni import transformers_models as models

with quiet():
    from nni.compression.pruning import LevelPruner, LinearPruner, MovementPruner, TaylorPruner
    from nni.compression.utils import evaluator as host_module

CONFIG = [{"op_types": ["Linear"], "op_names_re": ["bert.encoder.*"], "sparse_ratio": 0.5}]


def evaluator_over(model: nn.Module, folder: Path, **keywords: Any) -> TransformersEvaluator:
    return TransformersEvaluator(models.trainer(model, folder, **keywords))


def bound(model: nn.Module, folder: Path, **keywords: Any) -> TransformersEvaluator:
    evaluator = evaluator_over(model, folder, **keywords)
    evaluator._init_optimizer_helpers(model)
    evaluator.bind_model(model)
    return evaluator


def scheduled(model: Any, evaluator: Any) -> Any:
    return LinearPruner(LevelPruner(model, CONFIG, evaluator), interval_steps=2, total_times=2)


def counted_steps(evaluator: TransformersEvaluator) -> list[None]:
    steps: list[None] = []
    evaluator.patch_optimizer_step([], [lambda: steps.append(None)])
    return steps


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def unmoved(before: dict[str, Tensor], model: nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if torch.equal(before[name], value)]


def density(masks: Any) -> float:
    kept = [targets["weight"] for targets in masks.values()]
    assert len(kept) == 12
    return float(sum(m.sum() for m in kept) / sum(m.numel() for m in kept))


def pruned(kind: str, model: Any, evaluator: Any) -> Any:
    if kind == "linear":
        pruner, steps = scheduled(model, evaluator), 4
    elif kind == "taylor":
        pruner, steps = TaylorPruner(model, CONFIG, evaluator, training_steps=4), 4
    else:
        pruner, steps = MovementPruner(model, CONFIG, evaluator, 1, 5, regular_scale=1.0), 6
    pruner.compress(*((None, None) if kind == "taylor" else (steps, None)))
    masks = pruner.get_masks()
    pruner.unwrap_model()
    return masks


@pytest.mark.parametrize("kind", ["linear", "taylor", "movement"])
def test_pruners_reach_their_ratio_and_every_weight_trains(kind: str, tmp_path: Path) -> None:
    model = models.bert()
    before = weights_of(model)
    evaluator = evaluator_over(model, tmp_path)
    assert density(pruned(kind, model, evaluator)) == pytest.approx(0.5, abs=0.01)
    # A key's bias shifts all scores of a row alike, so its gradient is 0 but for rounding.
    assert [name for name in unmoved(before, model) if "key.bias" not in name] == []
    assert evaluator.model is None


def test_epochs_are_a_limit_too(tmp_path: Path) -> None:
    model = models.bert()
    pruner = scheduled(model, evaluator_over(model, tmp_path))
    pruner.compress(None, 1)
    assert density(pruner.get_masks()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_every_task_runs_once_a_step_in_the_order_of_nni(tmp_path: Path, accumulated: int) -> None:
    model = models.bert()
    evaluator = bound(model, tmp_path, keywords={"gradient_accumulation_steps": accumulated})
    parameter = model.classifier.bias
    log: list[str] = []
    values: list[Tensor] = []

    def note(name: str) -> Any:
        return lambda: (log.append(name), values.append(parameter.detach().clone()))

    evaluator.patch_optimizer_step([note("inner before")], [note("inner after")])
    evaluator.patch_optimizer_step([note("outer before")], [note("outer after")])
    evaluator.train(max_steps=3)
    assert log == ["outer before", "inner before", "inner after", "outer after"] * 3
    assert evaluator.trainer.state.global_step == 3
    for before, still, after, then in zip(*(values[i::4] for i in range(4)), strict=True):
        assert torch.equal(before, still)
        assert torch.equal(after, then)
        assert not torch.equal(before, after)


@pytest.mark.parametrize("steps", [1, 6])
def test_exactly_so_many_steps_run(steps: int, tmp_path: Path) -> None:
    evaluator = bound(models.bert(), tmp_path, keywords={"max_steps": 2})
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=steps)
    assert len(taken) == steps


def test_exactly_so_many_epochs_run(tmp_path: Path) -> None:
    # The trainer's own limits are for fine-tuning; its steps would win over epochs.
    evaluator = bound(models.bert(), tmp_path, keywords={"max_steps": 2})
    taken = counted_steps(evaluator)
    evaluator.train(max_epochs=2)
    assert len(taken) == 2 * models.BATCHES


@pytest.mark.parametrize(("epochs", "expected"), [(1, models.BATCHES), (2, 6)])
def test_of_two_limits_the_first_ends_the_training(
    epochs: int, expected: int, tmp_path: Path
) -> None:
    evaluator = bound(models.bert(), tmp_path)
    callbacks = list(evaluator.trainer.callback_handler.callbacks)
    taken = counted_steps(evaluator)
    evaluator.train(max_steps=6, max_epochs=epochs)
    assert len(taken) == expected
    assert evaluator.trainer.callback_handler.callbacks == callbacks


def test_fine_tuning_lasts_as_long_as_the_arguments_say(tmp_path: Path) -> None:
    evaluator = bound(models.bert(), tmp_path, keywords={"num_train_epochs": 2})
    taken = counted_steps(evaluator)
    evaluator.finetune()
    assert len(taken) == 2 * models.BATCHES


class _Crash(Exception):
    pass


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_crash_leaves_nothing_patched_and_the_evaluator_usable(
    tmp_path: Path, accumulated: int
) -> None:
    model = models.bert()
    keywords = {"max_steps": 7, "gradient_accumulation_steps": accumulated}
    evaluator = bound(model, tmp_path, keywords=keywords)
    args = evaluator.trainer.args
    steps = counted_steps(evaluator)

    def crash(loss: Tensor, _: Any) -> Tensor:
        if steps:
            raise _Crash
        return loss

    evaluator.patch_loss(crash)
    with pytest.raises(_Crash):
        evaluator.train(max_steps=3, max_epochs=5)
    assert (args.max_steps, args.num_train_epochs) == (7, 1)
    evaluator.unbind_model()
    assert evaluator.model is None
    assert density(pruned("linear", model, evaluator)) == pytest.approx(0.5, abs=0.01)
    assert len(steps) == 1
    assert (args.max_steps, args.num_train_epochs) == (7, 1)


def test_several_rounds_of_one_evaluator_agree(tmp_path: Path) -> None:
    model = models.bert()
    evaluator = evaluator_over(model, tmp_path)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    rounds = []
    for _ in range(2):
        model.load_state_dict(start)
        with forked(1):
            rounds.append(pruned("linear", model, evaluator))
    assert all(torch.equal(m["weight"], rounds[1][name]["weight"]) for name, m in rounds[0].items())


@pytest.mark.parametrize("grouped", [False, True])
def test_evaluators_that_were_made_before_the_first_pruner_all_train(
    tmp_path: Path, grouped: bool
) -> None:
    model = models.bert()
    parameters = list(model.parameters())
    shared = models.traced([{"params": parameters}] if grouped else parameters)
    evaluators = [
        evaluator_over(
            model, tmp_path, optimizers=(shared, None), train_dataset=models.samples(seed)
        )
        for seed in range(3)
    ]
    for evaluator in evaluators:
        evaluator._init_optimizer_helpers(model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    masks = []
    for evaluator in evaluators:
        model.load_state_dict(start)
        before = weights_of(model)
        masks.append(pruned("taylor", model, evaluator))
        assert density(masks[-1]) == pytest.approx(0.5, abs=0.01)
        assert [name for name in unmoved(before, model) if "key.bias" not in name] == []
    names = list(masks[0])
    assert not all(torch.equal(masks[0][n]["weight"], masks[1][n]["weight"]) for n in names)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_traced_scheduler_starts_from_the_rate_that_the_user_gave(
    tmp_path: Path, grouped: bool
) -> None:
    model = models.bert()
    parameters = list(model.parameters())
    optimizer = models.traced([{"params": parameters}] if grouped else parameters, lr=0.4)
    schedule = nni.trace(torch.optim.lr_scheduler.LambdaLR)(optimizer, lambda step: step / 4)
    evaluator = bound(model, tmp_path, optimizers=(optimizer, schedule))
    rates: list[float] = []
    real = evaluator.trainer.optimizer
    evaluator.patch_optimizer_step([], [lambda: rates.append(real.param_groups[0]["lr"])])
    evaluator.train(max_steps=3)
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    assert optimizer.param_groups[0]["params"] == parameters


class _OtherName(Trainer):  # type: ignore[misc]
    def __init__(self, net: nn.Module, *rest: Any, **keywords: Any) -> None:
        super().__init__(net, *rest, **keywords)


class _Positional(Trainer):  # type: ignore[misc]
    def __init__(self, *positional: Any, **keywords: Any) -> None:
        super().__init__(*positional, **keywords)


@pytest.mark.filterwarnings("ignore:Found positional arguments")  # NNI's, where it keeps them
@pytest.mark.parametrize(
    "make",
    [
        lambda model, args: nni.trace(Trainer)(model, args, **_rest(model)),
        lambda model, args: nni.trace(Trainer)(args=args, **_rest(model), model=model),
        lambda model, args: nni.trace(_OtherName)(net=model, args=args, **_rest(model)),
        lambda model, args: nni.trace(_Positional)(model, args, **_rest(model)),
        lambda model, args: nni.trace(_Positional)(args=args, model=model, **_rest(model)),
    ],
)
def test_the_model_may_be_anywhere_in_the_trainers_arguments(make: Any, tmp_path: Path) -> None:
    model = models.bert()
    evaluator = TransformersEvaluator(make(model, models.arguments(tmp_path)))
    evaluator._init_optimizer_helpers(model)
    other = models.bert()
    evaluator.bind_model(other)
    before, still = weights_of(other), weights_of(model)
    evaluator.train(max_steps=1)
    assert [name for name in unmoved(before, other) if "key.bias" not in name] == []
    assert unmoved(still, model) == list(still)


def _rest(model: nn.Module) -> dict[str, Any]:
    return {
        "optimizers": (models.traced(model.parameters()), None),
        "train_dataset": models.samples(),
    }


@pytest.mark.parametrize("divided", [True, False])
def test_what_a_pruner_adds_to_the_loss_counts_once_a_step(divided: bool, tmp_path: Path) -> None:
    gradients = []
    for accumulated in (1, 2):
        model = models.bert().eval()
        keywords = {
            "gradient_accumulation_steps": accumulated,
            "per_device_train_batch_size": 8 // accumulated,
            "max_grad_norm": 0.0,
        }
        evaluator = bound(model, tmp_path, keywords=keywords)
        evaluator.trainer.model_accepts_loss_kwargs = divided
        added = nn.Parameter(torch.ones(()))
        evaluator.patch_loss(lambda loss, _, added=added: loss * 0 + 3 * added)
        evaluator.train(max_steps=1)
        gradients.append(float(added.grad))
    assert gradients == pytest.approx([3.0, 3.0])


def test_a_patched_loss_still_gives_outputs_to_an_evaluation(tmp_path: Path) -> None:
    keywords = {"gradient_accumulation_steps": 2}
    evaluator = bound(models.bert(), tmp_path, compute_metrics=_accuracy, keywords=keywords)
    evaluator.train(max_steps=1)
    plain = evaluator.evaluate()[1]["eval_loss"]
    evaluator.patch_loss(lambda loss, _: loss + 1)
    metric, metrics = evaluator.evaluate()
    assert metrics["eval_loss"] == pytest.approx(plain + 1, abs=1e-4)
    assert metric == metrics["eval_default"]
    evaluator.revert_loss()
    assert evaluator.evaluate()[1]["eval_loss"] == pytest.approx(plain, abs=1e-4)


def _accuracy(predicted: Any) -> dict[str, float]:
    return {"default": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def test_evaluating_gives_the_metric_named_default(tmp_path: Path) -> None:
    model = models.bert()
    metric, _ = bound(model, tmp_path, compute_metrics=_accuracy).evaluate()
    hits = [
        int(model.eval()(input_ids=s["input_ids"][None]).logits.argmax()) == int(s["labels"])
        for s in models.samples(1)
    ]
    assert metric == pytest.approx(sum(hits) / len(hits))
    assert bound(model, tmp_path).evaluate()[0] is None


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_model_gets_its_own_methods_back(mixed: bool, mine: bool, tmp_path: Path) -> None:
    model = models.bert()
    if mine:
        model.forward = model.forward
    own = {name: value for name, value in vars(model).items() if callable(value)}
    evaluator = evaluator_over(model, tmp_path, keywords={"bf16": mixed})
    for _ in range(2):
        assert density(pruned("linear", model, evaluator)) == pytest.approx(0.5, abs=0.01)
        assert {name: value for name, value in vars(model).items() if callable(value)} == own


def test_nnis_and_transformers_classes_are_never_touched(tmp_path: Path) -> None:
    def seen() -> list[dict[str, Any]]:
        owners = (host_module, host_module.PatchCallback, Trainer)
        return [dict(vars(owner)) for owner in owners]

    before = seen()
    during: list[bool] = []
    evaluator = bound(models.bert(), tmp_path)
    evaluator.patch_loss(lambda loss, _: loss)
    evaluator.patch_optimizer_step([], [lambda: during.append(seen() == before)])
    evaluator.train(max_steps=1)
    evaluator.unbind_model()
    assert during == [True]
    assert seen() == before


def test_parameters_that_a_compressor_adds_are_trained(tmp_path: Path) -> None:
    evaluator = bound(models.bert(), tmp_path)
    added = nn.Parameter(torch.ones(()))
    evaluator.patch_optim_param_group({"classifier": [added]})
    evaluator.patch_loss(lambda loss, _: loss * added)
    evaluator.train(max_steps=1)
    assert float(added.detach()) != 1.0


def test_it_is_an_evaluator_of_nni(tmp_path: Path) -> None:
    evaluator = evaluator_over(models.bert(), tmp_path)
    assert isinstance(evaluator, host_module.TransformersEvaluator)


# --- wrong arguments -----------------------------------------------------------------------


def test_a_wrong_trainer_is_refused(tmp_path: Path) -> None:
    plain = Trainer(models.bert(), models.arguments(tmp_path))
    with pytest.raises(InvalidArgument, match=r"got Trainer \(not traced\): nni.trace"):
        TransformersEvaluator(plain)
    with pytest.raises(InvalidArgument, match=r"must be a Trainer of transformers .* got NoneType"):
        TransformersEvaluator(None)


def test_sharded_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = models.trainer(models.bert(), tmp_path)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    with pytest.raises(InvalidArgument, match="runs Deepspeed or FSDP"):
        TransformersEvaluator(trainer)


def test_without_transformers_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "TRANSFORMERS_INSTALLED", False)
    with pytest.raises(MissingExtra, match=r"pip install 'transformers\[torch\]'"):
        TransformersEvaluator(None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: (None, None), r"is empty, .* pass optimizers=\(nni.trace\(torch.optim.AdamW\)"),
        (lambda p: (torch.optim.SGD(p), None), r"got SGD \(not traced\): make it with nni.trace"),
        (lambda p: (models.traced(iter(p)), None), "from an iterator"),
        (
            lambda p: (o := models.traced(p), torch.optim.lr_scheduler.StepLR(o, 1)),
            r"got StepLR \(not traced\)",
        ),
    ],
)
def test_optimizers_that_nni_cannot_build_are_refused(
    make: Any, message: str, tmp_path: Path
) -> None:
    model = models.bert()
    optimizers = make(list(model.parameters()))
    with pytest.raises(InvalidArgument, match=f"optimizers= of the Trainer.*{message}"):
        evaluator_over(model, tmp_path, optimizers=optimizers)


def test_an_evaluator_that_comes_after_the_first_pruner_is_refused(tmp_path: Path) -> None:
    model = models.bert()
    evaluator = evaluator_over(model, tmp_path)
    LevelPruner(model, CONFIG).unwrap_model()
    with pytest.raises(InvalidArgument, match=r"24 of the 41 .* evaluators before any pruner"):
        evaluator._init_optimizer_helpers(model)


def test_a_trainer_of_another_model_is_refused(tmp_path: Path) -> None:
    model, other = models.bert(), models.bert()
    optimizers = (models.traced(other.parameters()), None)
    evaluator = evaluator_over(model, tmp_path, optimizers=optimizers)
    with pytest.raises(InvalidArgument, match="was not made with this BertForSequence"):
        evaluator._init_optimizer_helpers(other)


def test_without_a_model_it_says_so(tmp_path: Path) -> None:
    model = models.bert()
    evaluator = evaluator_over(model, tmp_path)
    with pytest.raises(InvalidArgument, match="_init_optimizer_helpers"):
        evaluator.bind_model(model)
    for call in (evaluator.train, evaluator.evaluate):
        with pytest.raises(InvalidArgument, match="has no model"):
            call()
    evaluator.unbind_model()


class _Stops(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = True


def test_a_training_that_ends_early_is_an_error(tmp_path: Path) -> None:
    evaluator = bound(models.bert(), tmp_path, callbacks=[_Stops()])
    with pytest.raises(PruningFailed, match=r"asked for 3 optimizer steps .* after 1:"):
        evaluator.train(max_steps=3)
