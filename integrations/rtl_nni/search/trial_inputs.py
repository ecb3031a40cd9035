"""What a trial is made of, checked before it trains: folder, donors, groups, model, figures."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from rtl_nni.search.parameters import GROUPING, plain_value
from rtl_nni.search.reporting import under_nni
from rtl_nni.search.round_log import finite_number
from rtl_nni.search.trial_folder import TrialFolder
from rtl_nni.search.trial_task import TrialTask
from rtl_plugin.integration_api import (
    DataGroups,
    InvalidArgument,
    MixtureOfMasks,
    RunFolderMismatch,
    WarmStart,
    derived_seed,
    forked,
    software_versions,
)

BuildModel: TypeAlias = Callable[[int], nn.Module]
BuildGroups: TypeAlias = Callable[[Mapping[str, Any]], DataGroups]
Measure: TypeAlias = Mapping[str, Callable[[MixtureOfMasks], float]]
PathLike: TypeAlias = str | os.PathLike[str]

# Costs of the Pareto front that every trial has.
_OURS = ("metric", "parameters", "density")


def trial_folder(folder: PathLike | None) -> TrialFolder | None:
    """Where a trial's files go.

    Args:
        folder: the caller's, or None.

    Returns:
        The folder; None where nothing is written.
    """
    if folder is None and under_nni():
        folder = os.environ["NNI_OUTPUT_DIR"]
    return None if folder is None else TrialFolder(folder)


def warm_start_from(
    warm_start: Any, files: TrialFolder | None, own: Mapping[str, Any]
) -> WarmStart | None:
    """Where other trials of the search lend rounds.

    Args:
        warm_start: True, False, the folder that the trials lie in, or the core's ``WarmStart``.
        files: this trial's.
        own: what must agree beside what ``discover`` compares.

    Returns:
        It; None where nobody is to lend.

    Raises:
        InvalidArgument: ``warm_start`` is something else, or this trial writes no files.
    """
    if warm_start is False:
        return None
    if files is None:
        raise InvalidArgument("warm_start shares rounds through files: give folder= too")
    if isinstance(warm_start, WarmStart):
        return replace(warm_start, key={"given": warm_start.key, "own": dict(own)})
    if warm_start is not True and not isinstance(warm_start, str | os.PathLike):
        raise InvalidArgument(
            f"warm_start must be True, False, a folder or a WarmStart, got {warm_start!r}"
        )
    beside = files.path.resolve().parent if warm_start is True else Path(warm_start)
    if beside.exists() and not beside.is_dir():  # before the first trial it is not there yet
        raise InvalidArgument(f"warm_start must be a folder of trials' folders, {beside} is a file")
    trials = sorted(path for path in beside.glob("*") if path.is_dir())
    others = [path for path in trials if path.resolve() != files.path.resolve()]
    return WarmStart([TrialFolder(path).run for path in others], key=dict(own))


def built_groups(groups: Any, params: Mapping[str, Any], seed: int) -> DataGroups:
    """The data groups of a trial.

    Args:
        groups: the groups, or a function of the parameters.
        params: the trial's.
        seed: of the function's random draws.

    Returns:
        The groups.

    Raises:
        InvalidArgument: they are something else, or parameters that only a function could read
            have no reader.
    """
    if isinstance(groups, DataGroups):
        if unused := [name for name in GROUPING if name in params]:
            raise InvalidArgument(
                f"params hold {unused[0]!r}, which nothing reads: give groups as a function that "
                "makes them from params"
            )
        return groups
    if not callable(groups):
        raise InvalidArgument(f"groups must be DataGroups or a function of params, got {groups!r}")
    with forked(derived_seed(seed, "groups")):
        made = groups({name: plain_value(name, value) for name, value in params.items()})
    if not isinstance(made, DataGroups):
        raise InvalidArgument(f"the function given as groups must return DataGroups, got {made!r}")
    return made


def built_model(build_model: Any, seed: int) -> nn.Module:
    """The network of a trial.

    Args:
        build_model: ``build_model(seed) -> nn.Module``.
        seed: the trial's.

    Returns:
        The network; the caller's random state is left alone.

    Raises:
        InvalidArgument: it cannot be called, or returns something else.
    """
    if not callable(build_model):
        raise InvalidArgument(
            f"build_model must be callable as build_model(seed) -> nn.Module, got {build_model!r}"
        )
    with forked(seed):
        model = build_model(seed)
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"build_model must return an nn.Module, got {model!r}")
    return model


def checked_measure(measure: Any) -> Measure:
    """The functions that measure a finished mixture.

    Args:
        measure: name -> function, or None.

    Returns:
        The functions.

    Raises:
        InvalidArgument: it is no such mapping, or a name is one that every trial has.
    """
    if measure is None:
        return {}
    if not isinstance(measure, Mapping) or not all(
        isinstance(name, str) and callable(figure) for name, figure in measure.items()
    ):
        raise InvalidArgument(f"measure must map names to functions of a mixture, got {measure!r}")
    if taken := [name for name in measure if name in _OURS]:
        raise InvalidArgument(f"measure names {taken[0]!r}, which every trial has: rename it")
    return dict(measure)


def measured_figures(figures: Measure, mixture: MixtureOfMasks, seed: int) -> dict[str, float]:
    """What the functions say of a mixture.

    Args:
        figures: name -> function.
        mixture: the finished one.
        seed: of their random draws.

    Returns:
        Name -> finite number.

    Raises:
        InvalidArgument: a function returned something else.
    """
    with forked(derived_seed(seed, "measure")):
        return {
            name: finite_number(f"measure[{name!r}]", figure(mixture))
            for name, figure in figures.items()
        }


def begin(files: TrialFolder, params: Mapping[str, Any], task: TrialTask) -> None:
    """Write what a trial was asked; what an earlier attempt at the same told is left as it is.

    Args:
        files: the trial's.
        params: as given.
        task: the trial's.

    Raises:
        RunFolderMismatch: the folder holds a trial that was asked something else.
    """
    sequence = os.environ.get("NNI_TRIAL_SEQ_ID")
    settings = {
        "params": plain(params),
        "asked": task.asked.to_json(),
        "groups": list(task.groups),
        "steps_planned": task.steps_planned,
        "sequence": int(sequence) if sequence is not None else None,
        "began": time.time(),
        "versions": software_versions(),
    }
    before = files.read(files.settings)
    for name in ("params", "asked", "groups"):
        if before is not None and before.get(name) != settings[name]:
            raise RunFolderMismatch(
                f"{files.path} holds a trial with {name}={before.get(name)}, this one has "
                f"{settings[name]}: use another folder, or the same parameters to go on"
            )
    files.write(files.settings, settings)


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON would give them back.

    Args:
        params: name -> value; numpy's numbers and arrays become Python's.

    Returns:
        Name -> value.

    Raises:
        InvalidArgument: a value has no place in JSON: trials could not be compared by it.

    Example:
        >>> plain({"patterns": ("a", "b"), "width": 3})
        {'patterns': ['a', 'b'], 'width': 3}
    """
    found = {}
    for name, value in params.items():
        try:
            found[name] = json.loads(json.dumps(value, default=_as_json))
        except TypeError as error:
            raise InvalidArgument(
                f"the parameter {name!r} must be JSON-able, as tuners' values are, got {value!r}: "
                "give a name or numbers, and build the object in the trial"
            ) from error
    return found


def _as_json(value: Any) -> Any:
    listed = getattr(value, "tolist", None)  # numpy's and torch's
    if not callable(listed):
        raise TypeError(f"{type(value).__name__} is not JSON-able")
    return listed()
