"""Where a trial's figures go: to NNI's manager, to the caller's function, or nowhere."""

import os
from collections.abc import Callable
from typing import Any, Protocol

from rtl_nni.host import imported
from rtl_plugin.integration_api import InvalidArgument

Report = Callable[[int, float], object]


class Reporter(Protocol):
    """What a trial tells while it runs."""

    def round(self, number: int, value: Any) -> None:
        """The metric after a round: a float, or a dict with a "default" where counts travel."""

    def final(self, value: float) -> None:
        """The metric of the finished trial."""


class ToNni:
    """Tells NNI's manager.

    Raises:
        InvalidArgument: nobody has asked NNI for the parameters, so it refuses results.
    """

    def __init__(self) -> None:
        self._nni = imported("nni")
        if self._nni.get_current_parameter() is None:
            raise InvalidArgument(
                "NNI takes results only after its parameters were asked for: call "
                "rtl_nni.next_parameters() before run_trial and pass what it returns as params"
            )

    def round(self, number: int, value: Any) -> None:
        """The metric after a round."""
        self._nni.report_intermediate_result(value)

    def final(self, value: float) -> None:
        """The metric of the finished trial."""
        self._nni.report_final_result(value)


class ToFunction:
    """Tells a function of the caller's about every round; the final metric is returned to it.

    Args:
        report: ``report(round, value)``.
    """

    def __init__(self, report: Report | None) -> None:
        self._report = report

    def round(self, number: int, value: Any) -> None:
        """The metric after a round."""
        if self._report is not None:
            self._report(number, value)

    def final(self, value: float) -> None:
        """Nothing: the caller gets the result."""


def reporter_from(report: Any) -> Reporter:
    """Where figures go.

    Args:
        report: "auto" (NNI's manager where it started this process, otherwise nobody),
            ``report(round, value)``, or None.

    Returns:
        Something to tell them.

    Raises:
        InvalidArgument: it is something else, or NNI was not asked for parameters.

    Example:
        >>> told = []
        >>> reporter_from(lambda round, value: told.append((round, value))).round(1, 0.5)
        >>> told
        [(1, 0.5)]
    """
    if report == "auto":
        return ToNni() if under_nni() else ToFunction(None)
    if report is not None and not callable(report):
        raise InvalidArgument(
            f'report must be "auto", None or callable as report(round, value), got {report!r}'
        )
    return ToFunction(report)


def under_nni() -> bool:
    """Whether NNI's manager started this process.

    Example:
        >>> under_nni()
        False
    """
    return os.environ.get("NNI_PLATFORM") is not None
