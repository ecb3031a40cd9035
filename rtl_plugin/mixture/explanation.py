"""Words for how a mixture runs batches."""

from collections.abc import Sequence

from tabulate import tabulate

from rtl_plugin.mixture.layer_choice import NETWORK, LayerChoice


def explained(budget: int | None, cached: int, choice: LayerChoice, notes: Sequence[str]) -> str:
    """Where weights come from, how the batch passes, and how every layer with masks runs.

    Args:
        budget: bytes of masked copies that may be kept; None for no limit.
        cached: bytes that are kept at present.
        choice: what was chosen so far.
        notes: what does not run as it was asked for, and why.

    Returns:
        A text of several lines.

    Example:
        >>> print(explained(0, 0, LayerChoice("slices", (), timed=False), []))
        weights are masked at every call (budget 0)
        no mixed batch was seen yet
    """
    lines = [_weights(budget, cached)]
    layers = [(path, chosen) for (path, _), chosen in choice.layers.items() if path != NETWORK]
    whole = [chosen for (path, _), chosen in choice.layers.items() if path == NETWORK]
    if not whole:
        lines.append("no mixed batch was seen yet")
    for chosen in whole:
        lines.append(f"a mixed batch is sorted by ticket, {chosen.way}: {chosen.reason}")
    if layers:
        rows = [(path, chosen.way, chosen.reason) for path, chosen in layers]
        lines.append(tabulate(rows, headers=("layer", "runs as", "because")))
    return "\n".join([*lines, *notes])


def _weights(budget: int | None, cached: int) -> str:
    if budget == 0:
        return "weights are masked at every call (budget 0)"
    limit = "no limit" if budget is None else f"budget {budget / 1e6:.1f} MB"
    return f"masked weights are kept between calls ({cached / 1e6:.1f} MB at present, {limit})"
