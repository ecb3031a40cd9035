"""Numbers, sizes and dates for people."""

import datetime
import math
from typing import Any

NONE = "\N{EN DASH}"
_SPACE = "\N{NO-BREAK SPACE}"
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def finite(value: Any) -> float | None:
    """A number of unknown origin, or None where it is no finite number.

    Args:
        value: anything that JSON can hold.

    Returns:
        A float, or None.

    Example:
        >>> finite(1), finite(float("nan")), finite("1"), finite(True)
        (1.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def decimal(value: float | None, places: int = 3, sign: bool = False) -> str:
    """A number with fixed decimals and a real minus sign.

    Args:
        value: the number, or None.
        places: decimals.
        sign: show a plus sign too.

    Returns:
        Text; a dash for None.

    Example:
        >>> decimal(0.25), decimal(0.25, 1, sign=True), decimal(None) == NONE
        ('0.250', '+0.2', True)
    """
    if value is None:
        return NONE
    text = f"{value:{'+' if sign else ''}.{places}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return text.replace("-", "\N{MINUS SIGN}")


def number(value: float | None) -> str:
    """A loss or a metric, of whatever size, with about four significant digits.

    Args:
        value: the number, or None.

    Returns:
        Text, scientific below 0.001 and from ten million on; a dash for None.

    Example:
        >>> number(0.25), number(31.4159), number(1.5e-5), number(0.0)
        ('0.2500', '31.42', '1.500e\N{MINUS SIGN}5', '0')
    """
    if value is None:
        return NONE
    magnitude = abs(value)
    if magnitude == 0:
        return "0"
    if magnitude < 1e-3 or magnitude >= 1e7:
        return scientific(value, 3)
    text = f"{value:,.0f}" if magnitude >= 999.95 else f"{value:#.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def scientific(value: float, places: int) -> str:
    """A number as a mantissa and a power of ten.

    Args:
        value: the number.
        places: decimals of the mantissa.

    Returns:
        Text with real minus signs.

    Example:
        >>> scientific(0.00012, 1), scientific(0.0, 1)
        ('1.2e\N{MINUS SIGN}4', '0')
    """
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{places}e}".split("e")
    return f"{mantissa}e{int(power)}".replace("-", "\N{MINUS SIGN}")


def percent(value: float | None, places: int = 2) -> str:
    """A share in percent.

    Args:
        value: 0..1, or None.
        places: decimals.

    Returns:
        Text; a dash for None.

    Example:
        >>> percent(0.5, 1).split()
        ['50.0', '%']
    """
    return NONE if value is None else f"{100 * value:.{places}f}{_SPACE}%"


def percent_tick(value: float) -> str:
    """A share for an axis, with as many digits as it has.

    Args:
        value: 0..1.

    Returns:
        Text.

    Example:
        >>> percent_tick(0.995).split()
        ['99.5', '%']
    """
    return f"{100 * value:.6g}{_SPACE}%"


def count(value: float | None) -> str:
    """A whole number with commas.

    Args:
        value: the number, or None.

    Returns:
        Text; a dash for None.

    Example:
        >>> count(12345)
        '12,345'
    """
    return NONE if value is None else f"{value:,.0f}"


def size(number: float) -> str:
    """A number of bytes in the unit that suits it, 1 kB being 1,000 bytes.

    Args:
        number: bytes.

    Returns:
        Three digits or so, and the unit.

    Example:
        >>> size(2410).split(), size(12).split()
        (['2.41', 'kB'], ['12', 'bytes'])
    """
    power = 0
    while number >= 999.5 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    digits = f"{number:.3g}" if power else f"{number:.0f}"
    return f"{digits}{_SPACE}{_UNITS[power]}"


def date(seconds: float | None) -> str:
    """A time in UTC.

    Args:
        seconds: since 1970, or None.

    Returns:
        Text; a dash for None or a time that no calendar holds.

    Example:
        >>> date(0)
        '1970-01-01 00:00:00 UTC'
    """
    if seconds is None:
        return NONE
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, OSError, ValueError):
        return NONE
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A span of time.

    Args:
        seconds: at least 0.

    Returns:
        Seconds, or minutes and hours.

    Example:
        >>> duration(3.21).split(), duration(3700).split()
        (['3.2', 's'], ['1', 'h', '2', 'min'])
    """
    if seconds < 60:
        return f"{seconds:.1f}{_SPACE}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min"
    return f"{minutes // 60}{_SPACE}h {minutes % 60}{_SPACE}min"


def plural(number: int, noun: str) -> str:
    """A number and its noun.

    Args:
        number: how many.
        noun: in the singular, one that takes an s.

    Returns:
        Text.

    Example:
        >>> plural(1, "ticket"), plural(3, "ticket")
        ('1 ticket', '3 tickets')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
