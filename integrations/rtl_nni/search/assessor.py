"""NNI's early stopping, by the masks of a trial's tickets instead of its metric."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search.collapse_stop import CollapseStop, StopVerdict
from rtl_nni.search.known_collapses import KnownCollapses
from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.integration_api import CollapseRule, InvalidArgument, MissingFile, whole_number

_host = imported("nni.assessor")
_Base: Any = _host.Assessor
_PATIENCE, _LOOK_SECONDS = 2.0, 0.2
_logger = logging.getLogger("rtl_nni.CollapseAssessor")


class CollapseAssessor(_Base):  # type: ignore[misc]
    """Stops a trial of :func:`rtl_nni.run_trial` when its tickets collapse; reads no metric.

    After every round that the trial reports, the core's collapse rule looks at how many weights
    the tickets share. Once trials have collapsed, one of the same kind (importance, floor, rewind
    point, seed, grouping and the user's own parameters) is stopped at its first report if it is to
    be pruned at least as far as all of them, and further than any that survived. NNI never checks
    class arguments before it starts, so a wrong one stops the experiment at once, from here.

    Args:
        share: of a trial's tickets whose alarms must have rung, in (0, 1].
        trials: folder below which every trial has its own, by trial id. By default that of NNI's
            local service; on another service a storage that manager and trials share. Trials
            with ``send_counts=True`` need none.
        remember: how many trials must have collapsed before others are stopped for it, at least 1;
            0 judges every trial by itself alone. A resumed experiment begins to count anew.
        fall: see :class:`rtl_plugin.CollapseRule`, as the others; by default the rule's own.
        rise: as ``fall``.
        noise: as ``fall``.
        window: as ``fall``.
        warm_up: as ``fall``.

    Raises:
        InvalidArgument: an argument is unknown or out of range.

    Example:
        >>> assessor = CollapseAssessor(share=0.5, trials="trials")
        >>> assessor.stop.share, assessor.stop.rule.warm_up
        (0.5, 2)
    """

    def __init__(
        self,
        share: float = 0.5,
        trials: str | os.PathLike[str] | None = None,
        remember: int = 2,
        **rule: float,
    ) -> None:
        known = CollapseRule().description()
        if unknown := [name for name in rule if name not in known]:
            raise InvalidArgument(
                f"CollapseAssessor has no class argument {unknown[0]!r}: it takes share, trials, "
                f"remember and {', '.join(known)}"
            )
        if trials is not None and not isinstance(trials, str | os.PathLike):
            raise InvalidArgument(f"trials must be the path of a folder, got {trials!r}")
        self.stop = CollapseStop(share, CollapseRule(**rule))  # type: ignore[arg-type]
        self._trials = None if trials is None else Path(trials)
        self._remember = whole_number("remember", remember, 0)
        self._known: dict[str, KnownCollapses] = {}
        self._seen: set[str] = set()
        self._stopped: set[str] = set()
        self._told: set[str] = set()

    def assess_trial(self, trial_job_id: str, trial_history: Sequence[Any]) -> Any:
        """Whether a trial goes on; NNI calls it.

        Args:
            trial_job_id: the trial.
            trial_history: its intermediate results, one a round.

        Returns:
            ``AssessResult.Good`` or ``AssessResult.Bad``.

        Raises:
            MissingFile: the trial told no rounds where they are looked for; NNI ends the
                experiment then, instead of running trials that nobody watches.
        """
        if trial_job_id in self._stopped:  # it may report once more before it is gone
            return _host.AssessResult.Bad
        rounds = self._rounds(trial_job_id, trial_history)
        own = self.stop.verdict(rounds)
        # At its first report only: whoever is further has shown by itself that it holds.
        first = trial_job_id not in self._seen
        self._seen.add(trial_job_id)
        verdict = own or (self._doomed(rounds[-1]) if first else None)
        if verdict is None:
            self._pass(trial_job_id, rounds)
            return _host.AssessResult.Good
        self._stopped.add(trial_job_id)
        if own is not None:
            self._alike(rounds[-1]).collapsed(own.sparsity)
        _logger.info("stopped trial %s: %s", trial_job_id, verdict.reason)
        self._record(trial_job_id, verdict)
        return _host.AssessResult.Bad

    def trial_end(self, trial_job_id: str, success: bool) -> None:
        """Forget a trial; NNI calls it.

        Args:
            trial_job_id: the trial.
            success: whether it came to its end.
        """
        for known in (self._seen, self._stopped, self._told):
            known.discard(trial_job_id)

    def _rounds(self, trial: str, history: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        told = [entry.get("round") for entry in history if isinstance(entry, Mapping)]
        sent = [row for row in told if isinstance(row, Mapping)]
        if len(sent) == len(history):
            return sent
        folder, rounds = self._read(trial, len(history))
        if len(rounds) < len(history):
            where = "no folder of its own" if folder is None else str(folder.rounds)
            raise MissingFile(
                f"trial {trial} reported {len(history)} rounds and {where} tells of {len(rounds)}: "
                "CollapseAssessor needs trials that call rtl_nni.run_trial and report nothing "
                "else, and the folder with them in trials=, or run_trial(send_counts=True) on "
                "services without a shared one"
            )
        return rounds[: len(history)]

    def _read(
        self, trial: str, wanted: int
    ) -> tuple[TrialFolder | None, Sequence[Mapping[str, Any]]]:
        """A trial's folder and rounds; on a shared storage they may come a little late."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            folder = self._folder(trial)
            rounds = [] if folder is None else folder.read_rounds()
            if len(rounds) >= wanted or time.monotonic() > deadline:
                return folder, rounds
            time.sleep(_LOOK_SECONDS)

    def _folder(self, trial: str) -> TrialFolder | None:
        if self._trials is not None:
            return TrialFolder(self._trials / trial)
        return _of_local_service(trial)

    def _alike(self, row: Mapping[str, Any]) -> KnownCollapses:
        """What is known of trials of this one's kind."""
        key = json.dumps(row.get("alike"), sort_keys=True)
        return self._known.setdefault(key, KnownCollapses(self._remember))

    def _doomed(self, last: Mapping[str, Any]) -> StopVerdict | None:
        """A trial that is to go where others collapsed; tickets that stop by themselves are not."""
        target = last.get("target")
        alone = len(last["names"]) < 2  # shares weights with nobody, so it cannot collapse
        if target is None or alone or last["round"] == last["of"]:
            return None
        known = self._alike(last)
        if not known.dooms(target, 1 / last["prunable"]):
            return None
        reason = f"it is to be pruned to {target:.2%} sparsity: {known}, and none survived as far"
        return StopVerdict(last["round"], last["of"], last["sparsity"], (), reason)

    def _pass(self, trial: str, rounds: Sequence[Mapping[str, Any]]) -> None:
        """Remember a trial that is through its rounds, or say that it could not be watched."""
        last = rounds[-1]
        if last["round"] < last["of"] or trial in self._told:
            return
        self._told.add(trial)
        if self.stop.can_ring(rounds):
            if last.get("target") is not None:
                self._alike(last).survived(last["target"])
            return
        tickets = len(rounds[0]["names"])
        why = "it has one ticket" if tickets < 2 else "its rounds are too few for the rule"
        _logger.info("trial %s could not be watched: %s", trial, why)

    def _record(self, trial: str, verdict: StopVerdict) -> None:
        folder = self._folder(trial)
        if folder is not None and folder.path.is_dir():
            folder.write(folder.stopped, verdict.to_json() | {"by": type(self).__name__})


def _of_local_service(trial: str) -> TrialFolder | None:
    """Where NNI's local service keeps a trial, seen from its dispatcher; None elsewhere."""
    logs = os.environ.get("NNI_LOG_DIRECTORY")
    if logs is None:
        return None
    # The service decides on the environment's name when the experiment starts.
    found = sorted(Path(logs).parent.glob(f"environments/*/trials/{trial}"))
    return TrialFolder(found[0]) if found else None
