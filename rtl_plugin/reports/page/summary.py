"""The page's first words: key figures, what is absent, and what would make it."""

from dataclasses import dataclass

from rtl_plugin.reports.page.report_data import ReportData
from rtl_plugin.reports.page.text import NONE, count, decimal, percent, plural, size
from rtl_plugin.reports.page.watching import silence

_FOLDER = "the same run_folder"
_AGAIN = f"Delete discover/tickets.safetensors and call discover(...) again with {_FOLDER}."


@dataclass(frozen=True)
class Figure:
    """A key figure: its name, its value, a remark."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Absent:
    """A part that the folder has nothing for, and what would make it."""

    part: str
    remedy: str


def key_figures(data: ReportData) -> list[Figure]:
    """The figures that a reader wants first.

    Args:
        data: of the run.

    Returns:
        Those that the folder has.
    """
    figures = [Figure("tickets", count(len(data.run.group_names)), _state(data))]
    if data.masks is not None:
        facts = data.masks
        low, high = float(facts.sparsities.min()), float(facts.sparsities.max())
        span = (
            percent(high) if percent(low) == percent(high) else f"{percent(low)} to {percent(high)}"
        )
        figures.append(Figure("sparsity", span, f"of {count(facts.prunable)} prunable weights"))
        union = int(facts.union.sum())
        share = f"{percent(union / facts.prunable, 1)} of the prunable weights"
        figures.append(Figure("union of the tickets", count(union), share))
        total = facts.weight_bytes(union) + facts.mask_bytes + facts.state_bytes
        remark = "union, masks and own state; without parameters kept dense"
        figures.append(Figure("bytes of all tickets", size(total), remark))
        if len(facts.names) > 1:
            alike = facts.likeness["all layers"]
            pairs = len(facts.names) * (len(facts.names) - 1)
            raw = (float(alike.raw.sum()) - len(facts.names)) / pairs
            # The diagonal of the excess is not zero: a ticket with itself is 1 less its density.
            excess = float(alike.excess.sum() - alike.excess.trace()) / pairs
            remark = f"{decimal(excess, sign=True)} over chance"
            figures.append(Figure("mean similarity", decimal(raw), remark))
    if data.watched:
        figures.append(_alarms(data))
    if data.run.epochs:
        figures.append(Figure("retrained", plural(_epochs(data), "epoch"), "all tickets together"))
    return figures


def _alarms(data: ReportData) -> Figure:
    silent = silence(data)
    if silent:
        return Figure("alarms", NONE, silent)
    # A ticket may leave without an alarm of its own, when nobody is left to compare it with.
    left = len(data.departures)
    remark = f"{plural(left, 'ticket')} left the rounds" if left else "none left the rounds"
    return Figure("alarms", count(len(data.alarms)), remark)


def absent_parts(data: ReportData) -> list[Absent]:
    """What the page lacks, and what would make it.

    Args:
        data: of the run.

    Returns:
        In the order of the page.
    """
    run = data.run
    found = [*_absent_masks(data), *_absent_curves(data)]
    if len(run.group_names) == 1:
        found.append(Absent("similarity", "two or more groups: a single ticket has no others"))
    if not run.epochs:
        found.append(Absent("retraining", f"retrain(...) with {_FOLDER}"))
    if not data.comparison:
        remedy = "rtl-plugin compare --json FILE, then rtl-plugin report --comparison FILE"
        found.append(Absent("comparison of methods", remedy))
    if not run.arguments:
        found.append(Absent("arguments", "discover(...) or retrain(...) with a run_folder"))
    if not run.events:
        found.append(Absent("times", "log.jsonl, which discover and retrain write"))
    return found


def _absent_masks(data: ReportData) -> list[Absent]:
    run = data.run
    if run.unread:
        remedy = "delete the files that cannot be read, and call discover(...) again with "
        return [Absent("tickets of the discovery", remedy + _FOLDER)]
    if data.masks is None:
        remedy = f"discover(...) with {_FOLDER}"
        return [Absent("tickets and everything about masks", remedy)]
    if run.source == "unfinished discovery":
        remedy = f"the same discover(...) call with {_FOLDER} goes on where it was stopped"
        return [Absent("the end of the discovery", remedy)]
    return []


def _absent_curves(data: ReportData) -> list[Absent]:
    if not data.run.history:
        return [Absent("curves, alarms and the round log", f"discover(...) with {_FOLDER}")]
    points = [point for curve in data.curves.values() for point in curve.points]
    found = []
    if all(point.metric is None for point in points):
        remedy = "discover(..., evaluate=...) with groups that have validation data"
        found.append(Absent(f"{data.metric} against sparsity", remedy))
    if len(data.run.group_names) > 1 and all(point.similarity is None for point in points):
        remedy = "a round that all tickets have finished, and the files of its masks"
        if data.by_host:
            remedy = "rtl_plugin.discover, which compares tickets after every round; RTLPruner "
            remedy += "does not"
        found.append(Absent("similarity against sparsity", remedy))
    if all(point.loss is None for point in points):
        remedy = "rtl_plugin.discover" if data.by_host else "discover(...) of rounds that train"
        found.append(Absent("training loss against sparsity", f"{remedy}, which records it"))
    if not data.watched:
        remedy = "a run of a version that watches for collapse, which discover does by itself"
        if data.by_host:
            remedy = "a CollapseMonitor that is shown the tickets after every step(), or "
            remedy += "rtl_plugin.discover, which has one"
        found.append(Absent("alarms", remedy))
    return found


def standing(data: ReportData) -> str:
    """One sentence about how far the run is.

    Args:
        data: of the run.

    Returns:
        The sentence.
    """
    source = data.run.source
    if source == "discovery":
        return "Discovery is finished."
    if source == "damaged discovery":
        return f"Discovery is finished; its ticket file is damaged, shown are its rounds. {_AGAIN}"
    if source == "unfinished discovery":
        return _unfinished(data)
    shown = {"retraining": "a retraining", "ticket file": "a ticket file"}.get(source)
    if data.run.unread:
        unread = "The folder holds a discovery, and no ticket file of it can be read"
        return f"{unread}; shown are the tickets of {shown}." if shown else f"{unread}."
    return (
        f"The folder holds {shown}, and no discovery."
        if shown
        else "The folder holds no tickets yet."
    )


def _unfinished(data: ReportData) -> str:
    last = max((row["round"] for row in data.pruning_rows), default=0)
    done = {row["group"] for row in data.run.history if row["round"] == last}
    gone = {name for name, c in data.curves.items() if c.left and c.points[-1].round < last}
    expected = len(set(data.run.group_names) - gone)
    planned = f" of {data.planned_rounds}" if data.planned_rounds else ""
    left = f" that {'is' if expected == 1 else 'are'} still in the rounds" if gone else ""
    return (
        f"Discovery is not finished: round {last}{planned} is done for {len(done)} of "
        f"{plural(expected, 'group')}{left}; shown are the newest masks."
    )


def _state(data: ReportData) -> str:
    rounds = max((row["round"] for row in data.pruning_rows), default=0)
    if not rounds:
        return ""
    planned = data.planned_rounds
    return f"{rounds} of {planned} rounds" if planned else plural(rounds, "round")


def _epochs(data: ReportData) -> int:
    return len({str(row.get("epoch")) for row in data.run.epochs})
