"""The Python blocks of README.md and docs/ run, in order, one namespace a file.

A block that cannot run here says why in a comment right above it: `<!-- not run: REASON -->`.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

# All pages together. Raise it only for a block that this machine truly cannot run.
MAX_NOT_RUN = 4

FENCE = re.compile(
    r"(?:<!--[ \t]*not run:(?P<reason>[^>]*)-->[ \t]*\n+)?"
    r"^(?P<indent>[ \t]*)(?P<ticks>`{3,})(?P<language>[^\n`]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=ticks)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    line: int  # of the first line of code, counted from 1
    code: str
    not_run: str | None  # the reason given, if any


def python_blocks(text: str, page: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        language = match["language"].strip()
        if language != "python" and re.match(r"py(?!con)", language, re.IGNORECASE):
            raise AssertionError(f"{page}:{line - 1}: write ```python, not ```{language}")
        if language != "python":
            continue
        reason = match["reason"]
        if reason is not None and len(reason.strip()) < 10:
            raise AssertionError(f"{page}:{line - 2}: say why this block is not run")
        indent = len(match["indent"])
        code = "".join(each[indent:] or "\n" for each in match["code"].splitlines(keepends=True))
        yield Block(line, code, reason.strip() if reason else None)


def run_page(text: str, page: str) -> int:
    """Execute a page's blocks; returns how many ran."""
    ran = 0
    # A real module, because pickle and dataclasses look classes up by their module's name.
    module = ModuleType("page_under_test")
    sys.modules[module.__name__] = module
    try:
        for block in python_blocks(text, page):
            if block.not_run is None:
                # Empty lines in front give tracebacks the page's own line numbers.
                source = "\n" * (block.line - 1) + block.code
                exec(compile(source, page, "exec"), vars(module))
                ran += 1
    finally:
        del sys.modules[module.__name__]
    return ran


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page.exists(), f"{page.name} is missing"
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    if re.search(r"(import|from) nni\b", text) and sys.version_info >= (3, 14):
        pytest.skip("NNI cannot be imported on this Python")
    ran = run_page(text, page.name)
    assert ran or page != README, "README.md shows no Python that runs"


def test_few_blocks_are_left_out() -> None:
    left_out = [
        f"{page.name}:{block.line}: {block.not_run}"
        for page in PAGES
        if page.exists()
        for block in python_blocks(page.read_text(encoding="utf-8"), page.name)
        if block.not_run is not None
    ]
    assert len(left_out) <= MAX_NOT_RUN, "\n".join(left_out)


PAGE = """# Title

```python
x = 1
```

- In a list:

  ```python
  if x:
      y = x + 1

  z = y
  ```

<!-- not run: needs a GPU with 80 GB -->
```python
raise SystemExit
```

```bash
no python
```

````markdown
```python
a block that is shown, not run
```
````
"""


def test_blocks_are_found() -> None:
    assert list(python_blocks(PAGE, "PAGE")) == [
        Block(4, "x = 1\n", None),
        Block(10, "if x:\n    y = x + 1\n\nz = y\n", None),
        Block(18, "raise SystemExit\n", "needs a GPU with 80 GB"),
    ]
    assert run_page(PAGE, "PAGE") == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```py\nx = 1\n```\n", "PAGE:1: write ```python"),
        ("text\n```Python\nx = 1\n```\n", "PAGE:2: write ```python"),
        ("<!-- not run: -->\n```python\nx = 1\n```\n", "PAGE:1: say why"),
    ],
)
def test_evasions_are_refused(text: str, message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        list(python_blocks(text, "PAGE"))


def test_a_broken_block_fails_at_its_own_line() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        run_page("# Title\n\n```python\nx = 1\n1 / 0\n```\n", "PAGE")
    last = raised.traceback[-1]
    assert (str(last.path).endswith("PAGE"), last.lineno + 1) == (True, 5)
