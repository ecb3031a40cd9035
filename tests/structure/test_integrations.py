"""Integrations stand on the core's seam alone, keep small, and document their public names."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.structure.test_layering import imports_of, size_violations
from tests.structure.test_public_names import undocumented, unmentioned

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "integrations"
SEAM = "rtl_plugin.integration_api"
# Import package -> the one host that it may import.
HOST_OF = {"rtl_nni": "nni", "rtl_torch_pruning": "torch_pruning"}
# ... and what it may import too, inside functions: without it the rest still works.
OPTIONAL = {"rtl_nni": {"torch_pruning", "rtl_torch_pruning"}}
HOSTS = {"torch_pruning", "nni", "rtl_torch_pruning", "rtl_nni"}


def read_integration(package: str) -> dict[str, str]:
    files = sorted((FOLDER / package).rglob("*.py"))
    names = [".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in files]
    return {n: path.read_text(encoding="utf-8") for n, path in zip(names, files, strict=True)}


def seam_violations(sources: dict[str, str], package: str, host: str) -> list[str]:
    """Imports that reach around the seam, or into another host."""
    found = []
    for module, source in sources.items():
        for imported in imports_of(module, source):
            top = imported.target.partition(".")[0]
            where = f"{module}:{imported.line} imports {imported.target}"
            if top == "rtl_plugin" and not imported.target.startswith(SEAM + "."):
                found.append(f"{where}: integrations import {SEAM} only")
            optional = imported.late and top in OPTIONAL.get(package, set())
            if top in HOSTS - {package, host} and not optional:
                found.append(f"{where}: another host's")
    return found


def import_cycles(sources: dict[str, str]) -> list[str]:
    """Modules that reach themselves by imports of their own package."""
    edges = {
        module: {
            other for i in imports_of(module, source) for other in sources
            if i.target.startswith(other + ".") and not other.endswith("__init__")
        }
        for module, source in sources.items()
    }  # fmt: skip

    def reached(module: str) -> set[str]:
        seen: set[str] = set()
        waiting = set(edges[module])
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                waiting |= edges[current]
        return seen

    return sorted(module for module in sources if module in reached(module))


def test_every_integration_is_listed() -> None:
    present = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert present == set(HOST_OF)


@pytest.mark.parametrize("package", HOST_OF)
def test_imports_go_through_the_seam(package: str) -> None:
    sources = read_integration(package)
    assert len(sources) > 3
    assert seam_violations(sources, package, HOST_OF[package]) == []
    assert import_cycles(sources) == []


@pytest.mark.parametrize("package", HOST_OF)
def test_files_and_functions_stay_small(package: str) -> None:
    assert size_violations(read_integration(package)) == []


@pytest.mark.parametrize("package", HOST_OF)
def test_public_names_are_documented(package: str) -> None:
    if package == "rtl_nni" and sys.version_info >= (3, 14):
        pytest.skip("NNI cannot be imported on this Python")
    module = importlib.import_module(package)
    values = {name: getattr(module, name) for name in module.__all__}
    assert undocumented(values) == []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    prose = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert unmentioned(list(values), prose.replace(f"{package}.", "rtl_plugin.")) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from rtl_plugin.tickets import Ticket", "integrations import"),
        ("import rtl_plugin", "integrations import"),
        ("import nni", "another host's"),
        ("def f():\n    from rtl_nni import x", "another host's"),
    ],
)
def test_the_check_finds_a_wrong_import(source: str, message: str) -> None:
    found = seam_violations({"rtl_torch_pruning.a": source}, "rtl_torch_pruning", "torch_pruning")
    assert len(found) == 1
    assert message in found[0]


def test_an_optional_host_is_imported_inside_functions_only() -> None:
    late = {"rtl_nni.a": "def f():\n    import rtl_torch_pruning"}
    early = {"rtl_nni.a": "import rtl_torch_pruning"}
    assert seam_violations(late, "rtl_nni", "nni") == []
    assert len(seam_violations(early, "rtl_nni", "nni")) == 1


def test_the_check_finds_a_cycle() -> None:
    one = "from p.two import x\n"
    two = "def f():\n    from p.one import y\n"
    assert import_cycles({"p.one": one, "p.two": two}) == ["p.one", "p.two"]
    assert import_cycles({"p.one": one, "p.two": ""}) == []
