"""Hearing of every finished round, and leaving the closing round out."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin import CollapseRule, DataGroups, FinishedRound, GeometricSchedule, TicketSet
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.errors import InvalidArgument, RunFolderMismatch
from rtl_plugin.run_folder import RunFolder
from tests.discovery.setups import (
    CONV,
    MLP,
    Interrupting,
    NamedBatches,
    built,
    draw_from_all,
    files_of,
    found,
    named_groups,
    random_states,
    same_bits,
    shuffled_groups,
    tensors_of,
    ticket_tensors,
)

ROUNDS = 3
SCHEDULE = GeometricSchedule(0.7, rounds=ROUNDS)


def measured_groups() -> DataGroups:
    loaders = {name: NamedBatches(MLP, name, 2, torch.float32) for name in "ab"}
    return DataGroups.from_loaders(loaders, validation=loaders)


def mean_output(model: Any, batches: Iterable[Any]) -> float:
    return float(torch.stack([model(x).mean() for x, *_ in batches]).mean())


def run(folder: Path | None = None, **others: Any) -> TicketSet:
    settings = {"schedule": SCHEDULE, "groups": named_groups(MLP, a=2, b=2, c=2), **others}
    tickets = found(built(MLP), run_folder=folder, **settings)
    assert isinstance(tickets, TicketSet)
    return tickets


def rows_of(rounds: Iterable[FinishedRound]) -> list[dict[str, Any]]:
    return [row for finished in rounds for row in finished.rows]


def same_counts(first: FinishedRound, second: FinishedRound) -> bool:
    pairs = zip(first.counts, second.counts, strict=True)
    return all(a[:2] == b[:2] and (a.shared == b.shared).all() for a, b in pairs)


def check_against_files(rounds: Iterable[FinishedRound], folder: Path) -> None:
    """Names, rows and counts of every round are those of the masks in its files."""
    files = RunFolder(folder, "discover")
    for finished in rounds:
        loaded = {}
        for place, name in enumerate("abcde"):
            path = files.round_ticket(finished.round, place)
            if path.exists():
                loaded[name] = TicketSet.load(path)[name]
        assert finished.names == tuple(loaded)
        expected = count_masks([ticket.masks for ticket in loaded.values()])
        assert finished.counts.tickets == len(loaded)
        for layer, other in zip(finished.counts, expected, strict=True):
            assert (layer.name, layer.size) == (other.name, other.size)
            assert (layer.shared == other.shared).all()
        kept = sum(layer.shared.diagonal() for layer in finished.counts)
        assert list(kept) == [row["kept"] for row in finished.rows]


def test_every_round_in_order_with_the_rows_of_the_history(tmp_path: Path) -> None:
    seen: list[FinishedRound] = []
    tickets = run(tmp_path, on_round=seen.append)
    assert [finished.round for finished in seen] == [1, 2, 3]
    assert rows_of(seen) == tickets.history
    assert {row["round"] for row in seen[1].rows} == {2}
    assert all(row["similarity"] is not None for row in rows_of(seen))
    assert all((f.reused, f.seconds_saved) == ((), 0.0) for f in seen)
    check_against_files(seen, tmp_path)


def test_it_is_called_when_the_round_is_over_and_the_next_has_not_begun() -> None:
    calls: list[tuple[int, int]] = []
    loss = Interrupting()
    run(loss=loss, on_round=lambda finished: calls.append((finished.round, loss.calls)))
    assert calls == [(1, 6), (2, 12), (3, 18)]


def test_one_group_has_no_similarity() -> None:
    seen: list[FinishedRound] = []
    tickets = run(groups=named_groups(MLP, a=2), on_round=seen.append)
    assert [finished.names for finished in seen] == [("a",)] * ROUNDS
    assert {row["similarity"] for row in rows_of(seen)} == {None}
    assert seen[-1].counts.tickets == 1
    kept = sum(int(layer.shared[0, 0]) for layer in seen[-1].counts)
    assert kept == tickets["a"].kept


def test_who_left_is_in_no_later_round(tmp_path: Path) -> None:
    nervous = CollapseRule(fall=0.3, rise=0.2, noise=0, warm_up=2)
    seen: list[FinishedRound] = []
    run(
        tmp_path, schedule=GeometricSchedule(0.9, rounds=8), importance="random",
        stop_before_collapse=nervous, on_round=seen.append,
        groups=named_groups(MLP, **dict.fromkeys("abcde", 1)),
    )  # fmt: skip
    gone: set[str] = set()
    for finished in seen:
        assert not gone & set(finished.names)
        gone |= {row["group"] for row in finished.rows if row["left"]}
    assert {len(finished.names) for finished in seen} > {5}, "nobody went on without another"
    check_against_files(seen, tmp_path)


@pytest.mark.parametrize("cut", [1, 5, 7, 13, 18])
def test_a_resumed_run_tells_of_every_round_again(cut: int, tmp_path: Path) -> None:
    first: list[FinishedRound] = []
    whole = run(tmp_path / "whole", loss=Interrupting(), on_round=first.append)
    before: list[FinishedRound] = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", loss=Interrupting(cut), on_round=before.append)
    assert len(before) == (cut - 1) // 6
    again: list[FinishedRound] = []
    resumed = run(tmp_path / "cut", loss=Interrupting(), on_round=again.append)
    assert rows_of(again) == rows_of(first) == whole.history == resumed.history
    assert all(map(same_counts, again, first))
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_run_killed_between_the_last_file_and_the_call(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    stage = tmp_path / "cut" / "discover"
    stage.mkdir(parents=True)
    for file in (tmp_path / "whole" / "discover").iterdir():
        if file.name == "arguments.json" or file.name.startswith("round-0001"):
            (stage / file.name).write_bytes(file.read_bytes())
    seen: list[FinishedRound] = []
    run(tmp_path / "cut", on_round=seen.append)
    assert [finished.round for finished in seen] == [1, 2, 3]
    assert rows_of(seen) == whole.history
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_finished_folder_tells_of_its_rounds_without_training(tmp_path: Path) -> None:
    first: list[FinishedRound] = []
    whole = run(tmp_path, loss=Interrupting(), on_round=first.append)
    files = files_of(tmp_path)
    again: list[FinishedRound] = []
    finished = run(tmp_path, loss=Interrupting(at=1), on_round=again.append)
    assert rows_of(again) == rows_of(first) == whole.history == finished.history
    assert all(map(same_counts, again, first))
    assert files_of(tmp_path) == files


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_what_it_raises_ends_the_run_which_can_go_on(stop_at: int, tmp_path: Path) -> None:
    def stopping(finished: FinishedRound) -> None:
        if finished.round == stop_at:
            raise Stop("enough")

    model, groups = built(CONV).eval(), shuffled_groups(CONV, own_generators=True)
    generators = [group.train.generator.get_state() for group in groups.values()]  # type: ignore[attr-defined]
    tensors, states = tensors_of(model), random_states()

    def call(folder: Path, **others: Any) -> Any:
        return found(model, groups, schedule=SCHEDULE, run_folder=folder, **others)

    with pytest.raises(Stop, match="enough"):
        call(tmp_path / "stopped", on_round=stopping)
    assert not (tmp_path / "stopped" / "discover" / "tickets.safetensors").exists()
    rounds = {p.name[:10] for p in (tmp_path / "stopped" / "discover").glob("round-*")}
    assert rounds == {f"round-{r:04d}" for r in range(1, stop_at + 1)}, "nothing later was trained"
    assert same_bits(tensors_of(model), tensors)
    assert not model.training
    assert random_states() == states
    now = [group.train.generator.get_state() for group in groups.values()]  # type: ignore[attr-defined]
    assert all(map(torch.equal, now, generators))
    resumed, whole = call(tmp_path / "stopped"), call(tmp_path / "whole")
    assert resumed.history == whole.history
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("importance", ["magnitude", "random"])
def test_random_draws_change_nothing(importance: str, tmp_path: Path) -> None:
    def drawing(finished: FinishedRound) -> None:
        draw_from_all()

    def seeding(finished: FinishedRound) -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)

    def call(folder: str, on_round: Any = None) -> Any:
        return found(
            built(CONV), shuffled_groups(CONV), schedule=SCHEDULE, importance=importance,
            on_round=on_round, run_folder=tmp_path / folder,
        )  # fmt: skip

    plain = call("plain")
    states = random_states()
    for name, function in (("drawing", drawing), ("seeding", seeding)):
        told = call(name, function)
        assert same_bits(ticket_tensors(told), ticket_tensors(plain))
        assert files_of(tmp_path / name) == files_of(tmp_path / "plain")
    assert random_states() == states


def test_its_own_draws_are_those_of_the_seed_and_round() -> None:
    drawn: list[float] = []
    for _ in range(2):
        torch.rand(1)
        run(on_round=lambda finished: drawn.append(float(torch.rand(()))))
    assert drawn[:ROUNDS] == drawn[ROUNDS:]
    assert len(set(drawn)) == ROUNDS


def test_not_called_for_the_closing_round(tmp_path: Path) -> None:
    seen: list[FinishedRound] = []
    call = {"groups": measured_groups(), "evaluate": mean_output, "on_round": seen.append}
    tickets = run(tmp_path, **call)
    assert max(row["round"] for row in tickets.history) == ROUNDS + 1
    assert [finished.round for finished in seen] == [1, 2, 3]
    assert rows_of(seen) == [row for row in tickets.history if not row.get("closing")]
    assert all(isinstance(row["metric"], float) for row in rows_of(seen))
    run(tmp_path, **call)
    assert [finished.round for finished in seen] == [1, 2, 3] * 2


def test_rows_of_a_call_without_closing_round_are_the_others_without_it(tmp_path: Path) -> None:
    call = {"groups": measured_groups(), "evaluate": mean_output}
    with_one = run(tmp_path / "with", **call)
    without = run(tmp_path / "without", closing_round=False, **call)
    assert without.history == [row for row in with_one.history if not row.get("closing")]
    assert len(without.history) == ROUNDS * 2
    assert same_bits(ticket_tensors(without), ticket_tensors(with_one))
    names = {path.name for path in (tmp_path / "without" / "discover").glob("round-*")}
    assert not any(name.startswith(f"round-{ROUNDS + 1:04d}") for name in names)
    for name in names:
        file = Path("discover", name)
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()


def test_saying_the_usual_is_saying_nothing(tmp_path: Path) -> None:
    call = {"groups": measured_groups(), "evaluate": mean_output}
    run(tmp_path / "said", closing_round=True, **call)
    run(tmp_path / "unsaid", **call)
    assert files_of(tmp_path / "said") == files_of(tmp_path / "unsaid")
    run(tmp_path / "neither", closing_round=False)
    run(tmp_path / "nothing")
    assert files_of(tmp_path / "neither") == files_of(tmp_path / "nothing")


def test_another_closing_round_is_another_run(tmp_path: Path) -> None:
    call = {"groups": measured_groups(), "evaluate": mean_output}
    run(tmp_path / "without", closing_round=False, **call)
    with pytest.raises(RunFolderMismatch, match="closing_round=false, this call has"):
        run(tmp_path / "without", **call)
    run(tmp_path / "with", **call)
    with pytest.raises(RunFolderMismatch, match="made with closing_round=null, this call has"):
        run(tmp_path / "with", closing_round=False, **call)


@pytest.mark.parametrize("measured", [False, True])
def test_a_folder_of_before_there_was_a_choice_resumes(measured: bool, tmp_path: Path) -> None:
    call = {"groups": measured_groups(), "evaluate": mean_output if measured else None}
    whole = run(tmp_path, **call)
    folder = RunFolder(tmp_path, "discover")
    folder.tickets.unlink()
    arguments = json.loads(folder.arguments.read_text())
    assert arguments.pop("closing_round") is None
    folder.write_json(folder.arguments, arguments)
    loss = Interrupting(at=1)
    loss.__qualname__, loss.__module__ = "cross_entropy", "tests.discovery.setups"  # type: ignore[attr-defined]
    assert run(tmp_path, loss=loss, **call).history == whole.history


def never(model: Any, batch: Any) -> torch.Tensor:
    raise AssertionError("trained")


@pytest.mark.parametrize("value", [1, "yes", 0])
def test_a_closing_round_is_yes_no_or_none(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"closing_round must be .* got {value!r}"):
        run(loss=never, closing_round=value, groups=measured_groups(), evaluate=mean_output)


def test_a_closing_round_without_a_metric_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"closing_round .* give evaluate="):
        run(loss=never, closing_round=True)


@pytest.mark.parametrize("value", [True, "print", [print]])
def test_on_round_must_be_callable(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"on_round must be callable .* got"):
        run(loss=never, on_round=value)
