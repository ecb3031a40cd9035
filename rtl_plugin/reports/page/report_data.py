"""Everything that the page says, collected as plain data before any of it is drawn."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_plugin.diagnostics.collapse_rule import FALL, RISE
from rtl_plugin.diagnostics.curves import TicketCurve, ticket_curves
from rtl_plugin.errors import InvalidArgument, MissingFile
from rtl_plugin.reports.page.mask_facts import MaskFacts, mask_facts
from rtl_plugin.reports.page.reading import Row
from rtl_plugin.reports.page.run_files import RunFiles, read_run
from rtl_plugin.reports.page.text import finite
from rtl_plugin.reports.rows import ComparisonRow, checked_rows

ALARM_VALUES = ("similarity", "change", "expected", "limit")


@dataclass(frozen=True)
class AlarmFact:
    """An alarm that rang, and what came of it.

    Args:
        ticket: its name.
        round: after which it rang.
        sparsity: the ticket's then, or None.
        direction: "rise" or "fall".
        values: "similarity", "change", "expected" and "limit" -> number or None.
        last_good_round: or None.
        explanation: one sentence.
        left: whether the ticket left the rounds.
    """

    ticket: str
    round: int
    sparsity: float | None
    direction: str
    values: Mapping[str, float | None]
    last_good_round: int | None
    explanation: str
    left: bool


@dataclass(frozen=True)
class ReportData:
    """What the page says.

    Args:
        title: the page's heading.
        run: the files.
        curves: ticket name -> its values along the rounds.
        alarms: in order of rounds.
        masks: what the masks say; None without tickets.
        comparison: checked rows; empty where there are none.
        problems: what could not be read.
        metric: what the metric is called.
    """

    title: str
    run: RunFiles
    curves: Mapping[str, TicketCurve]
    alarms: tuple[AlarmFact, ...]
    masks: MaskFacts | None
    comparison: tuple[ComparisonRow, ...]
    problems: tuple[str, ...]
    metric: str

    @property
    def watched(self) -> bool:
        """Whether the run looked out for alarms."""
        return any("alarm" in row for row in self.run.history)

    @property
    def by_host(self) -> bool:
        """Whether the rounds are a host's pruner's, which counts no weights and compares none."""
        return bool(self.run.history) and not any("kept" in row for row in self.run.history)

    @property
    def departures(self) -> tuple[int, ...]:
        """The last round of every ticket that left the rounds, in ascending order."""
        return tuple(sorted(c.points[-1].round for c in self.curves.values() if c.left))

    @property
    def planned_rounds(self) -> int | None:
        """Rounds that the schedule asks for, where it says so."""
        schedule = self.run.arguments.get("discover", {}).get("schedule")
        rounds = schedule.get("rounds") if isinstance(schedule, dict) else None
        return rounds if type(rounds) is int else None

    @property
    def pruning_rows(self) -> tuple[Row, ...]:
        """Rows of rounds that pruned."""
        return tuple(row for row in self.run.history if not row.get("closing"))


def collected(
    run_folder: str | os.PathLike[str],
    *,
    comparison: str | os.PathLike[str] | None = None,
    title: str | None = None,
    metric: str = "accuracy",
) -> ReportData:
    """Read a run folder and work out what the page needs.

    Args:
        run_folder: of ``discover``, ``retrain``, ``compare`` or the quickstart.
        comparison: JSON of ``rtl-plugin compare --json``; by default the one in the folder.
        title: of the page; by default the folder's name.
        metric: what ``discover(evaluate=...)`` measures.

    Returns:
        The data.

    Raises:
        MissingFile: no run folder, or no file of a comparison at the given path.
        InvalidArgument: the file given as ``comparison`` is none, or a name is empty.
        MissingExtra: scipy is not installed.

    Example:
        >>> import tempfile, torch
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> folder = tempfile.mkdtemp()
        >>> ticket = Ticket("a", {"w": torch.tensor([True, False])})
        >>> TicketSet([ticket]).save(f"{folder}/tickets.safetensors")
        >>> collected(folder).run.source
        'ticket file'
    """
    for argument, value in (("title", title), ("metric", metric)):
        if value is not None and not value.strip():
            raise InvalidArgument(
                f"{argument}: expected a name to be read on the page, got {value!r}: leave it out "
                "for the default"
            )
    run = read_run(run_folder)
    problems = list(run.problems)
    rows: tuple[ComparisonRow, ...] = ()
    if comparison is not None:
        rows = read_comparison(comparison)
    elif run.comparison:
        try:
            rows = tuple(checked_rows(run.comparison))
        except InvalidArgument as error:
            problems.append(f"comparison: {error}")
    history = [dict(row) for row in run.history]
    return ReportData(
        title=f"Run {run.root.resolve().name}" if title is None else title,
        run=run,
        curves=ticket_curves(history),
        alarms=tuple(alarm for row in history if (alarm := _alarm(row)) is not None),
        masks=mask_facts(run.tickets, _floors(run)) if run.tickets is not None else None,
        comparison=rows,
        problems=tuple(problems),
        metric=metric,
    )


def _floors(run: RunFiles) -> Any:
    """Floors as the run recorded them, None for the default ones, {} where there were none."""
    if "discover" in run.arguments:
        return run.arguments["discover"].get("floor")
    # Only discover counts what it keeps, and only discover leaves a floor.
    return None if any("kept" in row for row in run.history) else {}


def read_comparison(path: str | os.PathLike[str]) -> tuple[ComparisonRow, ...]:
    """The rows of a comparison's JSON.

    Args:
        path: a file of ``rtl-plugin compare --json``, or of a benchmark with such rows.

    Returns:
        Checked rows.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: it is no comparison.

    Example:
        >>> read_comparison("no-such-file")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: no such file: no-such-file
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFile(f"no such file: {file}")
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"{file} is not JSON ({error}): give what rtl-plugin compare --json wrote"
        ) from error
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise InvalidArgument(
            f'{file}: expected a JSON object with "rows", got {type(content).__name__}: give what '
            "rtl-plugin compare --json wrote"
        )
    try:
        return tuple(checked_rows(rows))
    except InvalidArgument as error:
        raise InvalidArgument(f"{file}: {error}") from error


def alarm_direction(alarm: Mapping[str, Any]) -> str:
    """Which way the curve broke.

    Args:
        alarm: of a row of history.

    Returns:
        "rise", "fall", or "unknown" where the alarm says neither.

    Example:
        >>> alarm_direction({"direction": "rise"}), alarm_direction({})
        ('rise', 'unknown')
    """
    direction = alarm.get("direction")
    return direction if direction in (RISE, FALL) else "unknown"


def _alarm(row: Row) -> AlarmFact | None:
    alarm = row.get("alarm")
    if not isinstance(alarm, dict):
        return None
    good = finite(alarm.get("last_good_round"))
    return AlarmFact(
        ticket=row["group"],
        round=row["round"],
        sparsity=finite(alarm.get("sparsity", row.get("achieved"))),
        direction=alarm_direction(alarm),
        values={key: finite(alarm.get(key)) for key in ALARM_VALUES},
        last_good_round=None if good is None else int(good),
        explanation=str(alarm.get("explanation") or ""),
        left=row.get("left") is True,
    )
