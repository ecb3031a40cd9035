"""Checking and naming arguments."""

from numbers import Integral
from typing import Any

from rtl_plugin.errors import InvalidArgument


def whole_number(name: str, value: Any, least: int) -> int:
    """An integer argument, checked.

    Args:
        name: the argument's name.
        value: what the user passed.
        least: the smallest allowed value.

    Returns:
        The value as int.

    Raises:
        InvalidArgument: the value is not an integer or too small.

    Example:
        >>> whole_number("batch_size", 64, least=1)
        64
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InvalidArgument(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def callable_name(function: Any) -> str:
    """A function's qualified name, or its class's: what a run folder can compare.

    Args:
        function: a function, or an object that can be called.

    Returns:
        Module and qualified name.

    Example:
        >>> callable_name(whole_number)
        'rtl_plugin.arguments.whole_number'
    """
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
