"""A ready search space over what a trial of adaptive tickets can vary."""

from collections.abc import Mapping, Sequence
from typing import Any

from rtl_nni.search.parameters import checked_parameters
from rtl_nni.search.space_entry import as_entry, is_number
from rtl_plugin.integration_api import CollapseRule, InvalidArgument, whole_number

_WHOLE = ("rounds", "steps", "epochs", "rewind_to", "seed", "n_clusters")
_SAMPLE: Mapping[str, Any] = {"rounds": 2, "steps": 1, "epochs": 1}

Values = Sequence[Any] | tuple[Any, Any] | Mapping[str, Any] | int | float | str | bool


def search_space(
    *,
    sparsity: Values | None = None,
    pruned_per_round: Values | None = None,
    rounds: Values = (2, 8),
    schedule: Values | None = None,
    steps: Values | None = None,
    epochs: Values | None = None,
    importance: Values | None = None,
    private_parameters: Sequence[Sequence[str]] | None = None,
    rewind_to: Values | None = None,
    floor: Values | None = None,
    stop_before_collapse: Values | None = None,
    grouping: Values | None = None,
    n_clusters: Values | None = None,
    seed: Values | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The NNI search space of :func:`rtl_nni.run_trial`, with your own entries beside.

    Every argument takes a list (a choice), a tuple ``(low, high)`` (a range: whole numbers for
    rounds, steps and other counts, both ends included; uniform numbers otherwise), one value, or an
    entry of NNI's as it is: ``{"_type": "loguniform", "_value": [...]}``. What is None stays out of
    the space: fix it in the trial, ``{"steps": 100, **rtl_nni.next_parameters()}``, or it keeps its
    default.

    Args:
        sparsity: of every ticket, in (0, 1); without ``pruned_per_round`` by default the range
            (0.5, 0.98).
        pruned_per_round: instead: the fraction of the survivors that every round prunes. Trials
            that differ in ``rounds`` alone can share their first rounds then (``warm_start``).
        rounds: of discovery.
        schedule: of "geometric", "linear", "cubic".
        steps: optimizer steps of every (round, group).
        epochs: of joint retraining.
        importance: names that ``discover`` knows.
        private_parameters: a choice of lists of name patterns.
        rewind_to: dense training steps before the rewind point.
        floor: fraction of each tensor that survives at least.
        stop_before_collapse: whether every ticket finds its own sparsity; ``[False, True]``.
        grouping: names that your groups builder knows.
        n_clusters: how many clusters your groups builder makes.
        seed: of every random stream.
        own: name -> NNI entry of your own hyperparameters; tell ``run_trial`` their names.

    Returns:
        A space for ``config.search_space``; also JSON for ``searchSpaceFile``.

    Raises:
        InvalidArgument: a tuner could propose what a trial refuses, an entry is not one of NNI's,
            or a name is taken.

    Example:
        >>> own = {"lr": {"_type": "loguniform", "_value": [1e-4, 1e-2]}}
        >>> for name, entry in search_space(sparsity=[0.9, 0.97], rounds=(2, 5), own=own).items():
        ...     print(name, entry)
        sparsity {'_type': 'choice', '_value': [0.9, 0.97]}
        rounds {'_type': 'randint', '_value': [2, 6]}
        lr {'_type': 'loguniform', '_value': [0.0001, 0.01]}
    """
    if sparsity is not None and pruned_per_round is not None:
        raise InvalidArgument("search either sparsity or pruned_per_round, not both")
    if sparsity is None and pruned_per_round is None:
        sparsity = (0.5, 0.98)
    if pruned_per_round is not None and schedule is not None:
        raise InvalidArgument(
            "pruned_per_round is the geometric schedule: leave schedule= out of the space"
        )
    asked = {
        "sparsity": sparsity, "pruned_per_round": pruned_per_round, "rounds": rounds,
        "schedule": schedule, "steps": steps, "epochs": epochs, "importance": importance,
        "private_parameters": private_parameters, "rewind_to": rewind_to, "floor": floor,
        "stop_before_collapse": stop_before_collapse, "grouping": grouping,
        "n_clusters": n_clusters, "seed": seed,
    }  # fmt: skip
    space = {name: _entry(name, value) for name, value in asked.items() if value is not None}
    for name, entry in (own or {}).items():
        if name in asked:
            raise InvalidArgument(f"own names {name!r}, which is search_space's own: rename it")
        space[name] = as_entry(name, entry)
    _check_together(space)
    return space


def _entry(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        entry = as_entry(name, value)
    elif isinstance(value, tuple):
        entry = _range(name, value)
    else:
        entry = as_entry(
            name, {"_type": "choice", "_value": value if isinstance(value, list) else [value]}
        )
    _check_kind(name, entry)
    for sample in _extremes(entry):
        _check(name, sample)
    return entry


def _range(name: str, value: tuple[Any, ...]) -> dict[str, Any]:
    ends = [end for end in value if is_number(end)]
    if len(value) != 2 or len(ends) != 2 or not ends[0] < ends[1]:
        raise InvalidArgument(
            f"{name}={value!r}: a tuple is a range (low, high) of numbers; give a list for a choice"
        )
    if name not in _WHOLE:
        return as_entry(name, {"_type": "uniform", "_value": ends})
    for end in ends:
        _check(name, end)
    # NNI leaves the upper end out.
    return {"_type": "randint", "_value": [int(ends[0]), int(ends[1]) + 1]}


def _check_kind(name: str, entry: Mapping[str, Any]) -> None:
    """Refuse a distribution some of whose values a trial would refuse."""
    kind, values = entry["_type"], entry["_value"]
    if "normal" in kind:
        raise InvalidArgument(
            f"{name}: {kind} has no ends, so a tuner may propose what a trial refuses: use "
            "uniform, loguniform, or their forms with a step"
        )
    if kind in ("choice", "randint") or name not in _WHOLE:
        return
    if not kind.startswith("q") or not all(float(number).is_integer() for number in values):
        raise InvalidArgument(
            f"{name} counts something: {kind} of {values} gives fractions too; use randint, or "
            "quniform with whole ends and a whole step"
        )


def _extremes(entry: Mapping[str, Any]) -> list[Any]:
    """Values that a tuner may propose: all of a choice, the ends of a range."""
    kind, values = entry["_type"], entry["_value"]
    if kind == "choice":
        return list(values)
    if kind == "randint":
        return [values[0], values[1] - 1]
    # With a step, NNI rounds to its multiples and cuts at the ends.
    steps = [round(end / values[2]) * values[2] for end in values[:2]] if kind[0] == "q" else values
    low, high = values[:2]
    return [min(max(end, low), high) for end in steps]


def _check(name: str, value: Any) -> None:
    """Refuse a value that a trial would refuse, before any trial runs."""
    if name == "grouping":
        return
    if name == "n_clusters":
        whole_number(name, int(value) if is_number(value) and value == int(value) else value, 1)
    elif name == "private_parameters" and isinstance(value, str):
        raise InvalidArgument(
            f"private_parameters is a choice of lists of name patterns, got the pattern {value!r} "
            f"as one of its values: [[{value!r}, ...]]"
        )
    elif name == "pruned_per_round":
        checked_parameters({**_SAMPLE, name: value})
    else:
        checked_parameters({**_SAMPLE, "sparsity": 0.5, name: value})


def _check_together(space: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what contradicts itself whatever the network is."""
    reach = {name: _extremes(entry) for name, entry in space.items()}
    rates = {name: reach[name] for name in ("sparsity", "pruned_per_round") if name in reach}
    name, rate = next(iter(rates.items()))
    if "rounds" not in reach:
        return
    most = {"rounds": max(reach["rounds"]), name: max(rate)}
    sparsest = checked_parameters({**_SAMPLE, **most})
    if (floor := max(reach.get("floor", [0]))) > 1 - sparsest.target + 1e-9:  # 1 - 0.9 < 0.1
        raise InvalidArgument(
            f"floor={floor} keeps more of every tensor than {sparsest.target:.4f} sparsity leaves, "
            f"which {most} prune to: lower one of them"
        )
    if True in reach.get("stop_before_collapse", ()):
        least = {"rounds": min(reach["rounds"]), name: min(rate)}
        _check_can_ring(least, reach.get("schedule", ["geometric"]))


def _check_can_ring(least: Mapping[str, Any], schedules: Sequence[str]) -> None:
    """``discover`` refuses to promise a stop that can never come."""
    for schedule in schedules:
        planned = checked_parameters({**_SAMPLE, **least, "schedule": schedule}).sparsities()
        if CollapseRule().first_round([1 - sparsity for sparsity in planned]) is None:
            raise InvalidArgument(
                f"stop_before_collapse needs rounds to see a change in, and {least} with the "
                f"{schedule} schedule give too few: raise the lower end of rounds or of sparsity"
            )
