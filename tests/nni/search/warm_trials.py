"""Trials that share a folder, for tests of what they take from each other."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

import rtl_nni
from rtl_nni.search.trial_folder import TrialFolder
from tests.nni.search.trial_setups import trial

PATH = {"pruned_per_round": 0.4, "rounds": 4, "steps": 4, "epochs": 1, "seed": 3}
ROUND = 3 * PATH["steps"]  # optimizer steps of a round of three groups
EPOCH = 9  # of the retraining: three groups, the longest has three batches
# Of the bytes in a trial's folder only these tell times and where things came from.
TIMED = ("log.jsonl", "trial.json", "rounds.jsonl", "result.json")


@contextmanager
def counted(die_at: int | None = None, rehearsed: int = 0) -> Iterator[list[int]]:
    """Every step that an optimizer makes meanwhile, but for the first that a warm start rehearses;
    at one of them the process is interrupted.
    """
    made: list[int] = []
    before = iter(range(rehearsed))

    def hook(*_: Any) -> None:
        if next(before, None) is not None:
            return
        made.append(len(made) + 1)
        if made[-1] == die_at:
            raise KeyboardInterrupt

    handle = register_optimizer_step_post_hook(hook)
    try:
        yield made
    finally:
        handle.remove()


def warm(folder: Path, params: Mapping[str, Any] = PATH, **options: Any) -> rtl_nni.TrialResult:
    return trial(params, folder=folder, **({"warm_start": True} | options))


def run_files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(TrialFolder(folder).read_rounds())


def reused(folder: Path) -> list[list[str]]:
    return [row["reused"] for row in rows(folder)]


def but(told: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in names}


def planned(params: Mapping[str, Any]) -> int:
    return params.get("rewind_to", 0) + params["rounds"] * ROUND + params["epochs"] * EPOCH
