"""Where NNI is missing, the error says what can be done about it."""

import importlib.util
import sys

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from rtl_nni import host
from rtl_plugin.errors import MissingExtra


@pytest.mark.parametrize("ask", [host.check_version, lambda: host.imported("nni.experiment")])
def test_a_python_that_nni_cannot_be_imported_on(
    ask: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the extra installs nothing, so naming it would send people round in a circle."""
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"use Python 3\.10 to 3\.13") as error:
        ask()  # type: ignore[operator]
    assert "pip install" not in str(error.value)


def test_a_python_that_nni_is_only_not_installed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    monkeypatch.setitem(sys.modules, "nni", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[nni\]'"):
        host.imported("nni.experiment")
