"""A fresh NNI pruner for every (round, group)."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from rtl_nni.host_types import ComboPruner, Pruner
from rtl_nni.pruner_parts import parts_of, spaces_of
from rtl_nni.target_row import TargetRow
from rtl_plugin.integration_api import InvalidArgument, callable_name, whole_number


@dataclass(frozen=True)
class Training:
    """How long an evaluator trains in a (round, group).

    Args:
        steps: optimizer steps; 0 does not train; None where epochs or the pruner says.
        epochs: instead of steps.
    """

    steps: int | None
    epochs: int | None

    @staticmethod
    def checked(steps: Any, epochs: Any) -> "Training":
        """The two arguments, checked.

        Args:
            steps: a whole number or None.
            epochs: a whole number or None; one of the two at most.

        Raises:
            InvalidArgument: both are given, or one is no whole number.
        """
        if steps is not None and epochs is not None:
            raise InvalidArgument(f"give steps= or epochs=, not both: got {steps} and {epochs}")
        return Training(
            None if steps is None else whole_number("steps", steps, 0),
            None if epochs is None else whole_number("epochs", epochs, 1),
        )


@dataclass(frozen=True)
class PrunerSource:
    """Makes a fresh pruner: NNI's bound pruners cannot be run again.

    Args:
        source: a pruner class, or ``(model, config_list, evaluator) -> pruner``.
        options: more keyword arguments for a class.
    """

    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, training: Training) -> None:
        """Refuse what cannot make a pruner, before anything is trained.

        Args:
            training: how long it is to train.

        Raises:
            InvalidArgument: naming the argument.
        """
        if not self._is_class:
            if not callable(self.source):
                raise InvalidArgument(
                    "pruner= takes a pruner class of NNI (not an object: a bound pruner cannot be "
                    "run again) or a function (model, config_list, evaluator) -> pruner, got "
                    f"{self.source!r}"
                )
            if self.options:
                raise InvalidArgument(
                    "pruner_options= go with a pruner class; a function passes them itself"
                )
            return
        if issubclass(self.source, ComboPruner):
            raise InvalidArgument(
                f"{self.source.__name__} wraps another pruner: pass a function, such as lambda "
                "model, config_list, evaluator: LinearPruner(L1NormPruner(model, config_list, "
                "evaluator), interval_steps=..., total_times=...)"
            )
        known = inspect.signature(self.source.__init__).parameters
        unknown = [name for name in self.options if name not in known]
        if unknown:
            raise InvalidArgument(
                f"pruner_options= {unknown[0]!r} is no argument of {self.source.__name__}; it "
                f"takes {', '.join(list(known)[1:])}"
            )
        missing = self._missing(known, training)
        if missing:
            raise InvalidArgument(
                f"{self.source.__name__} needs {', '.join(missing)}: pass "
                f"pruner_options={{{missing[0]!r}: ...}}"
                + (" or steps=" if "training_steps" in missing else "")
            )

    @property
    def name(self) -> str:
        """What to call it in reports."""
        return callable_name(self.source)

    @property
    def _is_class(self) -> bool:
        return isinstance(self.source, type) and issubclass(self.source, Pruner)

    def _missing(self, known: Mapping[str, Any], training: Training) -> list[str]:
        given = {"self", "model", "config_list", "evaluator", "existed_wrappers", *self.options}
        if training.steps:
            given.add("training_steps")
        return [
            name
            for name, parameter in known.items()
            if name not in given
            and parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]

    def fresh(
        self, model: nn.Module, config_list: list[dict[str, Any]], evaluator: Any, steps: int | None
    ) -> Any:
        """A new pruner over the model, which it wraps.

        Args:
            model: unwrapped.
            config_list: of this round.
            evaluator: of the group, tied to parameter names.
            steps: for pruners that count their training steps themselves.

        Returns:
            An NNI pruner.

        Raises:
            InvalidArgument: the user's function returns something else, or ignores its arguments.
        """
        if not self._is_class:
            pruner = self.source(model, config_list, evaluator)
            self._check_made(pruner, model, evaluator)
            return pruner
        known = inspect.signature(self.source.__init__).parameters
        keywords = dict(self.options)
        if "evaluator" in known:
            keywords["evaluator"] = evaluator
        if "training_steps" in known and steps:
            keywords.setdefault("training_steps", steps)
        return self.source(model, config_list, **keywords)

    def check_asked(self, pruner: Any, rows: Sequence[TargetRow]) -> None:
        """Refuse a pruner that goes by another configuration than it was given.

        Args:
            pruner: fresh.
            rows: what the round asks of each target.

        Raises:
            InvalidArgument: naming the target.
        """
        spaces = spaces_of(pruner)
        for row in rows:
            space = spaces.get((row.layer, row.target))
            for key in ("sparse_ratio", "sparse_threshold"):
                came = None if space is None else getattr(space, key)
                if row.ranked and came != row.settings.get(key):
                    raise InvalidArgument(
                        f"{self.name} made a pruner with {key} {came} for {row.name!r}, and this "
                        f"round asks for {row.settings.get(key)}: build it of the config_list that "
                        "the function is given, which changes from round to round"
                    )

    def _check_made(self, pruner: Any, model: nn.Module, evaluator: Any) -> None:
        if not isinstance(pruner, Pruner):
            raise InvalidArgument(
                f"pruner= must return an NNI pruner, {self.name} returned {type(pruner).__name__}"
            )
        if pruner.bound_model is not model:
            raise InvalidArgument(
                f"pruner= must bind the model that it is given: {self.name} bound another one"
            )
        wrappers = [w for part in parts_of(pruner) for w in part._module_wrappers.values()]
        if any(
            getattr(wrapper.module, "_nni_wrapper", None) is not wrapper for wrapper in wrappers
        ):
            raise InvalidArgument(
                f"pruner= must make a fresh pruner at every call and leave the model wrapped: "
                f"{self.name} returned one that was made before, or unwrapped it"
            )
        if pruner.evaluator not in (None, evaluator):
            raise InvalidArgument(
                "pruner= must use the evaluator that it is given, which is the group's: "
                f"{self.name} gave the pruner another one"
            )
