"""The assessor's name in NNI's file of registered algorithms."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip("nni", reason="NNI cannot be imported here")

from nni.tools.package_utils import AlgoMeta, get_algo_meta, register_algo_meta

from rtl_nni.search.registration import register_collapse_assessor, unregister_collapse_assessor
from rtl_plugin.errors import InvalidArgument


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNI_CONFIG_DIR", str(tmp_path))
    return tmp_path


def other(name: str, kind: str = "assessor") -> AlgoMeta:
    return AlgoMeta.load({"algoType": kind, "builtinName": name, "className": "their.Own"})


def test_the_name_means_our_class(folder: Path) -> None:
    assert get_algo_meta("Collapse") is None
    path = register_collapse_assessor()
    assert path == folder / "registered_algorithms.yml"
    (entry,) = yaml.safe_load(path.read_text())["assessors"]
    assert (entry["builtinName"], entry["source"]) == ("Collapse", "user")
    package, _, name = entry["className"].rpartition(".")
    assert (package, name) == ("rtl_nni", "CollapseAssessor")


def test_twice_is_as_once_and_leaves_the_file_alone(folder: Path) -> None:
    path = register_collapse_assessor()
    before = path.stat().st_mtime_ns, path.read_text()
    register_collapse_assessor()
    assert (path.stat().st_mtime_ns, path.read_text()) == before


def test_it_goes_and_others_stay(folder: Path) -> None:
    register_algo_meta(other("Theirs"))
    register_collapse_assessor()
    assert unregister_collapse_assessor() == folder / "registered_algorithms.yml"
    assert get_algo_meta("Collapse") is None
    assert get_algo_meta("Theirs") is not None
    unregister_collapse_assessor()


def test_a_foreign_algorithm_of_the_name_is_not_touched() -> None:
    register_algo_meta(other("collapse", "tuner"))
    with pytest.raises(InvalidArgument, match=r"the tuner their\.Own"):
        register_collapse_assessor()
    with pytest.raises(InvalidArgument, match=r"the tuner their\.Own"):
        unregister_collapse_assessor()
    assert get_algo_meta("Collapse").class_name == "their.Own"
