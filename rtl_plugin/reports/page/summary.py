"""The page's first words: key figures, what is absent, and what would make it."""

from dataclasses import dataclass

from rtl_plugin.reports.page.report_data import ReportData
from rtl_plugin.reports.page.text import count, decimal, percent, plural, size


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
        figures.append(Figure("bytes of all tickets", size(total), "union, masks and own state"))
        if len(facts.names) > 1:
            alike = facts.likeness["all layers"]
            pairs = len(facts.names) * (len(facts.names) - 1)
            raw = (float(alike.raw.sum()) - len(facts.names)) / pairs
            # The diagonal of the excess is not zero: a ticket with itself is 1 less its density.
            excess = float(alike.excess.sum() - alike.excess.trace()) / pairs
            remark = f"{decimal(excess, sign=True)} over chance"
            figures.append(Figure("mean similarity", decimal(raw), remark))
    if data.watched:
        left = sum(alarm.left for alarm in data.alarms)
        remark = f"{plural(left, 'ticket')} left the rounds" if left else "none left the rounds"
        figures.append(Figure("alarms", count(len(data.alarms)), remark))
    if data.run.epochs:
        figures.append(Figure("retrained", plural(_epochs(data), "epoch"), "all tickets together"))
    return figures


def absent_parts(data: ReportData) -> list[Absent]:
    """What the page lacks, and what would make it.

    Args:
        data: of the run.

    Returns:
        In the order of the page.
    """
    run, folder = data.run, "the same run_folder"
    found: list[Absent] = []
    if data.masks is None:
        found.append(Absent("tickets and everything about masks", f"discover(...) with {folder}"))
    elif run.source == "unfinished discovery":
        remedy = f"the same discover(...) call with {folder} goes on where it was stopped"
        found.append(Absent("the end of the discovery", remedy))
    if not run.history:
        found.append(Absent("curves, alarms and the round log", f"discover(...) with {folder}"))
    else:
        if not any(point.metric is not None for c in data.curves.values() for point in c.points):
            remedy = "discover(..., evaluate=...) with groups that have validation data"
            found.append(Absent(f"{data.metric} against sparsity", remedy))
        if not data.watched:
            remedy = "a run of a version that watches for collapse, which discover does by itself"
            found.append(Absent("alarms", remedy))
    if len(run.group_names) == 1:
        found.append(Absent("similarity", "two or more groups: a single ticket has no others"))
    if not run.epochs:
        found.append(Absent("retraining", f"retrain(...) with {folder}"))
    if not data.comparison:
        remedy = "rtl-plugin compare --json FILE, then rtl-plugin report --comparison FILE"
        found.append(Absent("comparison of methods", remedy))
    if not run.arguments:
        found.append(Absent("arguments", "discover(...) or retrain(...) with a run_folder"))
    if not run.events:
        found.append(Absent("times", "log.jsonl, which discover and retrain write"))
    return found


def standing(data: ReportData) -> str:
    """One sentence about how far the run is.

    Args:
        data: of the run.

    Returns:
        The sentence.
    """
    if data.run.source == "discovery":
        return "Discovery is finished."
    if data.run.source == "unfinished discovery":
        last = max((row["round"] for row in data.pruning_rows), default=0)
        groups = {row["group"] for row in data.run.history if row["round"] == last}
        planned = f" of {data.planned_rounds}" if data.planned_rounds else ""
        return (
            f"Discovery is not finished: round {last}{planned} is done for "
            f"{len(groups)} of {plural(len(data.run.group_names), 'group')}; shown are the newest "
            "masks."
        )
    return {
        "retraining": "The folder holds a retraining, and no discovery.",
        "ticket file": "The folder holds a ticket file, and no discovery.",
    }.get(data.run.source, "The folder holds no tickets yet.")


def _state(data: ReportData) -> str:
    rounds = max((row["round"] for row in data.pruning_rows), default=0)
    if not rounds:
        return ""
    planned = data.planned_rounds
    return f"{rounds} of {planned} rounds" if planned else plural(rounds, "round")


def _epochs(data: ReportData) -> int:
    return len({str(row.get("epoch")) for row in data.run.epochs})
