"""Tables about tickets and their masks."""

import numpy as np

from rtl_plugin.diagnostics.collapse_rule import FALL, RISE
from rtl_plugin.reports.page.mask_facts import WHOLE, Likeness, MaskFacts
from rtl_plugin.reports.page.report_data import ALARM_VALUES, AlarmFact, ReportData
from rtl_plugin.reports.page.tables import Table, table
from rtl_plugin.reports.page.text import NONE, count, decimal, number, percent, size

_MATRIX = 30  # tickets whose similarity fits a table that people read


def ticket_table(data: ReportData, facts: MaskFacts) -> Table:
    """One row a ticket.

    Args:
        data: of the run.
        facts: of its masks.

    Returns:
        Kept weights, likeness to the others, the last metric, what became of it.
    """
    alike = facts.likeness[WHOLE]
    rows = []
    for k, name in enumerate(facts.names):
        raw, excess, most, least = _likeness(alike, facts, k)
        cells = [name, count(int(facts.kept[:, k].sum())), percent(float(facts.sparsities[k]))]
        cells += [raw, excess, most, least, count(int(facts.exclusive[k]))]
        cells += [_last_metric(data, name), _fate(data, name)]
        rows.append(cells)
    columns = (
        *("ticket", "#weights kept", "#sparsity", "#similarity", "#over chance"),
        *("~most alike", "~least alike", "#kept by it alone", f"#{data.metric}", "~alarm"),
    )
    links = [f"#ticket-{k}" for k in range(len(facts.names))] if data.curves else []
    return table("tickets", "Every ticket", columns, rows, links)


def _likeness(alike: Likeness, facts: MaskFacts, k: int) -> tuple[str, str, str, str]:
    if len(facts.names) < 2:
        return NONE, NONE, NONE, NONE
    others = np.delete(np.arange(len(facts.names)), k)
    most = others[np.argmax(alike.raw[k, others])]
    least = others[np.argmin(alike.raw[k, others])]
    raw, excess = float(alike.raw[k, others].mean()), float(alike.excess[k, others].mean())
    named = [f"{facts.names[j]} ({decimal(float(alike.raw[k, j]))})" for j in (most, least)]
    return decimal(raw), decimal(excess, sign=True), named[0], named[1]


def _last_metric(data: ReportData, name: str) -> str:
    """The metric of the masks that the ticket ended with."""
    curve = data.curves.get(name)
    if curve is None:
        return NONE
    return next((number(p.metric) for p in curve.points if p.round == curve.kept_round), NONE)


def _fate(data: ReportData, name: str) -> str:
    texts = []
    for alarm in data.alarms:
        if alarm.ticket == name:
            after = f", left, keeps round {alarm.last_good_round}" if alarm.left else ""
            texts.append(f"{alarm.direction} in round {alarm.round}{after}")
    curve = data.curves.get(name)
    if not texts and curve is not None and curve.left:
        texts.append(f"left after round {curve.kept_round}: no other was in the rounds")
    return "; ".join(texts) or NONE


def alarm_table(data: ReportData) -> Table:
    """One row an alarm.

    Args:
        data: of the run.

    Returns:
        When it rang, at what values, and what came of it.
    """
    rows = [
        (
            alarm.ticket,
            count(alarm.round),
            percent(alarm.sparsity),
            {RISE: "▲ rise", FALL: "▼ fall"}.get(alarm.direction, alarm.direction),
            *(decimal(alarm.values[key]) for key in ALARM_VALUES),
            _followed(alarm),
        )
        for alarm in data.alarms
    ]
    columns = (
        *("ticket", "#round", "#sparsity", "direction", "#similarity", "#change", "#expected"),
        *("#limit", "~what followed"),
    )
    return table("alarms", "Every alarm", columns, rows)


def _followed(alarm: AlarmFact) -> str:
    if alarm.left:
        return f"left with the mask of round {alarm.last_good_round}"
    good = alarm.last_good_round
    return "went on" if good is None else f"went on; round {good} was the last good one"


def similarity_tables(facts: MaskFacts) -> list[Table]:
    """The matrices behind the heat maps, where they fit a table.

    Args:
        facts: of two tickets or more.

    Returns:
        Raw and in excess of chance for every depth; none beyond 30 tickets.
    """
    if len(facts.names) > _MATRIX:
        return []
    tables = []
    for depth, alike in facts.likeness.items():
        for what, matrix in (("similarity", alike.raw), ("excess over chance", alike.excess)):
            rows = [
                [facts.names[i], *(decimal(float(matrix[i, j])) for j in facts.order)]
                for i in facts.order
            ]
            key = f"pairs-{depth}-{what}".replace(" ", "-")
            columns = ["ticket", *(f"#{facts.names[j]}" for j in facts.order)]
            tables.append(table(key, f"{depth.capitalize()}: {what}", columns, rows))
    return tables


