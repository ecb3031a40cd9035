"""What earlier trials of an experiment say about how far a later one can go."""

from rtl_plugin.integration_api import InvalidArgument, whole_number


class KnownCollapses:
    """Sparsities at which trials of one kind collapsed, and sparsities that they survived.

    A trial is bound to collapse where its target is at least as sparse as every collapse so far,
    and sparser than the targets of all that survived.

    Args:
        least: collapses needed before anything is said, at least 1; 0 never says anything.

    Raises:
        InvalidArgument: ``least`` is not a whole number of at least 0.

    Example:
        >>> known = KnownCollapses(least=1)
        >>> known.collapsed(0.98)
        >>> known.survived(0.95)
        >>> known.dooms(0.97), known.dooms(0.99)
        (False, True)
        >>> known.dooms(0.9799, weight=1e-3)
        True
    """

    def __init__(self, least: int) -> None:
        self.least = whole_number("remember", least, 0)
        self._collapsed: list[float] = []
        self._survived: list[float] = []

    def collapsed(self, sparsity: float) -> None:
        """Remember a trial that was stopped for its own masks.

        Args:
            sparsity: at which its alarms rang, in (0, 1).

        Raises:
            InvalidArgument: it is out of range.
        """
        self._collapsed.append(_checked(sparsity))

    def survived(self, sparsity: float) -> None:
        """Remember a trial that came to its last round.

        Args:
            sparsity: that it was to reach, in (0, 1).

        Raises:
            InvalidArgument: it is out of range.
        """
        self._survived.append(_checked(sparsity))

    def dooms(self, target: float, weight: float = 0.0) -> bool:
        """Whether a trial with this target is bound to collapse, by all that is known.

        Args:
            target: sparsity after its last round.
            weight: what one weight adds to a sparsity: those reached are whole numbers of weights,
                so that equal ones may differ by as much.
        """
        if not self.least or len(self._collapsed) < self.least:
            return False
        beyond = target + weight >= max(self._collapsed)
        return beyond and target - weight > max(self._survived, default=0.0)

    def __str__(self) -> str:
        known = f"{len(self._collapsed)} such trials before it collapsed, at up to"
        return f"{known} {max(self._collapsed, default=0.0):.2%} sparsity"


def _checked(sparsity: float) -> float:
    if not 0 < sparsity < 1:
        raise InvalidArgument(f"a sparsity lies in (0, 1), got {sparsity!r}")
    return float(sparsity)
