"""The plans that were made, one a kind of input."""

import threading
from collections.abc import Hashable

from rtl_plugin.mixture.layout_probe import Plan

MAX_PLANS = 1024  # a server that sees every length of text would otherwise keep plans for ever
MAX_LOOKS = 8  # at batches of a kind that do not show where their samples are


class PlanBook:
    """Remembers plans; threads may share it.

    Example:
        >>> book = PlanBook()
        >>> book.keep("images", Plan(("fc",)))
        >>> book.get("images").units, book.get("text")
        (('fc',), None)
    """

    def __init__(self) -> None:
        self._plans: dict[Hashable, Plan] = {}
        self._looks: dict[Hashable, int] = {}
        self._unsettled: tuple[str, ...] = ()  # why the last look told nothing
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Plan | None:
        """The plan of a kind of input, or None where it is to be looked at."""
        return self._plans.get(key)

    def looked(self, key: Hashable, plan: Plan) -> None:
        """Keep a plan that is final, or the last of too many that are not."""
        with self._lock:
            looks = self._looks[key] = self._looks.get(key, 0) + 1
            self._unsettled = () if plan.final else plan.notes
        if plan.final or looks >= MAX_LOOKS:
            self.keep(key, plan)

    def keep(self, key: Hashable, plan: Plan) -> None:
        """Keep a plan for all later calls of the kind."""
        with self._lock:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
                self._looks.clear()
            self._plans[key] = plan

    def clear(self) -> None:
        """Forget everything: the network was changed."""
        with self._lock:
            self._plans.clear()
            self._looks.clear()

    def notes(self) -> list[str]:
        """What does not run as it was asked for, and why, each once."""
        kept = [note for plan in list(self._plans.values()) for note in plan.notes]
        return list(dict.fromkeys([*kept, *self._unsettled]))
