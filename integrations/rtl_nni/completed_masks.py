"""Which channels NNI masks leave for dead, and what is missing for cutting them.

Groups are those of ``rtl_torch_pruning.channel_graph``, read as plain data.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from rtl_nni.masked_network import MaskedNetwork
from rtl_nni.speedup_report import LeftWhole
from rtl_plugin.integration_api import require

_SHOWN = 4  # names in a reason


def channel_graph(model: nn.Module, dummy_input: Any) -> Any:
    """The ``ChannelGraph`` of a model.

    Args:
        model: the network.
        dummy_input: a tensor, a tuple or list of arguments, or a dict of keyword arguments.

    Raises:
        MissingExtra: Torch-Pruning is not installed.
    """
    purpose = "rtl_nni.speedup, add_dependency_ids and add_norm_alignment"
    require("torch_pruning", "nni,torch-pruning", purpose)
    graphs = require("rtl_torch_pruning.channel_graph", "nni,torch-pruning", purpose)
    return graphs.ChannelGraph(model, dummy_input)


def dead_channels(
    group: Any, network: MaskedNetwork, complete_norms: bool
) -> tuple[list[int], list[LeftWhole]]:
    """What of a group can be cut, as far as masks and kinds of layers tell.

    A channel is dead where it is masked in every layer that produces it. One channel at least of
    every layer stays, and blocks of grouped convolutions keep equally many.

    Args:
        group: a ``ChannelGroup``.
        network: the network under the given masks.
        complete_norms: norms that follow need not be masked yet.

    Returns:
        Channels of the group's root to cut, and masked ones that stay, with reasons.
    """
    by_layer = [
        (m, _of_root(m, network.dead_outputs(m.name, m.channels)))
        for m in group.members
        if m.kind == "producer"
    ]
    masked = set().union(*(dead for _, dead in by_layer))
    dead = {c for c in masked if all(c in gone or c not in m.of_root for m, gone in by_layer)}
    left: list[LeftWhole] = []
    if dead != masked:
        left.append(_disagreement(group, by_layer, masked - dead))
    for keep in (_by_kind, _by_norms(network, complete_norms), *_BY_NUMBERS):
        staying, reason = keep(group, dead)
        if staying:
            left.append(LeftWhole(group.root, tuple(sorted(staying)), reason))
            dead -= staying
    return sorted(dead), left


def norms_of(group: Any, cut: Iterable[int]) -> dict[str, set[int]]:
    """Norm -> its channels that some of the group's channels pass.

    Args:
        group: a ``ChannelGroup``.
        cut: channels of its root.
    """
    wanted = set(cut)
    norms: dict[str, set[int]] = {}
    for member in group.members:
        if member.kind == "norm":
            norms.setdefault(member.name, set()).update(_own(member, wanted))
    return norms


def cut_of(group: Any, cut: Iterable[int]) -> Iterator[tuple[Any, list[int]]]:
    """Layers that produce some of a group's channels, and their own numbers of them.

    Args:
        group: a ``ChannelGroup``.
        cut: channels of its root.
    """
    wanted = set(cut)
    for member in group.members:
        own = _own(member, wanted) if member.kind == "producer" else []
        if own:
            yield member, own


_Kept = tuple[set[int], str]


def _by_kind(group: Any, dead: set[int]) -> _Kept:
    if group.is_output:
        return set(dead), "they are outputs of the network"
    across = _named(group, "across")
    if across:
        return set(dead), f"{across} looks across channels, so a masked one is not a missing one"
    bare = _named(group, "parameter")
    return (set(dead), f"they meet the bare parameter {bare}") if bare else (set(), "")


def _by_norms(network: MaskedNetwork, complete_norms: bool) -> Callable[[Any, set[int]], _Kept]:
    def keep(group: Any, dead: set[int]) -> _Kept:
        staying: set[int] = set()
        names = []
        for member in (m for m in group.members if m.kind == "norm"):
            alive = set(_own(member, dead)) if network.is_stuck(member.name) else set()
            if not complete_norms:
                alive |= set(network.alive_in_norm(member.name, _own(member, dead)))
            if alive:
                staying |= _of_root_any(member, alive)
                names.append(member.name)
        stuck = any(network.is_stuck(name) for name in names)
        why = "shifts them and has no weight to mask" if stuck else "is not masked there"
        return staying, f"{_listed(names)} {why}"

    return keep


def _by_blocks(group: Any, dead: set[int]) -> _Kept:
    """Trim to equally many channels a block of every grouped convolution."""
    limits = [m for m in group.members if m.blocks > 1]
    if not limits or not dead:
        return set(), ""
    reason = f"the groups of {_listed(m.name for m in limits)} would keep different numbers"
    labels: dict[int, list[int]] = {c: [] for c in range(group.channels)}
    for member in limits:
        for own, root in zip(member.channels, member.of_root, strict=True):
            labels[root].append(own // (member.width // member.blocks))
    blocks: dict[tuple[int, ...], list[int]] = {}
    for root, label in labels.items():
        blocks.setdefault(tuple(label), []).append(root)
    gone = [[c for c in block if c in dead] for block in blocks.values()]
    count = min(min(map(len, gone)), min(map(len, blocks.values())) - 1)  # one of each stays
    trimmed = {c for one in gone for c in one[:count]}
    balanced = all(_is_balanced(member, trimmed) for member in limits)
    return dead - trimmed if balanced else set(dead), reason


def _is_balanced(member: Any, cut: set[int]) -> bool:
    counts = [0] * member.blocks
    for own in _own(member, cut):
        counts[own // (member.width // member.blocks)] += 1
    return len(set(counts)) == 1


def _by_parts(group: Any, dead: set[int]) -> _Kept:
    """Channels that are one channel further on (behind a reshape) go together or not at all."""
    staying: set[int] = set()
    joined = [m for m in group.members if len(set(m.channels)) < len(m.channels)]
    before = -1
    while len(staying) > before:
        before = len(staying)
        for member in joined:
            alive = _of_root_any_not(member, dead - staying)
            staying |= dead & _of_root_any(member, alive)
    names = _listed(m.name for m in joined)
    return staying, f"they are parts of channels of {names}, of which others are not masked"


def _something_left(group: Any, dead: set[int]) -> _Kept:
    staying: set[int] = set()
    for member in group.members:
        if member.of_root and (dead - staying).issuperset(member.of_root):
            staying.add(min(member.of_root))
    return staying, "a layer keeps at least one channel"


_BY_NUMBERS = (_by_parts, _by_blocks, _something_left)


def _disagreement(group: Any, by_layer: list[tuple[Any, set[int]]], staying: set[int]) -> LeftWhole:
    alive = [m.name for m, gone in by_layer if staying & (set(m.of_root) - gone)]
    masked = [m.name for m, gone in by_layer if staying & gone]
    reason = f"masked in {_listed(masked)}, not in {_listed(alive)}"
    return LeftWhole(group.root, tuple(sorted(staying)), reason)


def _own(member: Any, roots: set[int]) -> list[int]:
    pairs = zip(member.channels, member.of_root, strict=True)
    return [own for own, root in pairs if root in roots]


def _of_root(member: Any, own: set[int]) -> set[int]:
    """Root channels of which all that the member has is in a set of its own channels."""
    pairs = list(zip(member.channels, member.of_root, strict=False))
    return {root for _, root in pairs} - {root for channel, root in pairs if channel not in own}


def _of_root_any(member: Any, own: set[int]) -> set[int]:
    pairs = zip(member.channels, member.of_root, strict=True)
    return {root for channel, root in pairs if channel in own}


def _of_root_any_not(member: Any, roots: set[int]) -> set[int]:
    """Its own channels that come from any other root channel than these."""
    pairs = zip(member.channels, member.of_root, strict=True)
    return {channel for channel, root in pairs if root not in roots}


def _named(group: Any, kind: str) -> str:
    return _listed(m.name for m in group.members if m.kind == kind)


def _listed(names: Iterable[str]) -> str:
    all_ = list(dict.fromkeys(names))
    more = f" and {len(all_) - _SHOWN} more" if len(all_) > _SHOWN else ""
    return ", ".join(map(repr, all_[:_SHOWN])) + more
