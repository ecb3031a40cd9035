"""Donors that run, die, are damaged or lie; runs that are killed while they take over."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rtl_plugin import TicketSet
from rtl_plugin.checkpoint import read_file, write_file
from rtl_plugin.discovery import FinishedRound, rounds
from rtl_plugin.run_folder import RunFolder
from tests.discovery import search_runs
from tests.discovery.search_runs import Search, mean_output, measured_groups
from tests.discovery.setups import CONV, draw_from_all, files_of, shuffled_groups

STEPS, GROUPS, ROUNDS = 2, 2, 3
LOOKS = search_runs.LOOKS + search_runs.REHEARSED
TRAINED = STEPS * GROUPS * ROUNDS


@pytest.mark.parametrize("done", range(GROUPS * ROUNDS))
def test_a_donor_that_was_killed_lends_what_it_finished(done: int, tmp_path: Path) -> None:
    search = Search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search.run("donor", dies_at=LOOKS + done * STEPS + 1)
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    pairs = [(r, g) for r in range(1, ROUNDS + 1) for g in "ab"]
    assert list(search.taken("warm")) == pairs[:done]
    assert search.calls["warm"] == LOOKS + TRAINED - done * STEPS


@pytest.mark.parametrize("done", range(3))
def test_a_run_that_is_killed_after_taking_over(done: int, tmp_path: Path) -> None:
    """Resumed, it tells the same again: what it took over, and what that saved."""
    search = Search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search.run("donor", dies_at=LOOKS + 3 * STEPS + 1)
    search.run("whole", ["donor"])
    with pytest.raises(KeyboardInterrupt):
        search.run("killed", ["donor"], dies_at=LOOKS + done * STEPS + 1)
    search.run("killed", ["donor"])
    search.check_same_bytes("killed", "whole")
    assert search.taken("killed") == search.taken("whole")
    for again, once in zip(search.rounds["killed"], search.rounds["whole"], strict=True):
        assert (again.reused, again.seconds_saved) == (once.reused, once.seconds_saved)
        assert again.rows == once.rows


def test_killed_between_a_log_line_and_its_file(tmp_path: Path) -> None:
    """The log speaks first, so a round that was then trained must not count as taken over."""
    search = Search(tmp_path)
    search.run("donor")
    with pytest.raises(KeyboardInterrupt):
        search.run("killed", dies_at=LOOKS + STEPS + 1)
    folder = RunFolder(tmp_path / "killed", "discover")
    folder.log("reused", round=1, group="b", seconds=5.0, folder="donor")
    search.run("killed")
    assert [finished.reused for finished in search.rounds["killed"]] == [()] * ROUNDS
    assert {finished.seconds_saved for finished in search.rounds["killed"]} == {0.0}
    search.run("after", ["killed"])
    spent = sum(event["seconds"] for event in search.events("killed", "round"))
    saved = sum(finished.seconds_saved for finished in search.rounds["after"])
    assert saved == pytest.approx(spent), "what it trained, and not the 5 seconds"


def test_what_a_run_has_itself_stays(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("donor")
    with pytest.raises(KeyboardInterrupt):
        search.run("warm", dies_at=LOOKS + 3 * STEPS + 1)
    stage = tmp_path / "warm" / "discover"
    before = {path: path.stat().st_mtime_ns for path in stage.glob("round-*")}
    assert len(before) == 3
    search.run("warm", ["donor", "warm"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert list(search.taken("warm")) == [(2, "b"), (3, "a"), (3, "b")]


@pytest.mark.parametrize("link", [False, True])
def test_a_run_is_no_donor_of_its_own(link: bool, tmp_path: Path) -> None:
    search = Search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search.run("run", dies_at=LOOKS + 3 * STEPS + 1)
    if link:
        (tmp_path / "link").symlink_to(tmp_path / "run")
    search.run("run", ["link" if link else "run"])
    assert search.taken("run") == {}


Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(b"\x80\x04K\x01.")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, flipped, empty, pickled, folder])
@pytest.mark.parametrize(
    "name", ["round-0001-group-0001.safetensors", "rewind.safetensors", "identity", "arguments"]
)
def test_a_damaged_donor_kills_no_trial(name: str, damage: Damage, tmp_path: Path) -> None:
    search = Search(tmp_path, rewind_to=2)
    search.run("donor")
    described = name in ("identity", "arguments")
    path = tmp_path / "donor" / "discover" / (f"{name}.json" if described else name)
    damage(path)
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    whole = {(0, None), *((r, g) for r in range(1, ROUNDS + 1) for g in "ab")}
    lost = {(1, "b")} if "round" in name else {(0, None)}
    assert search.taken("warm").keys() == (set() if described else whole - lost)
    assert str(path) in search.reasons("warm")


def rewritten(path: Path, **changes: Any) -> None:
    """A sound file that says something else."""
    tickets = TicketSet.load(path)
    row = tickets.history[0] | changes
    TicketSet(list(tickets.values()), history=[row]).save(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"round": 2}, "'round': 2"),
        ({"group": "a"}, "'group': 'a'"),
        ({"kept": 1}, "'kept': 1"),
        ({"loss": None}, "with loss and metric"),
    ],
)
def test_a_sound_file_of_something_else_is_not_taken(
    change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    search = Search(tmp_path)
    search.run("donor")
    rewritten(RunFolder(tmp_path / "donor", "discover").round_ticket(1, 1), **change)
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert (1, "b") not in search.taken("warm")
    assert told in search.reasons("warm")


def test_masks_of_another_round_or_group_are_not_taken(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("donor")
    donor = RunFolder(tmp_path / "donor", "discover")
    shutil.copy(donor.round_ticket(1, 0), donor.round_ticket(1, 1))
    first, second = (TicketSet.load(donor.round_ticket(r, 0)) for r in (1, 2))
    TicketSet(list(first.values()), history=second.history).save(donor.round_ticket(2, 0))
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert not {(1, "b"), (2, "a")} & search.taken("warm").keys()
    assert re.search(r"its masks keep \d+ weights, it says", search.reasons("warm"))


def test_a_rewind_point_of_another_network_is_not_taken(tmp_path: Path) -> None:
    search = Search(tmp_path, rewind_to=2)
    search.run("donor")
    path = RunFolder(tmp_path / "donor", "discover").rewind_point
    header, tensors = read_file(path, "rewind point")
    write_file(path, "rewind point", header, {**tensors, "0": torch.zeros(1)})
    search.run("warm", ["donor"])
    search.run("cold")
    search.check_same_bytes("warm", "cold")
    assert "other tensors than this network" in search.reasons("warm")


def test_a_log_that_cannot_be_read_costs_only_the_seconds(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.run("donor")
    log = tmp_path / "donor" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    spoilt: list[Any] = [
        3, {**lines[1], "round": [1]}, {**lines[1], "seconds": "x"},
        {**lines[2], "seconds": math.inf}, {**lines[1], "group": 3},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, spoilt))
    log.write_bytes(
        b'{"event": "\xff"}\n' + text.encode() + b'\n{"stage": "discover", "event": "rou'
    )
    search.run("warm", ["donor"])
    folder(log)
    search.run("again", ["donor"])
    search.check_same_bytes("warm", "donor")
    search.check_same_bytes("again", "donor")
    assert {finished.seconds_saved for finished in search.rounds["warm"]} == {0.0}
    assert {finished.seconds_saved for finished in search.rounds["again"]} == {0.0}
    assert len(search.taken("warm")) == len(search.taken("again")) == GROUPS * ROUNDS


def test_folders_that_are_not_there_are_passed_over_in_silence(tmp_path: Path) -> None:
    search = Search(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("")
    search.run("run", ["missing", "empty", "a file"])
    assert search.events("run", "passed_over") == []
    assert not (tmp_path / "missing").exists()


def test_a_donor_that_is_ahead_is_asked_again_every_round(tmp_path: Path) -> None:
    """A run that began without any donor takes what another has finished meanwhile."""
    search = Search(tmp_path)
    search.run("other")
    stage = tmp_path / "other" / "discover"
    late = {path: path.read_bytes() for path in stage.glob("round-*")}
    for path in late:
        path.unlink()

    def meanwhile(finished: FinishedRound) -> None:
        for path, content in late.items():
            path.write_bytes(content)

    search.run("warm", ["other"], on_round=meanwhile)
    assert list(search.taken("warm")) == [(r, g) for r in (2, 3) for g in "ab"]
    search.check_same_bytes("warm", "other")


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two processes that begin together, each a donor of the other, and both of a third."""
    script = "; ".join([
        "import sys",
        "from pathlib import Path",
        "from tests.discovery.search_runs import Search",
        "Search(Path(sys.argv[1])).run(sys.argv[2], sys.argv[3:])",
    ])  # fmt: skip
    search = Search(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search.run("third", dies_at=LOOKS + 1 * STEPS + 1)
    root, path = Path(__file__).parents[2], os.pathsep.join(filter(None, sys.path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), *names],
            cwd=root, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        for names in (("one", "two", "third"), ("two", "one", "third"))
    ]  # fmt: skip
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    search.check_same_bytes("one", "two")
    search.run("plain", warm_start=None)
    rest = files_of(tmp_path / "one")
    del rest["discover/identity.json"]  # it names the threads, which may be others here
    assert rest == files_of(tmp_path / "plain")


def test_generators_and_global_streams_are_left_alone(tmp_path: Path) -> None:
    groups = shuffled_groups(CONV, own_generators=True)
    states = [group.train.generator.get_state() for group in groups.values()]  # type: ignore[attr-defined]
    search = Search(tmp_path, groups=lambda: groups)
    for name, others in (("donor", []), ("warm", ["donor"])):
        draw_from_all()
        search.run(name, others)  # itself looks at the global streams and at the model
        now = [group.train.generator.get_state() for group in groups.values()]  # type: ignore[attr-defined]
        assert all(map(torch.equal, now, states))
    assert len(search.taken("warm")) == GROUPS * ROUNDS


def test_the_metric_is_rehearsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rehearse = rounds.rehearse_evaluate
    monkeypatch.setattr(rounds, "rehearse_evaluate", lambda *a: seen.append(a) or rehearse(*a))
    search = Search(tmp_path, evaluate=mean_output, groups=measured_groups)
    search.run("run")
    assert not seen
    search.run("plain", warm_start=None)
    assert len(seen) == 1
