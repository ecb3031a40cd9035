"""The trials of a search as a text table."""

import json
import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from rtl_nni.search.records import TrialRecord
from rtl_plugin.integration_api import InvalidArgument, shortened

_LONGEST = 48  # of a reason, or a parameter's value
_MISSING = object()


def trial_table(records: Sequence[TrialRecord]) -> str:
    """A line a trial: what it was asked and what came of it.

    A star marks the finished trial with the highest metric, the first of equals. Only parameters
    that differ between the trials have a column. A metric in brackets is the last intermediate
    one, of a trial that did not finish. "achieved" is the sparsity after its last round, steps are
    done / planned.

    Args:
        records: from :func:`rtl_nni.read_trials`.

    Returns:
        The table, without a line break at its end.

    Raises:
        InvalidArgument: there are no records.

    Example:
        >>> one = TrialRecord("a", "finished", {"rounds": 2}, metric=0.9, sparsity=0.75)
        >>> two = TrialRecord("b", "stopped", {"rounds": 3}, reason="collapse")
        >>> print(trial_table([one, two]))
            trial      rounds    metric    achieved    parameters    steps done  status
        --  -------  --------  --------  ----------  ------------  ------------  -----------------
        *   a               2    0.9000      75.0 %             -         0 / -  finished
            b               3         -           -             -         0 / -  stopped: collapse
    """
    if not records:
        raise InvalidArgument("records must hold at least one trial: see rtl_nni.read_trials")
    varying = varying_parameters(records)
    best = best_trial(records)
    numbered = any(record.sequence is not None for record in records)
    lines = []
    for record in records:
        cells = {"": "*" if record is best else "", "trial": record.label}
        if numbered:
            cells["id"] = shortened(record.name)
        asked = {name: _value(record.params.get(name, _MISSING)) for name in varying}
        # A parameter of the user's may have the name of one of our columns.
        lines.append([*cells.values(), *asked.values(), *_figures(record).values()])
    headers = ["", "trial", *(["id"] if numbered else []), *varying, *_figures(records[0])]
    figures = len(_figures(records[0]))
    left = len(headers) - len(varying) - figures
    return tabulate(
        lines,
        headers=headers,
        colalign=["left"] * left + ["right"] * (len(varying) + figures - 1) + ["left"],
        disable_numparse=True,
    )


def best_trial(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the highest metric, the first of equals.

    Args:
        records: of a search.

    Returns:
        It; None where no trial finished with a metric that is a number.

    Example:
        >>> best_trial([TrialRecord("a", "finished", metric=0.5)]).name
        'a'
    """
    able = [r for r in records if r.metric is not None and math.isfinite(r.metric)]
    return max(able, key=lambda record: record.metric or 0.0, default=None)


def varying_parameters(records: Sequence[TrialRecord]) -> list[str]:
    """Names of parameters that are not the same in all trials, in the order of first mention.

    Args:
        records: of a search.

    Returns:
        The names; one that a trial lacks varies.

    Example:
        >>> varying_parameters([TrialRecord("a", "died", {"x": 1, "y": 1}),
        ...                     TrialRecord("b", "died", {"x": 1, "y": 2})])
        ['y']
    """
    names = dict.fromkeys(name for record in records for name in record.params)
    return [
        name
        for name in names
        if len({_exact(record.params.get(name, _MISSING)) for record in records}) > 1
    ]


def _figures(record: TrialRecord) -> dict[str, str]:
    planned = "-" if record.steps_planned is None else f"{record.steps_planned:,}"
    said = record.reason if record.status == "stopped" else record.error
    status = record.status if said is None else f"{record.status}: {_cut(said)}"
    return {
        "metric": _metric(record),
        "achieved": "-" if record.sparsity is None else f"{100 * record.sparsity:.1f} %",
        "parameters": "-" if record.parameters is None else f"{record.parameters:,}",
        "steps done": f"{record.steps_done:,} / {planned}",
        "status": status,
    }


def _metric(record: TrialRecord) -> str:
    if record.metric is not None:
        return f"{record.metric:.4f}"
    return f"({record.intermediate[-1]:.4f})" if record.intermediate else "-"


def _exact(value: Any) -> str | None:
    return None if value is _MISSING else json.dumps(value, sort_keys=True)


def _value(value: Any) -> str:
    if value is _MISSING:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return _cut(value if isinstance(value, str) else json.dumps(value))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
