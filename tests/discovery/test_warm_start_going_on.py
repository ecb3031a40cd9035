"""Runs that were begun on other terms than they go on with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtl_plugin import DataGroups
from rtl_plugin.errors import RunFolderMismatch
from tests.discovery.search_runs import (
    LOOKS,
    REHEARSED,
    Search,
    geometric,
    mean_output,
    measured_groups,
    other_values,
    with_one_thread_more,
)

MEASURED: dict[str, Any] = {"groups": measured_groups, "evaluate": mean_output}


def changed(split: str, part: int, at: int) -> Callable[[], DataGroups]:
    return lambda: other_values(measured_groups(), split, part, at)


def begun(search: Search, name: str, **own: Any) -> None:
    """One round is done when it is killed."""
    with pytest.raises(KeyboardInterrupt):
        search.run(name, dies_at=LOOKS + REHEARSED + 2 * 2 + 1, **own)
    assert len(list((search.root / name / "discover").glob("round-*"))) == 2


def test_a_run_that_goes_on_under_other_threads_goes_on_alone(tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(3))
    search.run("donor")
    begun(search, "warm")
    with_one_thread_more(lambda: search.run("warm", ["donor"]))
    assert search.taken("warm") == {}
    assert "begun with environment.threads=" in search.reasons("warm")
    search.run("later", ["warm"])
    assert search.taken("later") == {}, "of two minds, it lends to nobody"


def test_a_run_that_goes_on_with_another_key_is_refused(tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(3), **MEASURED)
    begun(search, "warm", key="one")
    with pytest.raises(RunFolderMismatch, match='made with key="one", this call has key="two"'):
        search.run("warm", key="two")
    search.run("warm", key="one")
    with pytest.raises(RunFolderMismatch, match='made with key="one", this call has key="two"'):
        search.run("warm", key="two")  # also where nothing is left to do


@pytest.mark.parametrize(("split", "told"), [("train", "data.b="), ("validation", "held_out.b=")])
def test_a_run_that_goes_on_with_other_data_goes_on_alone(
    split: str, told: str, tmp_path: Path
) -> None:
    """As it would without a warm start: loaders that draw anew in every process are no error."""
    search = Search(tmp_path, schedule=geometric(3), **MEASURED)
    search.run("donor")
    begun(search, "warm")
    groups = changed(split, 0, 0)
    shutil.copytree(tmp_path / "warm", tmp_path / "plain")
    search.run("warm", ["donor"], groups=groups)
    search.run("plain", groups=groups, warm_start=None)
    search.check_same_bytes("warm", "plain")
    assert search.taken("warm") == {}
    assert f"begun with {told}" in search.reasons("warm")
    search.run("later", ["warm"])
    assert search.taken("later") == {}


def test_a_run_killed_before_its_first_result_may_begin_on_other_terms(tmp_path: Path) -> None:
    search = Search(tmp_path, schedule=geometric(2))
    with pytest.raises(KeyboardInterrupt):
        search.run("run", dies_at=3)
    with_one_thread_more(lambda: search.run("run"))
    assert search.events("run", "passed_over") == []
    search.run("other", ["run"])
    assert "environment.threads=" in search.reasons("other")
