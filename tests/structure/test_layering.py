"""Imports of rtl_plugin point downwards, hosts stay out, plotting and ML libraries load late.

A new module gets a line in RANKS; the longest matching prefix counts, so a line for a package
covers everything in it and a line for one of its modules overrides that.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "rtl_plugin"
ROOT = Path(__file__).parents[2] / PACKAGE

# Module or package below rtl_plugin -> rank. Imports go to a lower rank, or stay under one line.
RANKS = {
    "errors": 0,
    "arguments": 10,
    "environment": 10,
    "extras": 10,
    "modes": 10,
    "nested": 10,
    "progress.round_lines": 10,
    "progress.lines_above": 10,
    "progress.live_rows": 10,
    "progress.live_text": 11,
    "progress.live_table": 12,
    "progress": 15,
    "randomness": 10,
    "diagnostics.mask_counts": 19,
    "diagnostics.similarity": 20,
    "diagnostics.collapse_rule": 20,
    "diagnostics.collapse": 21,
    "diagnostics.curves": 21,
    "fingerprint": 20,
    "optimizers": 20,
    "state_codec": 20,
    "prunable": 30,
    "structure": 30,
    "nni_masks": 30,
    "torch_prune": 30,
    "index_map": 35,
    "channel_plan": 36,
    "checkpoint": 40,
    "channel_file": 40,
    "packed_masks": 40,
    "ticket_file": 41,
    "ticket": 42,
    "ticket_summary": 43,
    "tickets": 44,
    "compact_network": 45,
    "masked_forward": 50,
    "training_step": 51,
    "run_folder": 60,
    "data_groups": 70,
    "discovery": 80,
    "joint_training": 90,
    "routing": 100,
    "mixture": 110,
    "evaluation": 120,
    "diagnostics": 125,
    "reports": 126,
    "baselines": 130,
    "integration_api": 140,
    "tasks": 150,
    "__init__": 160,  # rtl_plugin/__init__.py alone; only the command line stands above it
    "cli": 170,
}

HOSTS = {"torch_pruning", "nni", "rtl_torch_pruning", "rtl_nni", "integrations"}
LATE = {"matplotlib", "sklearn", "scipy", "triton", "mlxtend"}  # pandas comes with mlxtend only
LATE |= {"jinja2", "nltk", "rich", "skimage", "tensorboard"}

MAX_FILE_LINES = 320
MAX_FUNCTION_LINES = 60  # without the docstring: the budget must not argue against documenting


class Import(NamedTuple):
    line: int
    target: str  # dotted and absolute; for `from a import b` both "a" and "b" of it: "a.b"
    late: bool  # inside a function, so not executed when the module is imported


def read_package() -> dict[str, str]:
    """Dotted name -> source of every file; a package's own file keeps its `.__init__`."""
    files = sorted(ROOT.rglob("*.py"))
    names = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in files]
    return {n: path.read_text(encoding="utf-8") for n, path in zip(names, files, strict=True)}


def imports_of(module: str, source: str) -> Iterator[Import]:
    yield from _walk(ast.parse(source), module.rpartition(".")[0], late=False)


def _walk(node: ast.AST, package: str, late: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(node.lineno, alias.name, late)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, base] if base else parents)
        for alias in node.names:
            yield Import(node.lineno, f"{base}.{alias.name}", late)
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in {"__import__", "import_module", "require"} and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(node.lineno, name.value, late)
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    # Decorators and defaults run at import; only a body waits for a call.
    body: list[ast.AST] = []
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = list(node.body)
    elif isinstance(node, ast.Lambda):
        body = [node.body]
    for child in children:
        yield from _walk(child, package, late or child in body)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def table_line(module: str, ranks: Mapping[str, int]) -> str | None:
    """The longest line of the table that covers a module, or None."""
    name = module.removeprefix(PACKAGE + ".")
    while name and name not in ranks:
        name = name.rpartition(".")[0]
    return name or None


def _loaded_by(imported: Import, importer: str, imports: Mapping[str, list[Import]]) -> set[str]:
    """Our modules that an import executes, without the importer and what runs before it anyway."""
    name = imported.target
    while name and name not in imports and f"{name}.__init__" not in imports:
        name = name.rpartition(".")[0]  # `from module import name`: the name is no module
    if not name:
        return set()
    loaded = {name if name in imports else f"{name}.__init__"}
    while "." in (name := name.rpartition(".")[0]):
        # A parent's __init__ runs too, but one that imports nothing of ours pulls nothing upwards.
        pulls = any(i.target.startswith(PACKAGE) for i in imports.get(f"{name}.__init__", []))
        if pulls and not importer.startswith(name + "."):
            loaded.add(f"{name}.__init__")
    return loaded - {importer}


def import_violations(sources: Mapping[str, str], ranks: Mapping[str, int]) -> list[str]:
    """Everything wrong with the imports of a package given as `read_package` returns it."""
    imports = {module: list(imports_of(module, source)) for module, source in sources.items()}
    lines = {module: table_line(module, ranks) for module in sources}
    found = [f"{module} is in no line of RANKS" for module, line in lines.items() if line is None]
    for module, imported in ((m, i) for m, each in imports.items() for i in each):
        where = f"{module}:{imported.line} imports {imported.target}"
        top = imported.target.partition(".")[0]
        if top in HOSTS:
            found.append(f"{where}: the core never imports a host or an integration")
        if top in LATE and not imported.late:
            found.append(f"{where} at module level; import it inside the function that needs it")
        line = lines[module]
        for other in sorted(_loaded_by(imported, module, imports)):
            other_line = lines[other]
            if line is None or other_line is None or line == other_line:
                continue
            if ranks[other_line] >= ranks[line]:
                found.append(
                    f"{where}: {other} has rank {ranks[other_line]} ({other_line}), "
                    f"not below {ranks[line]} ({line})"
                )
    return found


