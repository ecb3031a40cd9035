"""Progress on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class Progress:
    """A progress bar and report lines on standard error, or nothing.

    Args:
        enabled: False silences it; True shows it where standard error is a terminal, and in a
            notebook.

    Example:
        >>> progress = Progress(False)
        >>> list(progress.track([1, 2], "training"))
        [1, 2]
    """

    def __init__(self, enabled: bool) -> None:
        # A notebook shows standard error, although it is no terminal.
        self._shown = enabled and (sys.stderr.isatty() or "ipykernel" in sys.modules)

    def track(self, items: Iterable[T], label: str) -> Iterable[T]:
        """The items, behind a bar that goes away when they end."""
        return tqdm(items, desc=label, leave=False, disable=not self._shown, dynamic_ncols=True)

    def say(self, line: str) -> None:
        """One line above the bar."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)
