"""Random streams and data order of a training, rewound before each."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch

from rtl_plugin.integration_api import RandomState, derived_seed, seed_everything

_HOLDERS = (torch.Generator, torch.utils.data.DataLoader, Mapping, list, tuple)
_DEPTH = 6  # evaluator -> partial -> function -> cell -> loader -> sampler


class DataOrder:
    """Starts every training from the same random state, or from a seed of its own.

    torch (CPU and CUDA), numpy and ``random`` are covered, and every ``torch.Generator`` that an
    evaluator reaches through its attributes, its functions' closures and defaults, and loaders.

    Args:
        evaluators: group -> evaluator.
        seed: None starts every (round, group) from the caller's present random state, as if NNI
            ran there alone; a whole number gives each a stream of its own.

    Example:
        >>> order = DataOrder({}, None)
        >>> with order.rewound(1, "a"):
        ...     first = torch.rand(1)
        >>> with order.rewound(2, "a"):
        ...     bool(torch.rand(1) == first)
        True
    """

    def __init__(self, evaluators: Mapping[str, Any], seed: int | None) -> None:
        self._seed = seed
        self._of_group = {
            group: list({id(g): g for g in _generators(evaluator, _DEPTH, set())}.values())
            for group, evaluator in evaluators.items()
        }
        every = {id(g): g for generators in self._of_group.values() for g in generators}
        self._generators = list(every.values())
        if torch.cuda.is_available():
            torch.cuda.init()  # a trainer that starts it later would have a state of its own
        self._callers = RandomState.capture()
        self._states = [generator.get_state() for generator in self._generators]

    @contextmanager
    def rewound(self, round: int, group: str) -> Iterator[None]:
        """Random state and generators as at the start, for a block; the caller's afterwards.

        Args:
            round: counted from 1; 0 is the training before a late rewind point.
            group: its name.
        """
        present = RandomState.capture()
        self._restart(round, group)
        try:
            yield
        finally:
            present.install()
            for generator, state in zip(self._generators, self._states, strict=True):
                generator.set_state(state)

    def _restart(self, round: int, group: str) -> None:
        if self._seed is None:
            self._callers.install()
            return
        seed_everything(derived_seed(self._seed, "rtl_nni", round, group))
        # By its place in the group, so that a group trains alike in any company.
        for number, generator in enumerate(self._of_group.get(group, ())):
            generator.manual_seed(derived_seed(self._seed, "generator", number, round, group))


def _generators(holder: Any, depth: int, seen: set[int]) -> Iterator[torch.Generator]:
    if isinstance(holder, torch.Generator):
        yield holder
        return
    if depth == 0 or id(holder) in seen or isinstance(holder, (torch.Tensor, torch.nn.Module)):
        return
    seen.add(id(holder))
    for part in _parts(holder):
        yield from _generators(part, depth - 1, seen)


def _parts(holder: Any) -> list[Any]:
    if isinstance(holder, (list, tuple, set)):
        return list(holder)[:1000]
    if isinstance(holder, Mapping):
        return list(holder.values())[:1000]
    if isinstance(holder, functools.partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    if isinstance(holder, MethodType):
        return [holder.__func__, holder.__self__]
    if isinstance(holder, FunctionType):
        return _function_parts(holder)
    plain = isinstance(holder, (type, str, bytes, int, float)) or not hasattr(holder, "__dict__")
    return [] if plain else list(vars(holder).values())


def _function_parts(function: FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a name that was never assigned
            continue
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    named = [value for value in used if isinstance(value, _HOLDERS)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*cells, *defaults, *named]
