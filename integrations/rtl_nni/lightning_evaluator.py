"""Training under NNI's pruners by the Trainer of Lightning 2, from either of its packages."""

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from rtl_nni.host import quiet
from rtl_nni.lightning_parts import check_part, configured, package_of
from rtl_nni.traced_training import (
    LossPatch,
    StepTasks,
    Task,
    check_bound,
    check_initialised,
    check_trained,
    optimizer_by_names,
)

with quiet():
    from nni.compression.utils.constructor_helper import LRSchedulerConstructHelper
    from nni.compression.utils.evaluator import LightningEvaluator as _HostEvaluator

_PATCHED = ("training_step", "configure_optimizers")


class LightningEvaluator(_HostEvaluator):  # type: ignore[misc]
    """NNI's evaluator over Lightning 2: ``lightning.pytorch`` or ``pytorch_lightning``.

    ``evaluate`` takes the metric logged as ``default`` in ``test_step``. With several optimizers
    (manual optimization) a number of steps means steps of the first one.

    Args:
        trainer: ``nni.trace(lightning.pytorch.Trainer)(...)``.
        data_module: ``nni.trace(YourDataModule)(...)``, of the same package.
        dummy_input: for pruners and speedup that trace the model; by default a training batch.

    Raises:
        MissingExtra: Lightning is not installed.
        InvalidArgument: the trainer or the data module is not traced, or of another package.

    Example:
        >>> import lightning.pytorch as pl, nni, torch
        >>> from nni.compression.pruning import TaylorPruner
        >>> class Net(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 4)
        ...     def training_step(self, batch, batch_idx):
        ...         return self.layer(batch).square().mean()
        ...     def configure_optimizers(self):
        ...         return nni.trace(torch.optim.SGD)(self.parameters(), lr=0.1)
        >>> class Data(pl.LightningDataModule):
        ...     def train_dataloader(self):
        ...         return torch.utils.data.DataLoader(torch.ones(8, 4), batch_size=2)
        >>> with quiet():
        ...     trainer = nni.trace(pl.Trainer)(
        ...         max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        ...         enable_progress_bar=False, enable_model_summary=False)
        ...     evaluator = LightningEvaluator(trainer, nni.trace(Data)())
        ...     pruner = TaylorPruner(
        ...         Net(), [{"op_names": ["layer"], "sparse_ratio": 0.5}], evaluator,
        ...         training_steps=3)
        ...     _, masks = pruner.compress()
        >>> masks["layer"]["weight"].mean().item()
        0.5
    """

    def __init__(self, trainer: Any, data_module: Any, dummy_input: Any = None) -> None:
        # NNI's own knows pytorch_lightning only and refuses the classes of lightning.pytorch, so
        # nothing here calls the methods of it that look at types.
        self._package = package_of(trainer)
        check_part(trainer, "trainer=", self._package, "Trainer")
        check_part(data_module, "data_module=", self._package, "LightningDataModule")
        self.trainer = trainer
        self.data_module = data_module
        self._dummy_input = dummy_input
        self.model: Any = None
        self._ori_model_attr: dict[str, Any] = {}
        self._param_names_map: Mapping[str, str] | None = None
        self._added_parameters: list[Mapping[str, list[Tensor]]] = []
        self._tasks = StepTasks()
        self._initialization_complete = False

    def _init_optimizer_helpers(self, pure_model: Any) -> None:
        check_part(pure_model, "the model", self._package, "LightningModule")
        where = f"{type(pure_model).__name__}.configure_optimizers"
        optimizers, configs = configured(pure_model.configure_optimizers(), where)
        schedulers = [config["scheduler"] for config in configs]
        numbers = {id(optimizer): number for number, optimizer in enumerate(optimizers)}
        self._optimizer_helpers = [optimizer_by_names(pure_model, o, where) for o in optimizers]
        self._lr_scheduler_helpers = [LRSchedulerConstructHelper.from_trace(s) for s in schedulers]
        self._lrs_opt_map = {i: numbers[id(s.optimizer)] for i, s in enumerate(schedulers)}
        self._scheduler_options = [
            {name: value for name, value in config.items() if name != "scheduler"}
            for config in configs
        ]
        self._initialization_complete = True

    def bind_model(self, model: Any, param_names_map: Mapping[str, str] | None = None) -> None:
        """Let a wrapped model's optimizers be built by NNI.

        Args:
            model: as wrapped by a pruner.
            param_names_map: parameter name -> its name in the wrapped model.

        Raises:
            InvalidArgument: another kind of model, or ``_init_optimizer_helpers`` has not run.
        """
        check_part(model, "the model", self._package, "LightningModule")
        check_initialised(self)
        if self.model is not None:
            self.unbind_model()
        self._ori_model_attr = {n: vars(model)[n] for n in _PATCHED if n in vars(model)}
        self._param_names_map = param_names_map
        self.model = model
        self._patch_configure_optimizers()

    def _patch_configure_optimizers(self) -> None:
        def configure_optimizers() -> Any:
            built = [h.call(self.model, self._param_names_map) for h in self._optimizer_helpers]
            for parameters in self._added_parameters:
                self._optimizer_add_param_group(self.model, parameters, built)
            self._tasks.attach(built[0])
            schedulers = [
                {"scheduler": helper.call(built[self._lrs_opt_map[i]]), **options}
                for i, (helper, options) in enumerate(
                    zip(self._lr_scheduler_helpers, self._scheduler_options, strict=True)
                )
            ]
            return built, schedulers

        self.model.configure_optimizers = configure_optimizers

    def unbind_model(self) -> None:
        """Give the model its own methods back; does nothing where none is bound."""
        if self.model is None:
            return
        self.revert_loss()
        self.revert_optimizer_step()
        self.remove_all_hooks()
        self._revert_configure_optimizers()
        self._added_parameters.clear()
        self._ori_model_attr = {}
        self._param_names_map = None
        self.model = None

    def _revert_configure_optimizers(self) -> None:
        self._revert("configure_optimizers")

    def _revert(self, method: str) -> None:
        vars(self.model).pop(method, None)
        if method in self._ori_model_attr:
            vars(self.model)[method] = self._ori_model_attr[method]

    def patch_optim_param_group(self, module_name_param_dict: Mapping[str, list[Tensor]]) -> None:
        """Let the optimizers train parameters that a compressor adds.

        Args:
            module_name_param_dict: module name -> parameters.
        """
        self._bound_model()
        self._added_parameters.append(module_name_param_dict)

    def patch_loss(self, patch: LossPatch) -> None:
        """Let a pruner add to the loss.

        Args:
            patch: ``(loss, batch) -> loss``.
        """
        model = self._bound_model()
        plain = model.training_step

        # Lightning reads the signature to decide what to pass.
        @functools.wraps(plain)
        def training_step(*positional: Any, **keywords: Any) -> Any:
            output = plain(*positional, **keywords)
            batch = positional[0] if positional else keywords["batch"]
            if output is None:  # the user skips this batch
                return None
            if isinstance(output, Tensor):
                return patch(output, batch)
            return {**output, "loss": patch(output["loss"], batch)}

        model.training_step = training_step

    def revert_loss(self) -> None:
        """Forget what was added to the loss."""
        self._revert("training_step")

    def patch_optimizer_step(
        self, before_step_tasks: Iterable[Task], after_step_tasks: Iterable[Task]
    ) -> None:
        """Run tasks around every step of the first optimizer.

        Args:
            before_step_tasks: once the gradients are there.
            after_step_tasks: after each step.
        """
        self._bound_model()
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
        model = self._bound_model()
        trainer = self._new_trainer()
        # A pruner's hooks would take the validation batches before training for training.
        trainer.num_sanity_val_steps = 0
        if max_steps is not None or max_epochs is not None:
            trainer.fit_loop.max_epochs = -1 if max_epochs is None else max_epochs
            trainer.fit_loop.epoch_loop.max_steps = -1
        tasks = list(self._tasks.after)
        self._tasks.taken = 0
        if max_steps is not None:
            self._limit_steps(trainer, max_steps)
        try:
            trainer.fit(model, self.data_module)
            taken = self._tasks.taken if len(self._optimizer_helpers) > 1 else trainer.global_step
        finally:
            self._tasks.after[:] = tasks
            self._release()
        check_trained(taken, max_steps, max_epochs)

    def _new_trainer(self) -> Any:
        """With callbacks of its own: an early stop that has counted would end the next training."""
        traced = self.trainer
        keywords = dict(traced.trace_kwargs)
        if keywords.get("callbacks") is not None:
            keywords["callbacks"] = copy.deepcopy(keywords["callbacks"])
        return traced.trace_symbol(*traced.trace_args, **keywords)

    def _limit_steps(self, trainer: Any, max_steps: int) -> None:
        loop = trainer.fit_loop.epoch_loop
        if len(self._optimizer_helpers) == 1:
            loop.max_steps = max_steps
            return

        # Lightning counts the steps of all optimizers, and pruners those of the first.
        def stop() -> None:
            if self._tasks.taken >= max_steps:
                loop.max_steps = trainer.global_step

        self._tasks.after.append(stop)

    def _release(self) -> None:
        # Else a copy of the model holds the trainer, and with it optimizers and data.
        self.model.trainer = None
        self.data_module.trainer = None

    def evaluate(self) -> tuple[float | None, list[dict[str, float]]]:
        """Test the bound model on the data module's test data.

        Returns:
            The mean of the metrics ``default`` (None where ``test_step`` logs none), and all.

        Raises:
            InvalidArgument: no model is bound.
        """
        model = self._bound_model()
        try:
            results = self._new_trainer().test(model, self.data_module)
        finally:
            self._release()
        values = [metrics["default"] for metrics in results if "default" in metrics]
        return (sum(values) / len(values) if values else None), results

    def _bound_model(self) -> Any:
        check_bound(self)
        return self.model
