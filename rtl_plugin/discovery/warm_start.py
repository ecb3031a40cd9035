"""Naming the runs whose first rounds a discovery may take over."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_plugin.errors import InvalidArgument


@dataclass(frozen=True)
class WarmStart:
    """Runs of one search whose first rounds may be taken over instead of trained again.

    A round is taken where nothing that decides its result differs: arguments of ``discover`` but
    the schedule, the numbers of weights kept in all rounds up to it, the first batches of every
    group, the code of loss, optimizer, metric, importance and modules with the settings that it
    reads, loss and metric of the untrained model, two steps of training, software versions,
    threads, device, and the key. The result is then bit-identical to training it. A run whose code
    reads what cannot be compared (an iterator, a file, an object written in C), or changes what it
    reads, neither takes nor lends (``log.jsonl`` names it) unless ``vouched``.

    Args:
        folders: run folders of other calls with ``warm_start``, finished, running, killed or not
            there yet; one that does not fit, is damaged, or is the call's own is passed over
            (``log.jsonl`` says why).
        key: whatever else decides a result and cannot be seen from outside, such as how samples
            beyond the first batches are augmented: any JSON-able value, compared for equality.
        vouched: True says that the key names everything that may differ in what cannot be
            compared, so that it is no reason to train again.

    Raises:
        InvalidArgument: ``folders`` is one path, the key is not JSON-able, or ``vouched`` is no
            bool.

    Example:
        >>> WarmStart(["trials/a/run", "trials/b/run"], key={"noise": 0.1}).key
        {'noise': 0.1}
    """

    folders: Iterable[str | os.PathLike[str]]
    key: Any = ""
    vouched: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.folders, (str, bytes, os.PathLike)):
            raise InvalidArgument(
                f"WarmStart takes several run folders, got one path {str(self.folders)!r}: write "
                "WarmStart([folder])"
            )
        try:
            folders = tuple(Path(folder) for folder in self.folders)
        except TypeError as error:
            raise InvalidArgument(
                f"WarmStart takes a sequence of run folders, got {self.folders!r}: {error}"
            ) from error
        try:
            # As it will be read back: a tuple is a list then.
            key = json.loads(json.dumps(self.key, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"WarmStart needs a JSON-able key (numbers but NaN, strings, lists, dicts), got "
                f"{self.key!r}: {error}"
            ) from error
        if not isinstance(self.vouched, bool):
            raise InvalidArgument(f"WarmStart: vouched must be True or False, got {self.vouched!r}")
        object.__setattr__(self, "folders", folders)
        object.__setattr__(self, "key", key)
