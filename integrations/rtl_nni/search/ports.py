"""Ports for the manager's web page and REST server, tried before anything is started."""

import errno
import socket

from rtl_plugin.integration_api import InvalidArgument, whole_number

_HIGHEST = 65535
_TRIES = 100


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of this machine now.

    Args:
        port: 1 to 65535.

    Returns:
        True when it can be bound on every address, by IPv4 and by IPv6.

    Example:
        >>> import socket
        >>> with socket.socket() as server:
        ...     server.bind(("127.0.0.1", 0))
        ...     server.listen()
        ...     is_free(server.getsockname()[1])
        False
    """
    families = [(socket.AF_INET, "0.0.0.0")]
    if socket.has_ipv6:
        families.append((socket.AF_INET6, "::"))
    return all(_can_bind(family, address, port) for family, address in families)


def _can_bind(family: int, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, _bind_option(), 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address, port))
    except OSError as error:
        # A machine without IPv6 cannot be in use there.
        return error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True


def _bind_option() -> int:
    # As the manager's server does: a port that a closed connection still holds is free. On
    # Windows, which alone has the other option, it would let two programs share a port.
    option: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    return option


def free_port(number: int = 1) -> int:
    """A port that is free now, with as many free ones after it as asked.

    Args:
        number: how many ports in a row, at least 1.

    Returns:
        The first of them. Another program may take it before it is used.

    Raises:
        InvalidArgument: no such row was found.

    Example:
        >>> is_free(free_port())
        True
    """
    for _ in range(_TRIES):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first: int = probe.getsockname()[1]
        row = range(first, first + number)
        if row[-1] <= _HIGHEST and all(is_free(port) for port in row):
            return first
    raise InvalidArgument(
        f"no {number} free ports in a row were found in {_TRIES} tries: name one with port="
    )


def checked_port(port: int | None, number: int = 1) -> int:
    """The port that an experiment is to use.

    Args:
        port: 1 to 65535, or None to take a free one.
        number: how many ports in a row the training service needs.

    Returns:
        The first port.

    Raises:
        InvalidArgument: it is no port, or another program listens there.

    Example:
        >>> checked_port(70000)
        Traceback (most recent call last):
        rtl_plugin.errors.InvalidArgument: port must be at most 65535, got 70000
    """
    if port is None:
        return free_port(number)
    first = whole_number("port", port, least=1)
    if first + number - 1 > _HIGHEST:
        raise InvalidArgument(f"port must be at most {_HIGHEST - number + 1}, got {port}")
    for used in range(first, first + number):
        if not is_free(used):
            why = "" if used == first else f" (the training service needs port + 1, so {used})"
            raise InvalidArgument(
                f"port {used} is in use or may not be used{why}: stop what listens there, name "
                "another port, or pass port=None for a free one. Nothing was started"
            )
    return first
