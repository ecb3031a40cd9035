"""What several tickets of one network have in common, and all of them as a table."""

from collections.abc import Iterable

import torch
from tabulate import tabulate

from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.diagnostics.similarity import mean_similarity, similarity_matrix
from rtl_plugin.progress.live_text import fitted, printable
from rtl_plugin.ticket import Ticket

NAME_ROOM = 32  # characters of a ticket's name; a longer one loses its middle


def union_of(tickets: Iterable[Ticket]) -> dict[str, torch.Tensor]:
    """Weights that at least one ticket keeps.

    Args:
        tickets: at least one, of one network.

    Returns:
        Parameter name -> bool tensor.
    """
    first, *others = tickets
    result = {name: mask.clone() for name, mask in first.masks.items()}
    for ticket in others:
        for name, mask in ticket.masks.items():
            result[name] |= mask.to(result[name].device)
    return result


def compact_only_reasons(tickets: Iterable[Ticket]) -> tuple[str, ...]:
    """Why masked networks are not the small ones.

    Args:
        tickets: of one network.

    Returns:
        One layer an entry; empty where both compute the same.
    """
    plans = [ticket.channels for ticket in tickets if ticket.channels is not None]
    return tuple(dict.fromkeys(reason for plan in plans for reason in plan.compact_only))


def summarised(tickets: Iterable[Ticket]) -> str:
    """One line a ticket, the union, what is empty and what runs as a small network only.

    Args:
        tickets: at least one, of one network.

    Returns:
        The table, with names of at most 32 characters and a sign for every character in a name
        that cannot be shown.

    Example:
        >>> a = Ticket("a", {"w": torch.tensor([True, False])})
        >>> print(summarised([a, Ticket("b", a.masks)]).splitlines()[-1])
        union 1 of 2 prunable weights
    """
    every = list(tickets)
    masks = [ticket.masks for ticket in every]
    counts = count_masks(masks)
    raw = mean_similarity(similarity_matrix(counts))
    excess = mean_similarity(similarity_matrix(counts, excess=True))
    rows = [
        [_shown(t), f"{t.kept:,}", f"{1 - t.density:.2%}", raw[k], excess[k], _own_bytes(t)]
        for k, t in enumerate(every)
    ]
    headers = ["ticket", "kept", "sparsity", "similarity", "over chance", "own bytes"]
    table = tabulate(rows, headers=headers, floatfmt=".3f", intfmt=",", disable_numparse=[0, 1, 2])
    total = sum(mask.numel() for mask in masks[0].values())
    active = sum(int(mask.sum()) for mask in union_of(every).values())
    lines = [table, "", f"union {active:,} of {total:,} prunable weights"]
    empty = [(_shown(t), ", ".join(t.empty_masks)) for t in every if t.empty_masks]
    lines += [f"nothing kept in {name}: {masks}" for name, masks in empty]
    lines += [f"runs as a small network only: {reason}" for reason in compact_only_reasons(every)]
    return "\n".join(lines)


def _shown(ticket: Ticket) -> str:
    return fitted(printable(ticket.name, plain=False), NAME_ROOM, plain=False)


def _own_bytes(ticket: Ticket) -> int:
    masks = sum((mask.numel() + 7) // 8 for mask in ticket.masks.values())
    return masks + sum(value.nbytes for value in ticket.state.values())
