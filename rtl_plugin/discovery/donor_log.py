"""What the log of a run says about where its results come from."""

import functools
import math
from typing import NamedTuple

from rtl_plugin.run_folder import RunFolder


class Place(NamedTuple):
    """Which result of a run: the rewind point is round 0 and belongs to no group."""

    round: int
    group: str | None


class Time(NamedTuple):
    """How long training a result took, and whether it was then taken over from another run."""

    reused: bool
    seconds: float


def run_times(folder: RunFolder) -> dict[Place, Time]:
    """What a run's log says of each of its results; the last word counts.

    Args:
        folder: the run's.

    Returns:
        Time of every result that the log names; 0 seconds where it does not say.

    Example:
        >>> run_times(RunFolder("no-such-folder", "discover"))
        {}
    """
    times = {}
    for event in folder.events():
        kind, seconds = event.get("event"), event.get("seconds")
        round, group = event.get("round", 0), event.get("group")
        if kind not in ("round", "reused", "rewind_point"):
            continue
        if isinstance(round, int) and isinstance(group, (str, type(None))):
            known = isinstance(seconds, (int, float)) and math.isfinite(seconds)
            spent = float(seconds) if known and seconds is not None else 0.0
            times[Place(round, group)] = Time(kind == "reused", spent)
    return times


class Donor:
    """Another run, as it is at one moment.

    Args:
        folder: its run folder.

    Example:
        >>> Donor(RunFolder("no-such-folder", "discover")).times
        {}
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @functools.cached_property
    def times(self) -> dict[Place, Time]:
        """What its log says of each of its results; nothing where it cannot be read."""
        try:
            return run_times(self.folder)
        except OSError:
            return {}  # what it took is not known then, and the rounds are as good
