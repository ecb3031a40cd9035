"""`rtl_nni` imports its names when they are used: its three lists say the same."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import rtl_nni

FOLDER = Path(rtl_nni.__file__).parent


def typed_names() -> set[str]:
    """What the block for type checkers imports."""
    tree = ast.parse((FOLDER / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = set()
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module
        for alias in node.names:
            assert alias.name == alias.asname
            value = getattr(importlib.import_module(node.module), alias.name)
            assert getattr(rtl_nni, alias.name) is value
            found.add(alias.name)
    return found


def test_the_three_lists_agree() -> None:
    assert typed_names() == set(rtl_nni.__all__) == set(rtl_nni._HOME)
    assert set(rtl_nni.__all__) <= set(dir(rtl_nni))
    assert list(rtl_nni.__all__) == sorted(rtl_nni.__all__, key=lambda n: (not n[0].isupper(), n))


def test_no_name_is_that_of_a_module() -> None:
    # A module of the same name would take its place as soon as anybody imports it.
    modules = {path.stem for path in FOLDER.iterdir()}
    assert modules.isdisjoint(rtl_nni.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rtl_nni' has no attribute 'Pruner'"):
        rtl_nni.Pruner  # noqa: B018


def test_a_class_is_pickled_by_its_own_module() -> None:
    assert pickle.loads(pickle.dumps(rtl_nni.CollapseStop)) is rtl_nni.CollapseStop


def test_the_assessor_brings_none_of_nnis_compression() -> None:
    code = (
        "import sys; from rtl_nni import CollapseAssessor, TpeTuner, run_trial\n"
        "print(sorted({'nni.compression', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=FOLDER.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.strip() == "[]"
