"""How the taps of a convolution move over an image."""

from collections.abc import Sequence
from typing import NamedTuple

from rtl_plugin.errors import InvalidArgument

Pair = tuple[int, int]


class Window(NamedTuple):
    """How a convolution's taps move over an image; pairs are (down, right).

    Args:
        stride: at least 1 each.
        padding: rows and columns of zeros on every side, at least 0 each.
        dilation: at least 1 each.

    Example:
        >>> Window((2, 2), (1, 1), (1, 1)).output((5, 6), (3, 3))
        (3, 3)
    """

    stride: Pair
    padding: Pair
    dilation: Pair

    def output(self, size: Sequence[int], taps: Sequence[int]) -> Pair:
        """Height and width of the output.

        Args:
            size: of the input.
            taps: of the weight.
        """
        down, right = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (taps[i] - 1) - 1) // self.stride[i]
            + 1
            for i in (0, 1)
        )
        return down, right

    def numbers(self) -> list[int]:
        """The six numbers in a row, as operators take them.

        Returns:
            Stride, padding and dilation, two of each.

        Raises:
            InvalidArgument: a value is no pair of whole numbers, or out of range.
        """
        least = {"stride": 1, "padding": 0, "dilation": 1}
        for name, value in self._asdict().items():
            whole = isinstance(value, (tuple, list)) and len(value) == 2
            if not whole or any(not isinstance(v, int) or v < least[name] for v in value):
                raise InvalidArgument(
                    f"{name} must be two whole numbers of at least {least[name]}, got {value!r}: "
                    "the kernels pad with zeros, by a number on every side"
                )
        return [*self.stride, *self.padding, *self.dilation]

    def check(self, size: Pair, taps: Pair) -> None:
        """Refuse an image that is smaller than the weight.

        Args:
            size: of the input.
            taps: of the weight.

        Raises:
            InvalidArgument: there would be no output.
        """
        if min(self.output(size, taps)) < 1:
            raise InvalidArgument(
                f"a weight of {taps[0]} x {taps[1]} taps and dilation {self.dilation} does not fit "
                f"into an image of {size[0]} x {size[1]} with padding {self.padding}"
            )


def window_of(values: Sequence[int]) -> Window:
    """Stride, padding and dilation from six numbers in a row, as operators pass them.

    Args:
        values: two of each.

    Returns:
        The window, not yet checked against an image.

    Raises:
        InvalidArgument: there are not six.

    Example:
        >>> window_of([2, 2, 1, 1, 1, 1]).stride
        (2, 2)
    """
    if len(values) != 6:
        raise InvalidArgument(
            f"stride, padding and dilation must be pairs, got {len(values)} numbers"
        )
    a, b, c, d, e, f = values
    return Window((a, b), (c, d), (e, f))
