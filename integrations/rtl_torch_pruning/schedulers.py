"""The core's schedules in the form that Torch-Pruning asks for: ``(ratio, steps) -> ratios``."""

from rtl_plugin.integration_api import CubicSchedule, GeometricSchedule, LinearSchedule

# A called schedule keeps its shape only; target and rounds are the call's.
_TARGET, _ROUNDS = 0.5, 1


def geometric_scheduler(ratio: float, steps: int) -> list[float]:
    """The same fraction of the survivors in every step, as in iterative magnitude pruning.

    Args:
        ratio: final pruning ratio, a fraction of channels in [0, 1].
        steps: number of steps, at least 1.

    Returns:
        ``steps + 1`` ratios from 0 to ``ratio``, for ``iterative_pruning_ratio_scheduler=`` of
        :class:`RTLPruner` and of Torch-Pruning's own pruners.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> geometric_scheduler(0.75, 2)
        [0.0, 0.5, 0.75]
    """
    return GeometricSchedule(_TARGET, _ROUNDS)(ratio, steps)


def linear_scheduler(ratio: float, steps: int) -> list[float]:
    """The same number of channels in every step, Torch-Pruning's default.

    Args:
        ratio: final pruning ratio, a fraction of channels in [0, 1].
        steps: number of steps, at least 1.

    Returns:
        ``steps + 1`` ratios from 0 to ``ratio``.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> linear_scheduler(0.5, 2)
        [0.0, 0.25, 0.5]
    """
    return LinearSchedule(_TARGET, _ROUNDS)(ratio, steps)


def cubic_scheduler(ratio: float, steps: int) -> list[float]:
    """Much early and little late (automated gradual pruning).

    Args:
        ratio: final pruning ratio, a fraction of channels in [0, 1].
        steps: number of steps, at least 1.

    Returns:
        ``steps + 1`` ratios from 0 to ``ratio``.

    Raises:
        InvalidArgument: an argument is out of range.

    Example:
        >>> cubic_scheduler(0.8, 2)
        [0.0, 0.7000000000000001, 0.8]
    """
    return CubicSchedule(_TARGET, _ROUNDS)(ratio, steps)
