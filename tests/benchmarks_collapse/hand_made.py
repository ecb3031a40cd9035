"""Tickets made by hand for the tests of the collapse benchmark."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.collapse_rules import Ring, Trace
from rtl_plugin.diagnostics.collapse_rule import RoundChange

HALVES = [0.5, 0.25, 0.125, 0.0625]


def halving(exponents: Sequence[float], variance: float = 0.0) -> tuple[RoundChange, ...]:
    """Rounds that halve the density, with these elasticities of the overlap."""
    return tuple(
        RoundChange(
            round=number,
            density=0.5**number,
            step=-math.log(2),
            agreement=-exponent * math.log(2),
            variance=variance,
            similarity=0.5,
        )
        for number, exponent in enumerate(exponents, start=1)
    )


def trace(**others: Any) -> Trace:
    """Four rounds; quality above chance .1 falls to a half, with the best at round 1."""
    settings: dict[str, Any] = {
        "task": "t",
        "seed": 0,
        "ticket": "a",
        "changes": halving([0.2] * 4),
        "densities": (1.0, *HALVES),
        "similarities": (1.0, 0.5, 0.4, 0.3, 0.2),
        "losses": (1.0, 0.5, 1.0, 1.1, 4.4),
        "metrics": (0.8, 0.9, 0.9, 0.84, 0.5),
        "chance": 0.1,
    }
    return Trace(**{**settings, **others})


def ringing(alarms: dict[str, int | None], kept: int = 1) -> Any:
    """A rule that rings by the ticket's name and keeps the masks of ``kept`` rounds before."""

    def ring(ticket: Trace) -> Ring | None:
        alarm = alarms[ticket.ticket]
        return None if alarm is None else Ring(alarm, alarm - kept)

    return ring
