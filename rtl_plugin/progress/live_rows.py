"""What the live table of a discovery knows: one row a ticket, the round, and the time."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rtl_plugin.errors import InvalidArgument

State = Literal["waiting", "training", "done", "left", "stopped"]

IN_WORDS: Mapping[State, str] = {
    "training": "training", "waiting": "waiting", "done": "done", "left": "left the rounds",
    "stopped": "stopped",
}  # fmt: skip


class Reached(NamedTuple):
    """What a round has left behind: its masks, and what their predecessors reached in training.

    Args:
        sparsity: of the masks after the round.
        similarity: of those masks, or None.
        at_floor: whether the floor held weights in them.
        trained: how many losses there were.
        metric: the last one measured up to this round, or None.
    """

    sparsity: float
    similarity: float | None = None
    at_floor: bool = False
    trained: int = 0
    metric: float | None = None


@dataclass
class TicketRow:
    """One ticket's line of the table.

    Args:
        name: the ticket's name.
        state: what it is doing.
        step: training steps begun in this round.
        steps: training steps of this round; None where unknown.
        round: its last finished round; 0 before.
        sparsity: of its masks, in [0, 1]; None before its first round is finished.
        losses: the mean training loss of every finished round.
        metric: the last one measured, or None.
        similarity: of its masks, or None.
        change: of the similarity in the last round; None where it was with other tickets before.
        alarm: ``"round 7: rise"`` for its last alarm, or None.
        at_floor: whether the floor held weights in its masks.
        left: whether it has left the rounds; a closing round may still measure it.
        touched: grows with every event; says which row changed last.

    Example:
        >>> TicketRow("a", state="training", step=3, steps=10).doing
        'step 3/10'
    """

    name: str
    state: State = "waiting"
    step: int = 0
    steps: int | None = None
    round: int = 0
    sparsity: float | None = None
    losses: list[float] = field(default_factory=list)
    metric: float | None = None
    similarity: float | None = None
    change: float | None = None
    alarm: str | None = None
    at_floor: bool = False
    left: bool = False
    touched: int = 0
    # Before the first round all masks are whole, and alike.
    reached: dict[int, Reached] = field(default_factory=lambda: {0: Reached(0.0, 1.0)}, repr=False)

    @property
    def doing(self) -> str:
        """The state in words."""
        steps = f"{self.step}" if self.steps is None else f"{self.step}/{self.steps}"
        if self.state == "training":
            return f"step {steps}"
        if self.state == "stopped":
            return f"stopped at {steps}"
        return IN_WORDS[self.state]

    @property
    def fraction(self) -> float:
        """How much of this round's steps is begun, in [0, 1]; 0 where it is not training."""
        return self.step / self.steps if self.state == "training" and self.steps else 0.0

    def remember(self) -> None:
        """Note what its last finished round has left behind."""
        sparsity = 0.0 if self.sparsity is None else self.sparsity
        self.reached[self.round] = Reached(
            sparsity, self.similarity, self.at_floor, len(self.losses), self.metric
        )

    def leave(self, good: int) -> None:
        """It leaves the rounds with the masks of an earlier round, or of its last."""
        self.state, self.left = "left", True
        if good == self.round or good not in self.reached:
            return
        kept = self.reached[good]
        self.sparsity, self.similarity, self.at_floor = kept[:3]
        # The round after was the one that trained under these masks.
        after = self.reached.get(good + 1, kept)
        self.losses, self.metric, self.change = self.losses[: after.trained], after.metric, None