def order_table(facts: MaskFacts) -> Table:
    """Which ticket stands at which place of the heat maps.

    Args:
        facts: of the masks.

    Returns:
        Number and name, in order.
    """
    rows = [(str(place), facts.names[k]) for place, k in enumerate(facts.order, start=1)]
    return table("order", "Numbers of the tickets in the pictures", ("#number", "ticket"), rows)


def layer_table(facts: MaskFacts) -> Table:
    """One row a layer.

    Args:
        facts: of the masks.

    Returns:
        Shares kept by tickets and by their union, dead output channels.

    Example:
        >>> import torch
        >>> from rtl_plugin.reports.page.mask_facts import mask_facts
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> facts = mask_facts(TicketSet([Ticket("a", {"w": a}), Ticket("b", {"w": b})]))
        >>> layer_table(facts).rows[0][:2]
        ('w', '3')
    """
    rows = []
    for j, layer in enumerate(facts.layers):
        weights = max(int(facts.sizes[j]), 1)
        shares = facts.kept[j] / weights
        low, middle, high = np.quantile(shares, [0.0, 0.5, 1.0])
        dead = facts.dead[j]
        rows.append(
            (
                layer,
                count(int(facts.sizes[j])),
                *(percent(float(share)) for share in (low, middle, high)),
                percent(int(facts.union[j]) / weights),
                NONE if facts.vectors[j] else _span(int(dead.min()), int(dead.max())),
                count(facts.floors[j]),
                count(facts.near_floor[j]),
            )
        )
    columns = (
        *("layer", "#weights", "#least kept", "#median kept", "#most kept", "#kept by any"),
        *("#dead outputs", "#floor", "#tickets near it"),
    )
    return table("layer-shares", "Every layer", columns, rows)


def kept_table(facts: MaskFacts) -> Table | None:
    """Weights kept, layers by tickets; None where that is more than people read."""
    if facts.kept.size > 3000:
        return None
    rows = [
        (layer, *(count(int(facts.kept[j, k])) for k in facts.order))
        for j, layer in enumerate(facts.layers)
    ]
    columns = ["layer", *(f"#{facts.names[k]}" for k in facts.order)]
    return table("kept", "Weights kept by layer and ticket", columns, rows)


def shared_table(facts: MaskFacts) -> Table:
    """Weights kept by exactly n tickets, for every n that occurs.

    Args:
        facts: of the masks.

    Returns:
        n, weights, share.

    Example:
        >>> import torch
        >>> from rtl_plugin.reports.page.mask_facts import mask_facts
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> facts = mask_facts(TicketSet([Ticket("a", {"w": a}), Ticket("b", {"w": b})]))
        >>> [row[:2] for row in shared_table(facts).rows]
        [('0', '1'), ('1', '1'), ('2', '1')]
    """
    rows = [
        (str(keepers), count(weights), percent(weights / facts.prunable))
        for keepers, weights in enumerate(facts.shared_by)
        if weights
    ]
    columns = ("#kept by n tickets", "#weights", "#share")
    return table("shared-by", "Weights by the number of tickets that keep them", columns, rows)


def bytes_table(facts: MaskFacts) -> Table:
    """What all tickets need together, beside dense and separate networks.

    Args:
        facts: of the masks.

    Returns:
        Prunable weights and bytes.

    Example:
        >>> import torch
        >>> from rtl_plugin.reports.page.mask_facts import mask_facts
        >>> from rtl_plugin.tickets import Ticket, TicketSet
        >>> a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
        >>> facts = mask_facts(TicketSet([Ticket("a", {"w": a}), Ticket("b", {"w": b})]))
        >>> bytes_table(facts).rows[1][0], bytes_table(facts).rows[1][1]
        ('union: weights that some ticket keeps', '2')
    """
    union, every = int(facts.union.sum()), int(facts.kept.sum())
    masks, weight = facts.mask_bytes, facts.weight_bytes
    own = masks + facts.state_bytes
    lines = [
        ("dense network: prunable weights", facts.prunable, weight(facts.prunable)),
        ("union: weights that some ticket keeps", union, weight(union)),
        ("masks of all tickets, one bit a weight", None, masks),
        ("own state of all tickets", None, facts.state_bytes),
        ("union, masks and own state", union, weight(union) + own),
        ("as many separate sparse networks, masks and own state", every, weight(every) + own),
    ]
    rows = [
        (name, count(weights), percent(None if weights is None else weights / facts.prunable),
         count(needed), size(needed))
        for name, weights, needed in lines
    ]  # fmt: skip
    columns = ("part", "#weights", "#of the prunable", "#bytes", "#about")
    return table("bytes", "Union and bytes, without parameters kept dense", columns, rows)


def _span(low: int, high: int) -> str:
    return count(low) if low == high else f"{count(low)} to {count(high)}"
