"""How sparse the tickets are after each round."""

import abc
import math
from typing import Any

from rtl_plugin.errors import InvalidArgument


def survivors(sparsity: float, prunable: int) -> int:
    """Weights that a ticket keeps: ``floor((1 - sparsity) * prunable + 0.5)``.

    Args:
        sparsity: fraction of prunable weights removed, in [0, 1].
        prunable: number of prunable weights.

    Returns:
        An integer in [0, prunable].

    Example:
        >>> survivors(0.75, 10)
        3
    """
    return math.floor((1 - sparsity) * prunable + 0.5)


class SparsitySchedule(abc.ABC):
    """A path from 0 to a target sparsity over rounds counted from 1.

    Also callable as Torch-Pruning's ``iterative_pruning_ratio_scheduler(ratio, steps)``; called
    so, an instance keeps only its shape. A schedule of your own says how many rounds it takes
    (``rounds_for``) and how sparse it is on the way (``path``).

    Args:
        sparsity: target fraction of prunable weights removed, in (0, 1).

    Raises:
        InvalidArgument: the target is out of range.

    Example:
        >>> class Late(SparsitySchedule):
        ...     def rounds_for(self, prunable=None):
        ...         return 2
        ...
        ...     def path(self, target, fraction):
        ...         return target * fraction**2
        >>> Late(0.8).sparsity(1), Late(0.8).sparsity(2)
        (0.2, 0.8)
    """

    def __init__(self, sparsity: float) -> None:
        if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)):
            raise InvalidArgument(f"sparsity must be a number in (0, 1), got {sparsity!r}")
        if not 0 < sparsity < 1:
            raise InvalidArgument(
                f"sparsity must be in (0, 1), got {sparsity}: the fraction of prunable weights "
                "to remove, so 0.75 removes 75 %"
            )
        self.target = float(sparsity)

    @abc.abstractmethod
    def rounds_for(self, prunable: int | None = None) -> int:
        """Number of rounds until the target."""

    @abc.abstractmethod
    def path(self, target: float, fraction: float) -> float:
        """Sparsity after a fraction in (0, 1) of the way to a target.

        Args:
            target: final sparsity, in (0, 1].
            fraction: of the rounds that are done, in (0, 1).

        Returns:
            A fraction in [0, target], growing with ``fraction``.
        """

    def sparsity(self, round: int, prunable: int | None = None) -> float:
        """Sparsity after a round.

        Args:
            round: from 0 (nothing removed) to the last (exactly the target).
            prunable: number of prunable weights; only :class:`FixedCountSchedule` needs it.

        Returns:
            A fraction in [0, 1).

        Raises:
            InvalidArgument: the round is out of range, or ``prunable`` is missing.
        """
        rounds = self.rounds_for(prunable)
        if not 0 <= round <= rounds:
            raise InvalidArgument(f"round must be in 0..{rounds}, got {round}")
        if round == 0:
            return 0.0
        return self.target if round == rounds else self._between(round, rounds, prunable)

    def _between(self, round: int, rounds: int, prunable: int | None) -> float:
        return self.path(self.target, round / rounds)

    def __call__(self, ratio: float, steps: int) -> list[float]:
        """Torch-Pruning's ratios after each of ``steps`` steps, this schedule's shape.

        Args:
            ratio: final pruning ratio, in [0, 1].
            steps: number of steps, at least 1.

        Returns:
            ``steps + 1`` values from 0 to ``ratio``.

        Raises:
            InvalidArgument: an argument is out of range.
        """
        if not isinstance(steps, int) or steps < 1 or not 0 <= ratio <= 1:
            raise InvalidArgument(
                f"need ratio in [0, 1] and steps >= 1, got {ratio}, {steps} (a whole number)"
            )
        between = [self.path(ratio, step / steps) for step in range(1, steps)]
        return [0.0, *between, float(ratio)]

    def description(self) -> dict[str, Any]:
        """Kind and settings, as JSON-able data."""
        return {"kind": type(self).__name__, "sparsity": self.target}

    def __repr__(self) -> str:
        fields = [f"{k}={v}" for k, v in self.description().items() if k != "kind"]
        return f"{type(self).__name__}({', '.join(fields)})"


