"""Training under NNI's pruners by the Trainer of transformers 5."""

import types
from collections.abc import Iterable
from typing import Any

from torch import nn

from rtl_nni.host import quiet
from rtl_nni.host_types import is_traceable
from rtl_nni.traced_training import (
    LossPatch,
    StepTasks,
    Task,
    check_bound,
    check_initialised,
    check_traced,
    check_traced_scheduler,
    check_trained,
    optimizer_by_names,
)
from rtl_plugin.integration_api import InvalidArgument, MissingExtra, RandomState

with quiet():
    from nni.compression.utils import evaluator as _host
    from nni.compression.utils.constructor_helper import LRSchedulerConstructHelper


class _EpochLimit(_host.PatchCallback):  # type: ignore[misc]
    """Ends a training after so many epochs, where a number of steps is given too."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.left -= 1
        control.should_training_stop = control.should_training_stop or self.left <= 0


class TransformersEvaluator(_host.TransformersEvaluator):  # type: ignore[misc]
    """NNI's evaluator over a Trainer, for transformers 5.

    ``evaluate`` takes the metric named ``default`` of ``compute_metrics``. Deepspeed and FSDP are
    not supported.

    Args:
        trainer: ``nni.trace(transformers.Trainer)(...)`` with a traced optimizer.
        dummy_input: for pruners and speedup that trace the model.

    Raises:
        MissingExtra: transformers is not installed.
        InvalidArgument: the trainer, its optimizer or its scheduler is not traced.

    Example:
        >>> import nni, tempfile, torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from transformers import Trainer, TrainingArguments
        >>> model = BertForSequenceClassification(BertConfig(
        ...     vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
        >>> optimizer = nni.trace(torch.optim.AdamW)(model.parameters(), lr=1e-3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = nni.trace(Trainer)(
        ...         model=model, args=TrainingArguments(folder), optimizers=(optimizer, None))
        ...     evaluator = TransformersEvaluator(trainer, dummy_input=torch.zeros(1, 3).long())
        >>> evaluator.get_dummy_input().shape
        torch.Size([1, 3])
    """

    def __init__(self, trainer: Any, dummy_input: Any = None) -> None:
        _check_trainer(trainer)
        super().__init__(trainer, dummy_input)
        self.model: Any = None
        self._tasks = StepTasks()

    def _init_optimizer_helpers(self, pure_model: nn.Module) -> None:
        trainer = self.traced_trainer
        given = [*trainer.trace_args, *trainer.trace_kwargs.values()]
        if not any(value is pure_model for value in given):
            raise InvalidArgument(
                f"the evaluator's Trainer was not made with this {type(pure_model).__name__} "
                "object: pass model= the one that is pruned (not a copy of it, nor model_init=)"
            )
        where = "optimizers= of the Trainer"
        self._optimizer_helper = optimizer_by_names(pure_model, trainer.optimizer, where)
        self._lr_scheduler_helper = (
            None
            if trainer.lr_scheduler is None
            else LRSchedulerConstructHelper.from_trace(trainer.lr_scheduler)
        )
        self._pure_model = pure_model
        self._initialization_complete = True

    def bind_model(self, model: nn.Module, param_names_map: dict[str, str] | None = None) -> None:
        """Make a trainer and an optimizer for a wrapped model.

        Args:
            model: as wrapped by a pruner.
            param_names_map: parameter name -> its name in the wrapped model.

        Raises:
            InvalidArgument: ``_init_optimizer_helpers`` has not run.
        """
        check_initialised(self)
        if self.model is not None:
            self.unbind_model()
        trainer = self._new_trainer(model)
        trainer.optimizer = self._optimizer_helper.call(model, param_names_map)
        self._tasks.attach(trainer.optimizer)
        self._ori_trainer_attr["compute_loss"] = trainer.compute_loss
        # Mixed precision puts a forward of its own on the model, another one at every training.
        self._own_attributes = {n: v for n, v in vars(model).items() if n in _LEFT_BEHIND}
        self.trainer, self.model, self._param_names_map = trainer, model, param_names_map

    def _new_trainer(self, model: nn.Module) -> Any:
        def replaced(value: Any) -> Any:
            return model if value is self._pure_model else value

        traced = self.traced_trainer
        present = RandomState.capture()
        try:
            return traced.trace_symbol(
                *map(replaced, traced.trace_args),
                **{name: replaced(value) for name, value in traced.trace_kwargs.items()},
            )
        finally:
            present.install()  # making a Trainer seeds everything anew

    def unbind_model(self) -> None:
        """Give the model back as it was bound, apart from its weights."""
        model = self.model
        super().unbind_model()
        if model is not None:
            for name in _LEFT_BEHIND:
                vars(model).pop(name, None)
            vars(model).update(self._own_attributes)

    def patch_loss(self, patch: LossPatch) -> None:
        """Let a pruner add to the loss, once an optimizer step.

        Args:
            patch: ``(loss, batch) -> loss``.
        """
        trainer = self._bound_trainer()
        plain = trainer.compute_loss

        def compute_loss(_: Any, model: Any, inputs: Any, *more: Any, **keywords: Any) -> Any:
            result = plain(model, inputs, *more, **keywords)
            # A loss that the model has divided already is the sum over micro batches in the end,
            # and so would be what the patch adds.
            parts = _micro_batches(trainer, keywords) if trainer.model.training else 1
            loss, outputs = (result[0], result[1:]) if isinstance(result, tuple) else (result, ())
            patched = patch(loss * parts, inputs) / parts
            return (patched, *outputs) if isinstance(result, tuple) else patched

        trainer.compute_loss = types.MethodType(compute_loss, trainer)

    def patch_optimizer_step(
        self, before_step_tasks: Iterable[Task], after_step_tasks: Iterable[Task]
    ) -> None:
        """Run tasks around every real optimizer step.

        Args:
            before_step_tasks: before each.
            after_step_tasks: after each.
        """
        self._bound_trainer()
        self._tasks.add(before_step_tasks, after_step_tasks)

    def revert_optimizer_step(self) -> None:
        """Forget the tasks."""
        self._tasks.clear()

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """Train the bound model; without a limit as long as the Trainer's own arguments say.

        Args:
            max_steps: optimizer steps.
            max_epochs: passes through the data; with both, what comes first ends the training.

        Raises:
            InvalidArgument: no model is bound.
            PruningFailed: the Trainer stopped before.
        """
        trainer = self._bound_trainer()
        own = trainer.args.max_steps, trainer.args.num_train_epochs
        limit = None if max_steps is None or max_epochs is None else _EpochLimit(max_epochs)
        if max_steps is not None or max_epochs is not None:
            trainer.args.max_steps = -1 if max_steps is None else max_steps
        if max_epochs is not None:
            trainer.args.num_train_epochs = max_epochs
        if limit is not None:
            trainer.add_callback(limit)
        helper = self._lr_scheduler_helper
        try:
            trainer.lr_scheduler = None if helper is None else helper.call(trainer.optimizer)
            trainer.train()
        finally:
            trainer.args.max_steps, trainer.args.num_train_epochs = own
            if limit is not None:
                trainer.remove_callback(limit)
        check_trained(trainer.state.global_step, max_steps, max_epochs)

    def evaluate(self) -> tuple[float | None, dict[str, Any]]:
        """Evaluate the bound model on the Trainer's data for it.

        Returns:
            The metric ``default`` (None where ``compute_metrics`` gives none) and all metrics.

        Raises:
            InvalidArgument: no model is bound.
        """
        metrics = self._bound_trainer().evaluate()
        # The Trainer puts a prefix before every name, which NNI's own evaluator does not know.
        return metrics.get("default", metrics.get("eval_default")), metrics

    def _bound_trainer(self) -> Any:
        check_bound(self)
        return self.trainer


_LEFT_BEHIND = ("forward", "_original_forward")


def _check_trainer(trainer: Any) -> None:
    if not _host.TRANSFORMERS_INSTALLED:
        raise MissingExtra(
            "transformers is needed for rtl_nni.TransformersEvaluator and is not installed: "
            "pip install 'transformers[torch]'"
        )
    kind = type(trainer).__name__
    if not isinstance(trainer, _host.HFTrainer) or not is_traceable(trainer):
        raise InvalidArgument(
            f"trainer= must be a Trainer of transformers made with nni.trace, got {kind}"
            f"{' (not traced)' if isinstance(trainer, _host.HFTrainer) else ''}: "
            "nni.trace(transformers.Trainer)(model=model, args=..., optimizers=(optimizer, None))"
        )
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise InvalidArgument(
            f"trainer= {kind} runs Deepspeed or FSDP, whose sharded parameters NNI's masks do not "
            "follow: train on one device or with plain data parallelism"
        )
    where = "optimizers= of the Trainer"
    if trainer.optimizer is None:
        raise InvalidArgument(
            f"{where} is empty, and NNI cannot trace the one that transformers makes by itself: "
            "pass optimizers=(nni.trace(torch.optim.AdamW)(model.parameters(), lr=...), None)"
        )
    check_traced(trainer.optimizer, where)
    if trainer.lr_scheduler is not None:
        check_traced_scheduler(trainer.lr_scheduler, where)


def _micro_batches(trainer: Any, keywords: dict[str, Any]) -> int:
    divided = getattr(trainer, "loss_is_scaled_for_ga", None)
    if divided is None:
        counted = keywords.get("num_items_in_batch") is not None
        divided = (
            trainer.model_accepts_loss_kwargs and counted
        ) or trainer.compute_loss_func is not None
    return getattr(trainer, "current_gradient_accumulation_steps", 1) if divided else 1
