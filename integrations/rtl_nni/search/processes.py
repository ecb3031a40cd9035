"""The processes of an experiment: NNI's manager, its dispatcher, and the trials.

They are known by what NNI wrote into their command line and environment, so they are found when
their parents are gone too.
"""

import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from rtl_plugin.integration_api import require

_POLL = 0.05


def _psutil() -> Any:
    return require("psutil", "nni", "rtl_nni")


def is_alive(process: Any) -> bool:
    """Whether a psutil.Process still runs; one that only waits to be collected does not."""
    psutil = _psutil()
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, so there it is
        return True


def manager_of(folder: Path) -> Any | None:
    """NNI's manager of an experiment.

    Args:
        folder: the experiment's folder, whose name is its id.

    Returns:
        Its psutil.Process, or None where none runs.
    """
    return next((p for p in _alive_others() if _is_manager(p, folder)), None)


def processes_of(folder: Path) -> list[Any]:
    """Every process of an experiment on this machine but the caller's own line.

    Args:
        folder: the experiment's folder, whose name is its id.

    Returns:
        Manager, dispatcher, trials and what these started, as psutil.Process.
    """
    found = [p for p in _alive_others() if _is_manager(p, folder) or _is_child(p, folder)]
    for process in list(found):
        found += [each for each in descendants(process) if each not in found]
    return found


def dispatcher_below(manager: Any) -> Any | None:
    """The process that NNI's manager started for tuner and assessor.

    Args:
        manager: psutil.Process of the manager.

    Returns:
        Its psutil.Process, or None where there is none. What a tuner started does not count.
    """
    psutil = _psutil()
    try:
        children = manager.children()
    except psutil.Error:
        return None
    return next((p for p in children if is_alive(p) and _is_dispatcher(p)), None)


def descendants(process: Any) -> list[Any]:
    """The processes below a psutil.Process, none where it has gone."""
    psutil = _psutil()
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def end(processes: Iterable[Any], grace: float = 3.0) -> list[Any]:
    """Terminate processes, kill those that stay, and wait for all of them.

    Args:
        processes: psutil.Process of each.
        grace: seconds between asking and killing, and again for the killed to go.

    Returns:
        Those that are still there.
    """
    left = list(processes)
    for method in ("terminate", "kill"):
        left = ended_after(method, left, grace)
    return left


def ended_after(method: str, processes: Iterable[Any], seconds: float) -> list[Any]:
    """Ask processes to end and wait for those that may be asked.

    Args:
        method: of psutil.Process, "terminate" or "kill".
        processes: psutil.Process of each.
        seconds: how long to wait, at most.

    Returns:
        Those that are still there.
    """
    psutil = _psutil()
    asked, others = [], []
    for process in processes:
        try:
            getattr(process, method)()
            asked.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            others.append(process)
    return [process for process in others if is_alive(process)] + _waited_for(asked, seconds)


def _waited_for(processes: list[Any], seconds: float) -> list[Any]:
    until = time.monotonic() + seconds
    alive = [process for process in processes if is_alive(process)]
    while alive and time.monotonic() < until:
        time.sleep(_POLL)
        alive = [process for process in alive if is_alive(process)]
    return alive


def _alive_others() -> list[Any]:
    psutil = _psutil()
    own = psutil.Process()
    line = {own.pid, *(parent.pid for parent in own.parents())}
    return [p for p in psutil.process_iter() if p.pid not in line and is_alive(p)]


def _is_manager(process: Any, folder: Path) -> bool:
    psutil = _psutil()
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    options = dict(pairwise(words))
    return (
        options.get("--experiment-id") == folder.name
        and options.get("--experiments-directory") == str(folder.parent)
        and "main.js" in " ".join(words)
    )


def _is_dispatcher(process: Any) -> bool:
    return _environment(process).get("SDK_PROCESS") == "dispatcher"


def _is_child(process: Any, folder: Path) -> bool:
    environment = _environment(process)
    if environment.get("SDK_PROCESS") == "dispatcher":
        return bool(environment.get("NNI_LOG_DIRECTORY") == str(folder / "log"))
    output = environment.get("NNI_OUTPUT_DIR", "")
    return environment.get("NNI_EXP_ID") == folder.name and folder in Path(output).parents


def _environment(process: Any) -> dict[str, str]:
    psutil = _psutil()
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):  # another user's, or gone
        return {}
