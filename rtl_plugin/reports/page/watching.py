"""Whether an alarm could have rung in a run, and what its absence says."""

from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.reports.page.report_data import ReportData


def silence(data: ReportData) -> str:
    """Why no alarm could ring.

    Args:
        data: of a run that looked out for alarms.

    Returns:
        A clause; empty where one rang, or could have.
    """
    if data.alarms:
        return ""
    if len(data.run.group_names) == 1:
        return "not watched: one ticket"
    rule = rule_of(data)
    paths = [
        [1 - point.sparsity for point in curve.points if point.round > 0]
        for curve in data.curves.values()
    ]
    if any(rule.first_round(densities) is not None for densities in paths):
        return ""
    longest = max(map(len, paths), default=0)
    rounds = f"{longest} round" + ("" if longest == 1 else "s")
    return (
        f"could not ring: {rounds} give fewer than {rule.warm_up + 1} steps of {rule.window:g} in "
        "the logarithm of the density"
    )


def rule_of(data: ReportData) -> CollapseRule:
    """The rule that the run was called with, the default one where it named none.

    Args:
        data: of the run.

    Returns:
        The rule.
    """
    given = data.run.arguments.get("discover", {}).get("stop_before_collapse")
    if not isinstance(given, dict):
        return CollapseRule()
    try:
        return CollapseRule(**given)
    except (InvalidArgument, TypeError):  # of another version, whose alarms nobody can foretell
        return CollapseRule()