def size_violations(sources: Mapping[str, str]) -> list[str]:
    found = []
    for module, source in sources.items():
        lines = len(source.splitlines())
        if lines > MAX_FILE_LINES:
            found.append(f"{module} has {lines} lines, at most {MAX_FILE_LINES}")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = _lines_without_docstring(node)
                if lines > MAX_FUNCTION_LINES:
                    found.append(
                        f"{module}:{node.lineno} {node.name} has {lines} lines, "
                        f"at most {MAX_FUNCTION_LINES} besides its docstring"
                    )
    return found


def _lines_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_the_package_is_found() -> None:
    assert len(read_package()) > 5, f"no package under {ROOT}: the tests below would check nothing"


def test_imports_point_downwards() -> None:
    found = import_violations(read_package(), RANKS)
    assert not found, "\n".join(found)


def test_files_and_functions_stay_small() -> None:
    found = size_violations(read_package())
    assert not found, "\n".join(found)


def test_every_line_of_the_table_covers_a_module() -> None:
    covered = {table_line(module, RANKS) for module in read_package()}
    assert set(RANKS) <= covered, f"lines for no module: {sorted(set(RANKS) - covered)}"


# The checker itself, on a made-up package that it must accept and on variants that it must not.
TINY_RANKS = {"errors": 0, "left": 10, "right": 10, "pair": 20, "pair.low": 5, "__init__": 90}
TINY = {
    f"{PACKAGE}.__init__": "from rtl_plugin.pair import b\n",
    f"{PACKAGE}.errors": "import torch\n",
    f"{PACKAGE}.left": "from rtl_plugin.errors import E\nfrom rtl_plugin.pair.low import f\n",
    f"{PACKAGE}.right": "def f():\n    import sklearn.cluster\n    require('scipy.stats', 'x')\n",
    f"{PACKAGE}.pair.__init__": "",
    f"{PACKAGE}.pair.low": "from ..errors import E\n",
    f"{PACKAGE}.pair.a": "from . import b\nfrom .. import left\n",
    f"{PACKAGE}.pair.b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nni, "
    "rtl_plugin\n",
}


def test_checker_accepts_a_clean_package() -> None:
    assert import_violations(TINY, TINY_RANKS) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("errors", "from rtl_plugin.left import x", "left has rank 10 (left), not below 0"),
        ("errors", "import rtl_plugin.pair.b as b", "pair.b has rank 20 (pair), not below 0"),
        ("errors", "def f():\n    from rtl_plugin import left", "errors:2 imports rtl_plugin.left"),
        ("errors", "async def f():\n    from .left import x", "left has rank 10"),
        ("errors", "try:\n    from . import left\nexcept E: pass", "left has rank 10"),
        ("errors", "importlib.import_module('rtl_plugin.left')", "left has rank 10"),
        ("left", "import rtl_plugin.right", "right has rank 10 (right), not below 10 (left)"),
        ("left", "import rtl_plugin", "rtl_plugin.__init__ has rank 90 (__init__)"),
        ("left", "from rtl_plugin import discover", "rtl_plugin.__init__ has rank 90 (__init__)"),
        ("left", "from . import discover", "rtl_plugin.__init__ has rank 90 (__init__)"),
        ("pair.low", "from .a import x", "pair.a has rank 20 (pair), not below 5 (pair.low)"),
        ("pair.low", "from rtl_plugin.pair import x", "pair.__init__ has rank 20 (pair)"),
        ("pair.__init__", "from .b import x", "left:2 imports rtl_plugin.pair.low.f: rtl_plugin.p"),
        ("unlisted", "", "rtl_plugin.unlisted is in no line of RANKS"),
        ("right", "def f():\n    import torch_pruning as tp", "never imports a host"),
        ("right", "from nni.compression import X", "never imports a host"),
        ("right", "def f():\n    require('nni', 'nni', 'x')", "never imports a host"),
        ("right", "from rtl_nni import speedup", "never imports a host"),
        ("right", "import matplotlib.pyplot as plt", "at module level"),
        ("right", "class A:\n    import sklearn", "at module level"),
        ("right", "if True:\n    from scipy import stats", "at module level"),
        ("right", "stats = require('scipy.stats', 'x')", "at module level"),
        ("right", "def f(x=__import__('triton')): ...", "at module level"),
    ],
)
def test_checker_finds_a_wrong_import(module: str, source: str, message: str) -> None:
    found = import_violations({**TINY, f"{PACKAGE}.{module}": source}, TINY_RANKS)
    assert any(message in line for line in found), found


def test_checker_finds_long_files_and_functions() -> None:
    statement = "    x = 1\n"
    just_fits = 'def f():\n    """One.\n\n' + "    More.\n" * 99 + '    """\n' + statement * 59
    assert size_violations({"m": just_fits}) == []
    assert "f has 61 lines" in size_violations({"m": just_fits + statement})[0]
    assert size_violations({"m": "x = 1\n" * 320}) == []
    assert "m has 321 lines" in size_violations({"m": "x = 1\n" * 321})[0]
