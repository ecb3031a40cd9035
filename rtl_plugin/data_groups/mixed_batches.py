"""Batches that mix the groups: what a single model for all data trains on."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from rtl_plugin.data_groups.loading import CompositeLoader, number_of_batches
from rtl_plugin.errors import InvalidGroups
from rtl_plugin.nested import tensors_in


class MixedBatches(CompositeLoader):
    """Batches whose rows come from all groups: one batch of every group, shuffled and split again.

    With M_k batches in group k and M = max M_k, smaller groups are cycled until each gave M, as in
    joint retraining (Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 2).
    Rows are mixed because batches of one group each would spoil a single model's batch norm.

    Args:
        loaders: group name -> re-iterable of batches. A batch nests tensors [B, ...] in any way;
            lists of B strings, numbers or None count as rows too, other leaves must be equal.

    Raises:
        InvalidGroups: while iterating or counting, a loader is empty, or the batches of two groups
            differ in structure, shape, dtype or device, or hold something that has no rows.

    Example:
        >>> mixed = MixedBatches({"a": [torch.zeros(4)], "b": [torch.ones(4), torch.ones(4)]})
        >>> len(mixed), sum(int(batch.sum()) for batch in mixed)
        (4, 8)
    """

    def __init__(self, loaders: Mapping[str, Iterable[Any]]) -> None:
        super().__init__(loaders.values())
        self.names = tuple(loaders)

    @cached_property
    def _longest(self) -> int:
        return max(
            number_of_batches(part, f"training loader of group {name!r}")
            for name, part in zip(self.names, self.parts, strict=True)
        )

    def __len__(self) -> int:
        return self._longest * len(self.parts)

    def __iter__(self) -> Iterator[Any]:
        longest = self._longest
        streams = [_cycled(part, name) for name, part in zip(self.names, self.parts, strict=True)]
        for _ in range(longest):
            yield from _mixed([next(stream) for stream in streams], self.names)


class ChainedBatches(CompositeLoader):
    """The batches of several loaders, one loader after the other.

    Args:
        parts: re-iterables of batches.

    Example:
        >>> list(ChainedBatches([[1, 2], [3]]))
        [1, 2, 3]
    """

    def __len__(self) -> int:
        return sum(number_of_batches(part) for part in self.parts)

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def _cycled(loader: Iterable[Any], name: str) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise InvalidGroups(
                f"the training loader of group {name!r} gave no batch when iterated again: "
                "its __iter__ must start anew every time"
            )


def _mixed(batches: list[Any], names: Sequence[str]) -> Iterator[Any]:
    sizes = [_rows_of(batch, name) for batch, name in zip(batches, names, strict=True)]
    together = _joined(batches, sizes, names, "batch")
    for rows in torch.randperm(sum(sizes)).split(sizes):
        yield _picked(together, rows)


def _rows_of(batch: Any, name: str) -> int:
    shapes = [tuple(tensor.shape) for tensor in tensors_in(batch)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or sizes == {()}:
        raise InvalidGroups(
            f"a batch of group {name!r} cannot be mixed with other groups' batches: expected "
            f"tensors with one common first dimension, got shapes {shapes}: return tensors whose "
            "first dimension is the batch"
        )
    return int(sizes.pop()[0])


@dataclasses.dataclass(frozen=True)
class _Rows:
    """One Python value a row, as default_collate returns for strings."""

    kind: type
    values: list[Any]


_ATOMS = (str, bytes, int, float, bool, type(None))


def _is_rows(value: Any, size: int) -> bool:
    return (
        type(value) in (list, tuple)
        and len(value) == size
        and all(isinstance(item, _ATOMS) for item in value)
    )


def _joined(parts: list[Any], sizes: list[int], names: Sequence[str], where: str) -> Any:
    first = parts[0]
    if all(isinstance(part, torch.Tensor) for part in parts):
        _check_alike([(p.shape[1:], p.dtype, p.device) for p in parts], names, where)
        return torch.cat(parts)
    _check_alike([type(part) for part in parts], names, where)
    if all(_is_rows(part, size) for part, size in zip(parts, sizes, strict=True)):
        return _Rows(type(first), [value for part in parts for value in part])
    children = [_children(part) for part in parts]
    if children[0] is None:
        if not isinstance(first, _ATOMS):
            raise InvalidGroups(
                f"{where} of group {names[0]!r} is a {type(first).__name__}, which has no rows to "
                "mix: return tensors from the loader"
            )
        _check_alike(parts, names, where)
        return first
    keyed = [child for child in children if child is not None]
    _check_alike([child.keys() for child in keyed], names, where)
    joined = {
        key: _joined([child[key] for child in keyed], sizes, names, f"{where}[{key!r}]")
        for key in keyed[0]
    }
    return _rebuilt(first, joined)


def _check_alike(seen: Sequence[Any], names: Sequence[str], where: str) -> None:
    for name, other in zip(names, seen, strict=True):
        if other != seen[0]:
            raise InvalidGroups(
                f"batches of groups {names[0]!r} and {name!r} differ at {where}: {seen[0]} against "
                f"{other}: one model can only train on both if they have the same structure"
            )


def _picked(together: Any, rows: torch.Tensor) -> Any:
    if isinstance(together, torch.Tensor):
        return together[rows.to(together.device)]
    if isinstance(together, _Rows):
        return together.kind(together.values[row] for row in rows.tolist())
    children = _children(together)
    if children is None:
        return together
    return _rebuilt(together, {key: _picked(child, rows) for key, child in children.items()})


def _children(nested: Any) -> dict[Any, Any] | None:
    if isinstance(nested, Mapping):
        return dict(nested)
    if isinstance(nested, (list, tuple)):
        return dict(enumerate(nested))
    if dataclasses.is_dataclass(nested) and not isinstance(nested, type):
        return {f.name: getattr(nested, f.name) for f in dataclasses.fields(nested) if f.init}
    return None


def _rebuilt(original: Any, children: dict[Any, Any]) -> Any:
    if type(original) is dict:
        return children
    if isinstance(original, Mapping):
        try:
            return type(original)(children)  # type: ignore[call-arg]
        except TypeError:  # a mapping with its own constructor: a dict carries the same items
            return children
    if isinstance(original, tuple) and hasattr(original, "_fields"):
        return type(original)(*children.values())
    if isinstance(original, (list, tuple)):
        return type(original)(children.values())
    return dataclasses.replace(original, **children)
