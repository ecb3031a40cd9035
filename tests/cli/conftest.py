import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with a user's module `my_toys` in it, which the tests import."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "toy_task.py", folder / "my_toys.py")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # Wide enough that the width of the terminal that runs the tests does not matter.
    monkeypatch.setenv("COLUMNS", "80")
    yield folder
    sys.modules.pop("my_toys", None)