class _RoundedSchedule(SparsitySchedule):
    """A schedule with a given number of rounds."""

    def __init__(self, sparsity: float, rounds: int) -> None:
        super().__init__(sparsity)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise InvalidArgument(f"rounds must be a whole number of at least 1, got {rounds!r}")
        self.rounds = rounds

    def rounds_for(self, prunable: int | None = None) -> int:
        return self.rounds

    def description(self) -> dict[str, Any]:
        return {**super().description(), "rounds": self.rounds}


class GeometricSchedule(_RoundedSchedule):
    """Removes the same fraction of the survivors each round (iterative magnitude pruning).

    Args:
        sparsity: target fraction removed, in (0, 1).
        rounds: number of rounds, at least 1.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> GeometricSchedule(0.75, rounds=2).sparsity(1)
        0.5

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 1 (fraction p).
    """

    def path(self, target: float, fraction: float) -> float:
        """As documented in :class:`SparsitySchedule`."""
        return 1 - float((1 - target) ** fraction)


class LinearSchedule(_RoundedSchedule):
    """Removes the same number of weights each round.

    Args:
        sparsity: target fraction removed, in (0, 1).
        rounds: number of rounds, at least 1.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> LinearSchedule(0.8, rounds=4).sparsity(1)
        0.2
    """

    def path(self, target: float, fraction: float) -> float:
        """As documented in :class:`SparsitySchedule`."""
        return target * fraction


class CubicSchedule(_RoundedSchedule):
    """Removes much early and little late (automated gradual pruning, AGP).

    Args:
        sparsity: target fraction removed, in (0, 1).
        rounds: number of rounds, at least 1.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> CubicSchedule(0.8, rounds=2).sparsity(1)
        0.7000000000000001

    Source:
        Zhu and Gupta, To prune, or not to prune, arXiv 1710.01878.
    """

    def path(self, target: float, fraction: float) -> float:
        """As documented in :class:`SparsitySchedule`."""
        return target * (1 - (1 - fraction) ** 3)


class FixedCountSchedule(SparsitySchedule):
    """Removes a fixed number of weights each round, the rest in the last.

    Args:
        count: weights removed a round, at least 1.
        sparsity: target fraction removed, in (0, 1).

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> FixedCountSchedule(30, sparsity=0.5).sparsity(1, prunable=100)
        0.3

    Source:
        Stefański, Presta, Byra, arXiv 2601.22141: 4,096 weights a round in their experiments.
    """

    def __init__(self, count: int, sparsity: float) -> None:
        super().__init__(sparsity)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgument(f"count must be a whole number of at least 1, got {count!r}")
        self.count = count

    def rounds_for(self, prunable: int | None = None) -> int:
        """Number of rounds until the target; needs the number of prunable weights."""
        if prunable is None:
            raise InvalidArgument("FixedCountSchedule needs prunable=, the number of weights")
        return max(1, math.ceil((prunable - survivors(self.target, prunable)) / self.count))

    def _between(self, round: int, rounds: int, prunable: int | None) -> float:
        assert prunable is not None  # noqa: S101 - rounds_for has refused None
        return self.count * round / prunable

    def path(self, target: float, fraction: float) -> float:
        """As documented in :class:`SparsitySchedule`."""
        return target * fraction

    def description(self) -> dict[str, Any]:
        """Kind and settings, as JSON-able data."""
        return {**super().description(), "count": self.count}


class OneShotSchedule(SparsitySchedule):
    """Removes everything in one round.

    Args:
        sparsity: target fraction removed, in (0, 1).

    Raises:
        InvalidArgument: the target is out of range.

    Example:
        >>> OneShotSchedule(0.5).sparsity(1)
        0.5
    """

    def rounds_for(self, prunable: int | None = None) -> int:
        """One round."""
        return 1

    def path(self, target: float, fraction: float) -> float:
        """As documented in :class:`SparsitySchedule`."""
        return target
