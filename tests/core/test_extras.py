"""A missing optional dependency names its install command; a broken one shows its own error."""

import json
import random
from pathlib import Path

import pytest

from rtl_plugin.errors import MissingExtra, RtlError
from rtl_plugin.extras import require


def test_what_is_there_is_returned() -> None:
    assert require("json", "report", "this test") is json
    assert require("os.path", "report", "this test").join("a", "b")


@pytest.mark.parametrize("module", ["surely_missing", "surely_missing.part.of_it"])
def test_a_missing_package_names_the_purpose_and_the_command(module: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        require(module, "cluster", "DataGroups.from_clusters")
    assert str(caught.value) == (
        "surely_missing is needed for DataGroups.from_clusters and is not installed: "
        "pip install 'rtl-plugin[cluster]'"
    )
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, RtlError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_broken_package_is_not_called_missing(packages: Path) -> None:
    (packages / "extras_needs_more.py").write_text("import surely_missing_too\n")
    with pytest.raises(ModuleNotFoundError, match="surely_missing_too") as caught:
        require("extras_needs_more", "report", "this test")
    assert not isinstance(caught.value, MissingExtra)


def test_a_package_whose_name_merely_begins_alike_is_not_called_missing(packages: Path) -> None:
    (packages / "extras_prefix_long.py").write_text("import extras_prefix\n")
    with pytest.raises(ModuleNotFoundError, match="extras_prefix") as caught:
        require("extras_prefix_long", "report", "this test")
    assert not isinstance(caught.value, MissingExtra)


def test_an_import_error_of_another_kind_is_shown(packages: Path) -> None:
    (packages / "extras_broken.py").write_text("raise ImportError('libcuda.so is too old')\n")
    with pytest.raises(ImportError, match=r"libcuda.so is too old") as caught:
        require("extras_broken", "report", "this test")
    assert not isinstance(caught.value, MissingExtra)


def test_an_import_leaves_the_callers_random_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_module.py").write_text("import random\nrandom.random()\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = random.getstate()
    require("drawing_module", "report", "this test")
    assert random.getstate() == before
