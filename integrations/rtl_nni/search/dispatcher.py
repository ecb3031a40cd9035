"""NNI's dispatcher, the process of tuner and assessor: whether it still works, and why not.

Where tuner or assessor raise, the dispatcher ends without a word to the manager, which then says
RUNNING for ever and starts no further trial. It ends at the manager's next command only, so it
may also stand there with nobody who works.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_nni.search import processes

# What NNI logs when an exception ends a thread of the dispatcher, or the whole.
_ENDED = re.compile(r"^\[[^]]*\] ERROR \(nni\.(?:runtime\.msg_dispatcher_base|main)/", re.M)
_TRACEBACK = "Traceback (most recent call last):"


@dataclass
class Dispatcher:
    """The dispatcher of a running experiment.

    Args:
        log: its log file, which a resumed experiment goes on writing.
        begin: bytes of the log that are of earlier calls.
        read: bytes of this call that were looked at.
        process: its psutil.Process, once it was seen.
        since: when it was first seen not to work, in seconds of a steady clock.
        raised: whether the log tells of an exception that ended a part of it.
    """

    log: Path
    begin: int = 0
    read: int = 0
    process: Any | None = None
    since: float | None = None
    raised: bool = False

    @classmethod
    def of(cls, folder: Path) -> "Dispatcher":
        """The dispatcher that is about to be started for an experiment.

        Args:
            folder: the experiment's folder.

        Returns:
            It; what its log holds already is of earlier calls.
        """
        log = folder / "log" / "dispatcher.log"
        return cls(log, log.stat().st_size if log.is_file() else 0)

    def seconds_dead(self, manager: Any, now: float) -> float:
        """How long it has not worked for.

        Args:
            manager: psutil.Process of the manager.
            now: seconds of a steady clock.

        Returns:
            Seconds, 0 while it works.
        """
        if not self._works(manager):
            self.since = now if self.since is None else self.since
            return now - self.since
        self.since = None
        return 0.0

    def why(self) -> str:
        """The last exception in its log, or that there is none."""
        lines = self._from(self.begin).decode("utf-8", "replace").splitlines()
        return last_exception(lines) or "it wrote no exception into its log"

    def _works(self, manager: Any) -> bool:
        if self.process is None:
            self.process = processes.dispatcher_below(manager)
        return (
            self.process is not None and processes.is_alive(self.process) and not self._has_raised()
        )

    def _has_raised(self) -> bool:
        if not self.raised:
            new = self._from(self.begin + self.read)
            whole = new[: new.rfind(b"\n") + 1]  # the last line may still grow
            self.raised = _ENDED.search(whole.decode("utf-8", "replace")) is not None
            self.read += len(whole)
        return self.raised

    def _from(self, byte: int) -> bytes:
        if not self.log.is_file():
            return b""
        with self.log.open("rb") as file:
            file.seek(byte)
            return file.read()


def last_exception(lines: list[str]) -> str | None:
    """The line that names the last exception of a log.

    Args:
        lines: of the log.

    Returns:
        Its type and message, or None where the log has no traceback.

    Example:
        >>> last_exception(["[..] ERROR (..) 1", "Traceback (most recent call last):",
        ...                 "  File ...", "KeyError: 1", "[..] INFO (..) Dispatcher exiting..."])
        'KeyError: 1'
    """
    begins = [i for i, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    if not begins:
        return None
    rest = lines[begins[-1] + 1 :]
    return next((line for line in rest if line.strip() and not line.startswith(" ")), None)
