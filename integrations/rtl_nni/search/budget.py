"""What a search spent and saved, in optimizer steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from rtl_nni.search.records import TrialRecord
from rtl_plugin.integration_api import InvalidArgument


@dataclass(frozen=True)
class Budget:
    """Where the optimizer steps of a search went; all but the first add up to the first.

    A stop saves what the trial had before it, measured against training it all: with a warm start
    other trials might have lent some of that.

    Args:
        planned: that the trials would have taken, each to its end and each alone.
        done: that are known to have been done.
        cut: an allowance for rounds in which trials were killed: all steps of one round each.
        stopped: saved by stopping trials: what they had before them, less ``cut``.
        reused: saved by taking rounds from other trials.
        left: saved in finished trials, by tickets that left the rounds before their last.
        missing: of trials that died or are unfinished.
        trials: how many there are.
        unknown: how many of them said no plan, most often because they died before they could;
            they count nowhere above.
        seconds: of all trials together, until the end or the last finished round.
        seconds_saved: that reused rounds took where they were trained.

    Example:
        >>> ended = TrialRecord("a", "finished", steps_planned=100, steps_done=80, steps_reused=20)
        >>> stopped = TrialRecord("b", "stopped", steps_planned=100, steps_done=30, steps_cut=10)
        >>> print(budget([ended, stopped]))
        steps                  number    share
        -------------------  --------  -------
        planned                   200  100.0 %
        done                      110   55.0 %
        cut off, at a guess        10    5.0 %
        saved by stops             60   30.0 %
        saved by reuse             20   10.0 %
    """

    planned: int
    done: int
    cut: int
    stopped: int
    reused: int
    left: int
    missing: int
    trials: int
    unknown: int
    seconds: float
    seconds_saved: float

    def share(self, part: int) -> float:
        """A number of steps as a share of those planned.

        Args:
            part: one of the other fields that count steps.

        Returns:
            In [0, 1]; NaN where nothing was planned.
        """
        return part / self.planned if self.planned else float("nan")

    @property
    def saved(self) -> int:
        """Steps saved by stops, by reuse and by tickets that left."""
        return self.stopped + self.reused + self.left

    def __str__(self) -> str:
        parts = {
            "planned": self.planned,
            "done": self.done,
            "cut off, at a guess": self.cut,
            "saved by stops": self.stopped,
            "saved by reuse": self.reused,
            "saved by tickets that left": self.left,
            "of trials without an end": self.missing,
        }
        lines = [
            (name, f"{part:,}", f"{100 * self.share(part):.1f} %")
            for name, part in parts.items()
            if part or name in ("planned", "done")
        ]
        table = tabulate(
            lines,
            headers=["steps", "number", "share"],
            colalign=["left", "right", "right"],
            disable_numparse=True,
        )
        notes = []
        if self.seconds_saved:
            notes.append(
                f"trials took {self.seconds:.0f} s; the rounds that they reused had taken "
                f"{self.seconds_saved:.0f} s"
            )
        if self.unknown:
            notes.append(
                f"{self.unknown} of {self.trials} trials said no plan, and count nowhere here"
            )
        return "\n".join([table, *notes])


def budget(records: Sequence[TrialRecord]) -> Budget:
    """Add up what trials planned, did and saved.

    Args:
        records: from :func:`rtl_nni.read_trials`.

    Returns:
        The sums.

    Raises:
        InvalidArgument: there are no records.

    Example:
        >>> half = TrialRecord("a", "stopped", steps_planned=100, steps_done=50)
        >>> sums = budget([half])
        >>> sums.stopped, sums.share(sums.saved)
        (50, 0.5)
    """
    if not records:
        raise InvalidArgument("records must hold at least one trial: see rtl_nni.read_trials")
    sums = dict.fromkeys(("planned", "done", "cut", "stopped", "reused", "left", "missing"), 0)
    for record in records:
        if record.steps_planned is None:
            continue
        rest = record.steps_planned - record.steps_done - record.steps_reused
        cut = max(0, min(record.steps_cut, rest))
        kind = {"finished": "left", "stopped": "stopped"}.get(record.status, "missing")
        sums["planned"] += record.steps_planned
        sums["done"] += record.steps_done
        sums["reused"] += record.steps_reused
        sums["cut"] += cut
        sums[kind] += rest - cut
    return Budget(
        **sums,
        trials=len(records),
        unknown=sum(record.steps_planned is None for record in records),
        seconds=sum(record.seconds for record in records),
        seconds_saved=sum(record.seconds_saved for record in records),
    )
