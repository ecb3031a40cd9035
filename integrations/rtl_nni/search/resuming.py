"""Which experiments this user has, and what one must be like to go on.

NNI keeps a list of all of a user's experiments in ``nni-experiments/.experiment`` below the home
folder, whatever folder the experiment itself lies in.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search import experiment_config, processes
from rtl_plugin.integration_api import DamagedFile, InvalidArgument

# What a manager takes while it runs; NNI ignores every other change of a resumed experiment.
_UPDATES = {
    "maxTrialNumber": "update_max_trial_number",
    "maxExperimentDuration": "update_max_experiment_duration",
    "trialConcurrency": "update_trial_concurrency",
}
_FREE = {"logLevel", "debug"}  # of the manager's process, not of the experiment


def listed(experiment_id: str) -> dict[str, Any] | None:
    """What NNI's list says of an experiment, or None where it is not in there."""
    entry = _list().get_all_experiments().get(experiment_id)
    return entry if isinstance(entry, dict) else None


def listed_folder(experiment_id: str) -> Path:
    """The folder of an experiment by NNI's list.

    Args:
        experiment_id: the experiment's id.

    Returns:
        Its folder.

    Raises:
        InvalidArgument: the list does not have it.
    """
    entry = listed(experiment_id)
    if entry is None:
        known = ", ".join(sorted(_list().get_all_experiments())) or "none"
        raise InvalidArgument(
            f"there is no experiment {experiment_id!r} in NNI's list, {_list().experiment_file} "
            f"(it has: {known}); the list belongs to the user who ran it"
        )
    return Path(entry["logDir"]) / experiment_id


def check_new(experiment_id: str, folder: Path) -> None:
    """Refuse a new experiment under an id that is taken.

    Args:
        experiment_id: the id that was asked for.
        folder: where it would lie.

    Raises:
        InvalidArgument: NNI would not accept it, or it exists.
    """
    valid = imported("nni.experiment.management").is_valid_experiment_id
    if not isinstance(experiment_id, str) or not valid(experiment_id):
        raise InvalidArgument(
            "experiment_id must be 1 to 32 letters, digits, hyphens or underscores, "
            f"got {experiment_id!r}"
        )
    if listed(experiment_id) is not None or (folder / "db").exists():
        raise InvalidArgument(
            f"experiment {experiment_id!r} exists already (in {folder}, or by NNI's list): pass "
            f"resume={experiment_id!r} alone to go on with it, or another experiment_id"
        )


def check_resumable(experiment_id: str) -> Path:
    """Refuse to resume an experiment that does not exist or still runs.

    Where NNI's list says that it runs and its manager is gone, the list is put right.

    Args:
        experiment_id: the experiment's id.

    Returns:
        Its folder.

    Raises:
        InvalidArgument: it is unknown, its files are gone, or its manager still runs.
    """
    folder = listed_folder(experiment_id)
    manager = processes.manager_of(folder)
    if manager is not None:
        port = (listed(experiment_id) or {}).get("port")
        raise InvalidArgument(
            f"experiment {experiment_id!r} still runs: its manager is process {manager.pid} on "
            f"port {port}. Look at http://localhost:{port}, or stop it with "
            f"rtl_nni.stop_experiment({experiment_id!r}) and resume it then"
        )
    if not (folder / "db" / "nni.sqlite").is_file():
        raise InvalidArgument(
            f"experiment {experiment_id!r} has no database below {folder}, so there is nothing "
            "to resume: its folder was moved or removed"
        )
    set_stopped(experiment_id)
    return folder


def set_stopped(experiment_id: str) -> None:
    """Put NNI's list right where a manager went without saying so; nothing for unknown ids."""
    _list().update_experiment(experiment_id, "status", "STOPPED")


def updates(config: Any | None, folder: Path) -> dict[str, Any]:
    """What a configuration changes in a resumed experiment.

    Args:
        config: a checked configuration, or None for that which the experiment was begun with.
        folder: the experiment's folder.

    Returns:
        Name of a method of nni.experiment.Experiment -> its argument.

    Raises:
        InvalidArgument: it changes what NNI takes from its database only.
        DamagedFile: the database cannot be read.
    """
    if config is None:
        return {}
    stored = _stored("get_stopped_experiment_config_json", folder)
    given = json.loads(json.dumps(config.json()))
    changed = {k for k in {*stored, *given} - _FREE if stored.get(k) != given.get(k)}
    refused = sorted(k for k in changed if k not in _UPDATES or k not in given)
    if refused:
        raise InvalidArgument(
            f"a resumed experiment keeps its configuration, but {', '.join(refused)} differ: "
            f"only {', '.join(_UPDATES)} may change (config=None takes all as it was); begin a "
            "new experiment for the rest"
        )
    return {_UPDATES[key]: given[key] for key in sorted(changed)}


def stored_config(folder: Path) -> Any:
    """The configuration that an experiment was begun with.

    Args:
        folder: the experiment's folder.

    Returns:
        The checked configuration.

    Raises:
        DamagedFile: the database cannot be read.
    """
    return experiment_config.checked(_stored("get_stopped_experiment_config", folder))


def _stored(reader: str, folder: Path) -> Any:
    read = getattr(imported("nni.experiment.launcher"), reader)
    try:
        return read(folder.name, str(folder.parent))
    # NNI takes the first row of none, and loads what need not be JSON.
    except (sqlite3.Error, AttributeError, TypeError, ValueError, LookupError) as error:
        raise DamagedFile(
            f"{folder / 'db' / 'nni.sqlite'} holds no configuration to resume from ({error}): "
            "begin a new experiment"
        ) from error


def _list() -> Any:
    return imported("nni.tools.nnictl.config_utils").Experiments()
