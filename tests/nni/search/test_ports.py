"""Ports are tried as the manager's server would take them."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni.search.ports import checked_port, free_port, is_free
from rtl_plugin.errors import InvalidArgument


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        yield server.getsockname()[1]


def test_ports(taken: int) -> None:
    assert not is_free(taken)
    first = free_port(2)
    assert checked_port(first, 2) == first
    with pytest.raises(InvalidArgument, match=rf"port {taken} is in use .*needs port \+ 1"):
        checked_port(taken - 1, 2)


@pytest.mark.parametrize("windows", [True, False])
def test_windows_must_not_let_two_share_a_port(
    windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SO_REUSEADDR does that there, and only there is the other option."""
    options: list[int] = []

    class Noting(socket.socket):
        def setsockopt(self, level: int, option: int, *value: Any) -> None:  # type: ignore[override]
            if level == socket.SOL_SOCKET:
                options.append(option)

    port = free_port()
    monkeypatch.delattr(socket, "SO_EXCLUSIVEADDRUSE", raising=False)
    if windows:
        monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.setattr(socket, "socket", Noting)
    is_free(port)
    assert set(options) == {-5 if windows else socket.SO_REUSEADDR}
