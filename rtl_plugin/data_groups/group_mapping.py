"""What data groups are, however they were made: an ordered mapping with a pooled counterpart."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rtl_plugin.data_groups.group import DataGroup, check_groups, check_names
from rtl_plugin.data_groups.loading import known_length
from rtl_plugin.data_groups.mixed_batches import ChainedBatches, MixedBatches
from rtl_plugin.errors import UnknownTicket

Groups = TypeVar("Groups", bound="GroupMapping")


class GroupMapping(Mapping[str, DataGroup]):
    """The base of :class:`rtl_plugin.data_groups.DataGroups`, without its constructors.

    Args:
        groups: the groups, in order.
        pooled: the group "all" for a single model; by default mixed from the groups' batches.

    Raises:
        InvalidGroups: there is no group, a name is not a distinct non-empty str, or a loader is not
            a re-iterable of batches, is empty, or could not be replayed.

    Example:
        >>> len(GroupMapping([DataGroup("a", train=[1], validation=None, test=None)]))
        1
    """

    def __init__(self, groups: Iterable[DataGroup], *, pooled: DataGroup | None = None) -> None:
        listed = list(groups)
        check_names(group.name for group in listed)
        check_groups(listed)
        self._groups = {group.name: group for group in listed}
        self._pooled = pooled

    @property
    def names(self) -> tuple[str, ...]:
        """The groups' names, in order."""
        return tuple(self._groups)

    def __getitem__(self, name: str) -> DataGroup:
        try:
            return self._groups[name]
        except (KeyError, TypeError):
            raise UnknownTicket(
                f"there is no data group {name!r}, expected one of {list(self._groups)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._groups)})"

    def pooled(self: Groups) -> Groups:
        """All data as one group named "all": what a single model for everything trains on.

        Groups made from a dataset give shuffled batches of all training samples with the dataset's
        own targets; groups made from loaders give :class:`MixedBatches`.

        Returns:
            One group.

        Example:
            >>> from rtl_plugin.data_groups import DataGroups
            >>> import torch
            >>> groups = DataGroups.from_loaders({"a": [torch.zeros(2)], "b": [torch.ones(2)]})
            >>> sum(batch.sum() for batch in groups.pooled()["all"].train)
            tensor(2.)
        """
        pooled = self._mixed() if self._pooled is None else self._pooled
        return type(self)([pooled], pooled=pooled)

    def only(self: Groups, name: str) -> Groups:
        """Just one group: what an independent model of its own trains on.

        Args:
            name: the group.

        Returns:
            One group.

        Raises:
            UnknownTicket: there is no such group.

        Example:
            >>> from rtl_plugin.data_groups import DataGroups
            >>> DataGroups.from_loaders({"a": [1], "b": [2]}).only("b").names
            ('b',)
        """
        return type(self)([self[name]])

    def signature(self) -> dict[str, Any]:
        """What identifies the data of a run, as far as it can be told cheaply.

        Returns:
            The names, and the number of training batches of every group (None for a loader without
            a length, which may be endless), ready for JSON.

        Example:
            >>> from rtl_plugin.data_groups import DataGroups
            >>> DataGroups.from_loaders({"a": [1, 2]}).signature()
            {'names': ['a'], 'batches': {'a': 2}}
        """
        batches = {name: known_length(group.train) for name, group in self.items()}
        return {"names": list(self.names), "batches": batches}

    def _mixed(self) -> DataGroup:
        def chained(loaders: Iterable[Iterable[Any] | None]) -> ChainedBatches | None:
            given = [loader for loader in loaders if loader is not None]
            return ChainedBatches(given) if given else None

        return DataGroup(
            "all",
            train=MixedBatches({name: group.train for name, group in self.items()}),
            validation=chained(group.validation for group in self.values()),
            test=chained(group.test for group in self.values()),
        )
