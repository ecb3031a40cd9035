"""What a trial of a search is asked to do, checked before it trains."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np

from rtl_plugin.integration_api import (
    CubicSchedule,
    GeometricSchedule,
    InvalidArgument,
    LinearSchedule,
    SparsitySchedule,
    importance_from,
    whole_number,
)

SCHEDULES: Mapping[str, Callable[..., SparsitySchedule]] = {
    "geometric": GeometricSchedule,
    "linear": LinearSchedule,
    "cubic": CubicSchedule,
}
# Only a builder of groups reads them.
GROUPING = ("grouping", "n_clusters")
_REQUIRED = ("rounds", "steps", "epochs")


@dataclass(frozen=True)
class TrialParameters:
    """The hyperparameters of one trial.

    Args:
        rounds: of discovery, at least 1.
        steps: optimizer steps of every (round, group), at least 1.
        epochs: of joint retraining, at least 1.
        sparsity: of every ticket, in (0, 1).
        pruned_per_round: instead of ``sparsity``: the fraction of the survivors that every round
            prunes, in (0, 1). Trials that differ in ``rounds`` alone share their rounds then.
        schedule: ``"geometric"``, ``"linear"`` or ``"cubic"``.
        importance: how weights are ranked, a name that ``discover`` knows.
        private_parameters: name patterns of unmasked parameters that every ticket owns.
        rewind_to: dense training steps before the rewind point.
        floor: fraction of each tensor that survives at least, in [0, 1).
        stop_before_collapse: whether every ticket finds its own sparsity.
        seed: of every random stream.

    Raises:
        InvalidArgument: a value is out of range, or contradicts another.

    Example:
        >>> TrialParameters(rounds=3, steps=10, epochs=1, pruned_per_round=0.5).sparsities()
        [0.5, 0.75, 0.875]
    """

    rounds: int
    steps: int
    epochs: int
    sparsity: float | None = None
    pruned_per_round: float | None = None
    schedule: str = "geometric"
    importance: str = "magnitude"
    private_parameters: tuple[str, ...] = ()
    rewind_to: int = 0
    floor: float = 0.01
    stop_before_collapse: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*_REQUIRED, "rewind_to", "seed"):
            least = 1 if name in _REQUIRED else 0
            whole_number(name, getattr(self, name), least)
        if (self.sparsity is None) == (self.pruned_per_round is None):
            raise InvalidArgument(
                "a trial needs either sparsity or pruned_per_round, got "
                f"sparsity={self.sparsity!r} and pruned_per_round={self.pruned_per_round!r}"
            )
        for name in ("sparsity", "pruned_per_round"):
            value = getattr(self, name)
            if value is not None and not _in_open_interval(value):
                raise InvalidArgument(f"{name} must be a number in (0, 1), got {value!r}")
        if self.schedule not in tuple(SCHEDULES):
            raise InvalidArgument(
                f"schedule must be one of {list(SCHEDULES)}, got {self.schedule!r}"
            )
        if self.pruned_per_round is not None and self.schedule != "geometric":
            raise InvalidArgument(
                "pruned_per_round is a fraction of the survivors, the geometric schedule: leave "
                f"schedule={self.schedule!r} out, or give sparsity instead"
            )
        if self.target >= 1:
            raise InvalidArgument(
                f"pruned_per_round={self.pruned_per_round!r} over rounds={self.rounds!r} leaves "
                "no weight: lower one of them"
            )
        if not isinstance(self.importance, str):
            raise InvalidArgument(f"importance must be a name, got {self.importance!r}")
        importance_from(self.importance)
        if not _is_number(self.floor) or not 0 <= self.floor < 1:
            raise InvalidArgument(f"floor must be a number in [0, 1), got {self.floor!r}")
        if not isinstance(self.stop_before_collapse, bool):
            raise InvalidArgument(
                f"stop_before_collapse must be True or False, got {self.stop_before_collapse!r}"
            )

    @property
    def target(self) -> float:
        """Sparsity after the last round."""
        if self.sparsity is not None:
            return self.sparsity
        assert self.pruned_per_round is not None  # noqa: S101 - one of the two, checked above
        return 1 - (1 - self.pruned_per_round) ** self.rounds

    def as_schedule(self) -> SparsitySchedule:
        """The core's schedule."""
        return SCHEDULES[self.schedule](self.target, rounds=self.rounds)

    def sparsities(self) -> list[float]:
        """Sparsity asked after every round."""
        schedule = self.as_schedule()
        return [schedule.sparsity(round) for round in range(1, self.rounds + 1)]

    def kind(self) -> dict[str, Any]:
        """What makes trials of one kind, whose collapses say something of each other.

        Returns:
            Name -> value, JSON-able.
        """
        names = ("importance", "floor", "rewind_to", "stop_before_collapse", "seed")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON-able data."""
        return asdict(self) | {"private_parameters": list(self.private_parameters)}


def checked_parameters(params: Any, own: Iterable[str] = ()) -> TrialParameters:
    """A search's parameters, ours checked and the user's own left alone.

    Args:
        params: name -> value, as a tuner gives them; ``rounds``, ``steps``, ``epochs`` and one of
            ``sparsity`` and ``pruned_per_round`` are needed. Whole floats count as whole numbers
            (NNI's ``quniform`` gives such).
        own: names of further parameters that are the user's.

    Returns:
        Ours. ``grouping`` and ``n_clusters`` are the groups builder's and not among them.

    Raises:
        InvalidArgument: a name is unknown or missing, or a value is out of range.

    Example:
        >>> given = {"sparsity": 0.9, "rounds": 4.0, "steps": 25, "epochs": 1, "lr": 1e-3}
        >>> checked_parameters(given, own=["lr"]).rounds
        4
    """
    if not isinstance(params, Mapping):
        raise InvalidArgument(
            "params must map names of parameters to values, as rtl_nni.next_parameters() "
            f"returns them, got {params!r}"
        )
    known = [field.name for field in fields(TrialParameters)]
    own = (own,) if isinstance(own, str) else tuple(own)
    if taken := [name for name in own if name in (*known, *GROUPING)]:
        raise InvalidArgument(f"own_parameters names {taken[0]!r}, which is run_trial's: rename it")
    for name in params:
        if name not in (*known, *GROUPING, *own):
            close = difflib.get_close_matches(str(name), [*known, *GROUPING], n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidArgument(
                f"run_trial does not know the parameter {name!r}: {hint}Parameters of your own are "
                f"named in own_parameters=; its own are {[*known, *GROUPING]}"
            )
    if missing := [name for name in _REQUIRED if name not in params]:
        raise InvalidArgument(
            f"params lack {missing}: put them into the search space, or fix them: "
            f"params={{{missing[0]!r}: ..., **rtl_nni.next_parameters()}}"
        )
    return TrialParameters(
        **{name: plain_value(name, params[name]) for name in known if name in params}
    )


def shared_by_rounds(params: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a search's parameters that must agree before trials may share rounds.

    Args:
        params: name -> value, the user's own among them.

    Returns:
        The user's own and the grouping's. Of the others ``discover`` compares those that matter.

    Example:
        >>> shared_by_rounds({"rounds": 3, "steps": 10, "lr": 0.1})
        {'lr': 0.1}
    """
    ours = [field.name for field in fields(TrialParameters)]
    return {name: plain_value(name, params[name]) for name in sorted(params) if name not in ours}


def plain_value(name: str, value: Any) -> Any:
    """A parameter as Python's own value; tuners also give numpy's, and whole numbers as floats.

    Args:
        name: the parameter's.
        value: as given.

    Returns:
        The value.

    Raises:
        InvalidArgument: patterns are no list of strings.

    Example:
        >>> plain_value("n_clusters", 4.0)
        4
    """
    if name == "private_parameters":
        patterns = (value,) if isinstance(value, str) else value
        if not isinstance(patterns, list | tuple) or not all(isinstance(p, str) for p in patterns):
            raise InvalidArgument(
                f"private_parameters must be a list of name patterns, got {value!r}"
            )
        return tuple(patterns)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        whole = name in (*_REQUIRED, "rewind_to", "seed", "n_clusters") and number.is_integer()
        return int(number) if whole else number
    return value


def _in_open_interval(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