class LiveRows:
    """All rows, brought up to date by the events of a discovery.

    Args:
        names: the tickets' names, in their order.
        rounds: how many rounds there are, with the closing round where there is one.
        asked: sparsity asked in every round of the schedule, where it is known beforehand; a
            round beyond them is the closing round.
        clock: seconds, growing.

    Example:
        >>> rows = LiveRows(["a", "b"], 2)
        >>> rows.start("a", 1, steps=10).step = 4
        >>> [row.doing for row in rows.visible(5)[0]]
        ['step 4/10', 'waiting']
    """

    def __init__(
        self,
        names: Sequence[str],
        rounds: int,
        asked: Sequence[float] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows = {name: TicketRow(name) for name in names}
        self._rounds, self._asked, self._clock = rounds, asked, clock
        self._round, self._asked_so_far = 0, 0.0
        self._closing, self._fewer = False, False
        self._began, self._events, self._finished = clock(), 0, 0
        self._ended: Literal["", "well", "early"] = ""

    def start(self, group: str, round: int, steps: int | None) -> TicketRow:
        """A group's training begins; the caller counts its row's ``step``."""
        row = self._row(group)
        self._enter(round)
        row.state, row.step, row.steps, row.touched = "training", 0, steps, self._event()
        return row

    def finish(self, values: Mapping[str, Any]) -> None:
        """A group's training of a round has ended, with this history row."""
        row = self._row(values["group"])
        self._enter(values["round"])
        self._closing = bool(values.get("closing"))
        self._finished += row.state == "training"  # what a run folder held took no time here
        row.state, row.touched = "left" if row.left else "done", self._event()
        row.round, row.sparsity = values["round"], values["achieved"]
        row.losses.append(values["loss"])
        if values.get("metric") is not None:
            row.metric = values["metric"]
        if not values.get("closing"):  # a closing round prunes nothing
            row.at_floor = bool(values.get("at_floor"))
        row.remember()
        if values.get("asked") is not None:
            self._asked_so_far = values["asked"]

    def close_round(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A round has ended: its history rows, now with similarity and alarms."""
        for values in rows:
            row = self._row(values["group"])
            if row.round < values["round"]:  # resumed: its training was not announced
                self.finish(values)
            if (now := values.get("similarity")) is not None:
                # Without those who left, a mean is of other pairs than it was.
                known = row.similarity is not None and not self._fewer
                row.change = now - row.similarity if known else None
                row.similarity = now
                row.remember()
            if (alarm := values.get("alarm")) is not None:
                row.alarm = f"round {alarm['round']}: {alarm['direction']}"
                row.touched = self._event()
            if values.get("left"):
                row.leave((alarm or {}).get("last_good_round", row.round))
        self._fewer = any(values.get("left") for values in rows)

    def end(self, well: bool) -> None:
        """The discovery is over, or has been broken off."""
        self._ended = "well" if well else "early"
        for row in self.rows.values():
            if row.state == "training":
                row.state = "stopped"

    def header(self) -> list[str]:
        """The round, the sparsity asked, and the time, in parts."""
        parts = [f"round {self._round}/{len(self._asked) or self._rounds}"]
        if self._closing:
            parts = ["closing round"]
        elif 0 < self._round <= len(self._asked):
            parts.append(f"asked {self._asked[self._round - 1]:.2%}")
        elif self._asked_so_far:
            parts.append(f"asked so far {self._asked_so_far:.2%}")
        elapsed = self._clock() - self._began
        if self._ended:
            verb = "took" if self._ended == "well" else "stopped after"
            return [*parts, f"{verb} {clock_time(elapsed)}"]
        parts.append(f"{clock_time(elapsed)} elapsed")
        left = self._remaining(elapsed)
        return parts if left is None else [*parts, f"about {clock_time(left)} left"]

    def visible(self, limit: int) -> tuple[list[TicketRow], str | None]:
        """The rows that matter most, in the tickets' order, and a count of the others."""
        rows = list(self.rows.values())
        if len(rows) <= limit:
            return rows, None
        chosen = sorted(rows, key=_urgency)[:limit]
        names = {row.name for row in chosen}
        others = [row for row in rows if row.name not in names]
        states = Counter(row.state for row in others)
        counts = [f"{states[state]} {words}" for state, words in IN_WORDS.items() if states[state]]
        alarms = sum(row.alarm is not None for row in others)
        counts += [f"{alarms} with an alarm"] if alarms else []
        shown = [row for row in rows if row.name in names]
        return shown, f"and {len(others)} more: {', '.join(counts)}"

    def _row(self, name: str) -> TicketRow:
        if name not in self.rows:
            raise InvalidArgument(
                f"the rounds are shown for {', '.join(map(repr, self.rows))}, got the group "
                f"{name!r}: name it when the rounds begin"
            )
        return self.rows[name]

    def _enter(self, round: int) -> None:
        if round != self._round:
            self._round, self._closing = round, 0 < len(self._asked) < round
            for row in self.rows.values():
                row.state = "waiting" if row.state == "done" else row.state

    def _event(self) -> int:
        self._events += 1
        return self._events

    def _remaining(self, elapsed: float) -> float | None:
        """Seconds, if what is left goes as fast as what was done since this discovery began."""
        begun = sum(row.fraction for row in self.rows.values())
        done = self._finished + begun
        alive = (row for row in self.rows.values() if row.state != "left")
        left = sum(1 if row.left else self._rounds - row.round for row in alive) - begun
        return elapsed * max(left, 0.0) / done if done and elapsed >= 1 else None


def clock_time(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are any.

    Args:
        seconds: at least 0.

    Returns:
        ``m:ss`` or ``h:mm:ss``.

    Example:
        >>> clock_time(83), clock_time(3600)
        ('1:23', '1:00:00')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _urgency(row: TicketRow) -> tuple[bool, bool, int]:
    """Sorts training first, then alarms, then what changed last."""
    return (row.state not in {"training", "stopped"}, row.alarm is None, -row.touched)
