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
    layers = choice.layers.copy()
    whole = layers.pop(NETWORK, None)
    if whole is None:
        lines.append("no mixed batch was seen yet")
    else:
        lines.append(f"a mixed batch is sorted by ticket, {whole.way}: {whole.reason}")
    if layers:
        rows = [(path, chosen.way, chosen.reason) for path, chosen in layers.items()]
        lines.append(tabulate(rows, headers=("layer", "runs as", "because")))
    return "\n".join([*lines, *notes])


def _weights(budget: int | None, cached: int) -> str:
    if budget == 0:
        return "weights are masked at every call (budget 0)"
    limit = "no limit" if budget is None else f"budget {budget / 1e6:.1f} MB"
    return f"masked weights are kept between calls ({cached / 1e6:.1f} MB at present, {limit})"
