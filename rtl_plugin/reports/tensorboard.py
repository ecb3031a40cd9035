"""The curves of a run as TensorBoard events."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.reports.page.report_data import AlarmFact, ReportData, collected
from rtl_plugin.reports.page.text import finite

_PURPOSE = "TensorBoard events"


def write_tensorboard(
    run_folder: str | os.PathLike[str],
    logdir: str | os.PathLike[str],
    *,
    metric: str = "accuracy",
) -> int:
    """Write similarity, loss, metric and sparsity of every ticket and round for TensorBoard.

    A step is a round, 0 being the dense network; loss and metric stand at the round whose mask
    they were trained under. Tags are ``similarity/TICKET`` and so on; alarms are texts under
    ``alarm/TICKET``. Times are those of the writing, not of the run.

    Args:
        run_folder: of ``discover``, finished or not; only read.
        logdir: folder for the event file; made when missing. Writing a run twice into one folder
            shows it twice.
        metric: what ``discover(evaluate=...)`` measured, as the tags are to call it.

    Returns:
        How many values were written.

    Raises:
        InvalidArgument: the folder has no rounds to show, the metric's name is that of another
            curve, or ``logdir`` is a file.
        MissingFile: no run folder at that path.
        MissingExtra: tensorboard is not installed.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from rtl_plugin.run_folder import RunFolder
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> folder = tempfile.mkdtemp()
        >>> rows = [{"round": 1, "group": "a", "achieved": 0.5, "loss": 0.7}]
        >>> tickets = TicketSet([Ticket("a", {"w": torch.tensor([True, False])})], history=rows)
        >>> tickets.save(RunFolder(folder, "discover").tickets)
        >>> write_tensorboard(folder, f"{folder}/logs")  # two sparsities and a loss
        3
    """
    check_tensorboard(logdir, metric)
    data = collected(run_folder, metric=metric)
    if not data.curves:
        raise InvalidArgument(
            f"{data.run.root} has no rounds of a discovery: give the run_folder of discover"
        )
    writer = require("torch.utils.tensorboard", "tensorboard", _PURPOSE).SummaryWriter
    count = 0
    with writer(os.fspath(logdir)) as events:
        for tag, value, step in _scalars(data):
            events.add_scalar(tag, value, step)
            count += 1
        for alarm in data.alarms:
            events.add_text(f"alarm/{alarm.ticket}", _words(alarm), alarm.round)
            count += 1
    return count


def check_tensorboard(logdir: str | os.PathLike[str], metric: str) -> None:
    """Refuse what no events could be written with, before anything is read or written.

    Args:
        logdir: folder for the event file.
        metric: what the tags are to call the metric.

    Raises:
        InvalidArgument: the metric's name is that of another curve, or ``logdir`` is a file.
        MissingExtra: tensorboard is not installed.
    """
    require("tensorboard", "tensorboard", _PURPOSE)
    if Path(logdir).exists() and not Path(logdir).is_dir():
        raise InvalidArgument(f"logdir: expected a folder, {logdir} is a file")
    if metric in ("similarity", "excess", "loss", "sparsity", "alarm"):
        raise InvalidArgument(
            f"metric: {metric!r} is the name of another curve: call it something else"
        )


def _scalars(data: ReportData) -> Iterator[tuple[str, float, int]]:
    for name, curve in data.curves.items():
        for point in curve.points:
            values: dict[str, Any] = {
                "sparsity": point.sparsity,
                "similarity": point.similarity,
                "excess": point.excess,
                "loss": point.loss,
                data.metric: point.metric,
            }
            for kind, value in values.items():
                number = finite(value)
                if number is not None:
                    yield f"{kind}/{name}", number, point.round


def _words(alarm: AlarmFact) -> str:
    after = f"left, keeps the mask of round {alarm.last_good_round}" if alarm.left else "went on"
    return f"{alarm.direction} in round {alarm.round}; {after}. {alarm.explanation}".strip()
