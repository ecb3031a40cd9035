"""Measuring tickets while they are found changes nothing about what is found."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from rtl_plugin import DataGroups, GeometricSchedule, TicketSet
from rtl_plugin.diagnostics.curves import ticket_curves
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.prunable import select_prunable
from rtl_plugin.run_folder import RunFolder
from tests.discovery.setups import CONV, MLP, NamedBatches, built, found, shuffled_groups


def groups_with_validation(own: Any = MLP) -> DataGroups:
    train = {name: NamedBatches(own, name, 2, torch.float32) for name in "ab"}
    held_out = {name: NamedBatches(own, name * 2, 3, torch.float32) for name in "ab"}
    return DataGroups.from_loaders(train, validation=held_out)


def accuracy(model: Any, batches: Iterable[Any]) -> float:
    right = [(model(x).argmax(1) == y).float().mean() for x, y, _ in batches]
    return float(torch.stack(right).mean())


def test_rows_say_what_was_trained_at() -> None:
    tickets = found(built(MLP), groups_with_validation(), evaluate=accuracy)
    rows = [row for row in tickets.history if row["group"] == "a"]
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert [row.get("closing", False) for row in rows] == [False, False, True]
    assert rows[0]["trained_at"] == 0.0
    assert rows[1]["trained_at"] == rows[0]["achieved"]
    assert rows[2]["trained_at"] == rows[1]["achieved"] == rows[2]["achieved"]
    assert all(0 <= row["metric"] <= 1 for row in rows)
    assert rows[2]["kept"] == tickets["a"].kept


def test_the_metric_is_of_the_masked_network_that_was_trained() -> None:
    """The dense metric of round 1 by hand, and a metric that counts weights at zero."""
    model = built(MLP)
    chosen = list(select_prunable(model))

    def density(view: Any, batches: Iterable[Any]) -> float:
        weights = dict(view.named_parameters())
        kept = [weights[name] for name in chosen]
        return sum(int((w != 0).sum()) for w in kept) / sum(w.numel() for w in kept)

    tickets = found(model, groups_with_validation(), evaluate=density)
    for row in tickets.history:
        assert row["metric"] == pytest.approx(1 - row["trained_at"])


def test_the_tickets_are_those_found_without_it() -> None:
    def drawing(model: Any, batches: Iterable[Any]) -> float:
        np.random.rand(3)
        torch.rand(5)
        for x, *_ in batches:
            model(x)
        return float(torch.rand(()))

    for importance in ("magnitude", "weight_gradient"):
        model, groups = built(CONV), groups_with_validation(CONV)
        plain = found(model, groups, importance=importance)
        measured = found(model, groups, importance=importance, evaluate=drawing)
        for name in plain:
            for parameter, mask in plain[name].masks.items():
                assert torch.equal(mask, measured[name].masks[parameter])
        losses = [row["loss"] for row in plain.history]
        assert losses == [row["loss"] for row in measured.history][: len(losses)]
        assert all(row["metric"] is None for row in plain.history)


def test_no_gradients_eval_mode_and_own_buffers() -> None:
    model = built(CONV).train()
    seen = []

    def look(view: Any, batches: Iterable[Any]) -> float:
        seen.append((torch.is_grad_enabled(), view.training))
        for buffer in view.buffers():
            buffer.zero_()
        return 0.0

    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = found(model, groups_with_validation(CONV), evaluate=look)
    assert set(seen) == {(False, False)}
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    plain = found(model, groups_with_validation(CONV))
    assert [r["loss"] for r in first.history][:4] == [r["loss"] for r in plain.history]


def test_curves_put_metrics_where_they_belong() -> None:
    tickets = found(built(MLP), groups_with_validation(), evaluate=accuracy)
    rows = [row for row in tickets.history if row["group"] == "b"]
    points = ticket_curves(tickets.history)["b"].points
    assert [point.round for point in points] == [0, 1, 2]
    assert [point.metric for point in points] == [row["metric"] for row in rows]
    assert [point.loss for point in points] == [row["loss"] for row in rows]
    assert [point.sparsity for point in points] == [0.0, rows[0]["achieved"], rows[1]["achieved"]]
    assert points[0].similarity is None
    assert points[2].similarity == rows[1]["similarity"]


def test_similarity_in_the_history_is_that_of_the_tickets() -> None:
    tickets = found(built(MLP), groups_with_validation())
    for name, row in zip("ab", tickets.history[2:], strict=True):
        assert row["group"] == name
        assert row["similarity"] == pytest.approx(tickets.similarity()[0, 1])
        assert row["excess"] == pytest.approx(tickets.similarity(excess=True)[0, 1])
        assert (row["alarm"], row["left"]) == (None, False)


def test_one_ticket_has_no_similarity() -> None:
    tickets = found(built(MLP), groups_with_validation().only("a"))
    assert {row["similarity"] for row in tickets.history} == {None}


def test_a_killed_run_measures_the_rest(tmp_path: Path) -> None:
    model, groups = built(MLP), groups_with_validation()
    whole = found(model, groups, evaluate=accuracy, run_folder=tmp_path / "whole")
    calls = 0

    def dying(view: Any, batches: Iterable[Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 2 + 6:  # after two rehearsals, in the closing round
            raise KeyboardInterrupt
        return accuracy(view, batches)

    dying.__module__, dying.__qualname__ = accuracy.__module__, accuracy.__qualname__
    with pytest.raises(KeyboardInterrupt):
        found(model, groups, evaluate=dying, run_folder=tmp_path / "killed")
    resumed = found(model, groups, evaluate=accuracy, run_folder=tmp_path / "killed")
    assert resumed.history == whole.history
    folders = [RunFolder(tmp_path / name, "discover") for name in ("whole", "killed")]
    assert folders[0].tickets.read_bytes() == folders[1].tickets.read_bytes()


def test_a_validation_loader_with_a_generator_of_its_own_resumes_too(tmp_path: Path) -> None:
    def groups() -> DataGroups:
        train = {name: NamedBatches(MLP, name, 2, torch.float32) for name in "ab"}
        held_out = {}
        for name in "ab":
            batch = next(iter(NamedBatches(MLP, name * 2, 1, torch.float32)))
            samples = TensorDataset(batch[0], batch[1])
            generator = torch.Generator().manual_seed(1)
            held_out[name] = DataLoader(samples, 3, shuffle=True, generator=generator)
        return DataGroups.from_loaders(train, validation=held_out)

    def mean_of_batches(model: Any, batches: Any) -> float:
        assert len(batches) == 2
        assert batches.batch_size == 3
        return float(torch.stack([model(x).mean() for x, _ in batches]).mean())

    whole = found(built(MLP), groups(), evaluate=mean_of_batches, run_folder=tmp_path / "whole")
    killed = tmp_path / "killed" / "discover"
    killed.mkdir(parents=True)
    done = tmp_path / "whole" / "discover"
    for name in ("arguments.json", "round-0001-group-0000.safetensors"):
        (killed / name).write_bytes((done / name).read_bytes())
    of = groups()
    again = found(built(MLP), of, evaluate=mean_of_batches, run_folder=tmp_path / "killed")
    assert again.history == whole.history
    generators = [group.validation.generator for group in of.values()]  # type: ignore[union-attr]
    assert [generator.initial_seed() for generator in generators] == [1, 1]


def test_a_metric_that_writes_to_the_weights_changes_no_mask() -> None:
    def clamping(model: Any, batches: Any) -> float:
        for parameter in model.parameters():
            parameter.zero_()
        return 0.0

    for importance in ("magnitude", "weight_gradient"):
        plain = found(built(CONV), groups_with_validation(CONV), importance=importance)
        clamped = found(
            built(CONV), groups_with_validation(CONV), importance=importance, evaluate=clamping
        )
        assert (plain.similarity() == clamped.similarity()).all()
        for name in plain:
            for parameter, mask in plain[name].masks.items():
                assert torch.equal(mask, clamped[name].masks[parameter])


def test_a_metric_fails_before_any_training() -> None:
    def never(model: Any, batch: Any) -> torch.Tensor:
        raise AssertionError("trained")

    with pytest.raises(InvalidArgument, match=r"evaluate.*group 'a'.*finite number"):
        found(built(MLP), groups_with_validation(), never, evaluate=lambda m, b: float("nan"))


def test_a_folder_of_an_older_version_resumes(tmp_path: Path) -> None:
    """Rows then had neither trained_at nor metric."""
    whole = found(built(MLP), groups_with_validation(), run_folder=tmp_path)
    folder = RunFolder(tmp_path, "discover")
    folder.tickets.unlink()
    for round in (1, 2):
        for place in (0, 1):
            path = folder.round_ticket(round, place)
            old = TicketSet.load(path)
            row = {k: v for k, v in old.history[0].items() if k not in ("trained_at", "metric")}
            TicketSet(list(old.values()), history=[row]).save(path)
    arguments = folder.read_json(folder.arguments)
    folder.write_json(
        folder.arguments,
        {k: v for k, v in arguments.items() if k not in ("evaluate", "stop_before_collapse")},
    )
    assert found(built(MLP), groups_with_validation(), run_folder=tmp_path).history == whole.history


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", None, True, torch.ones(2)])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"evaluate.*group 'a'.*finite number"):
        found(built(MLP), groups_with_validation(), evaluate=lambda model, batches: value)


def test_tensors_and_numpy_numbers_are_numbers() -> None:
    for value in (torch.tensor(0.25), np.float32(0.25), torch.tensor([0.25])):
        tickets = found(
            built(MLP), groups_with_validation(), evaluate=lambda model, batches, v=value: v
        )
        assert {row["metric"] for row in tickets.history} == {0.25}


def test_refused_before_any_training() -> None:
    def never(model: Any, batch: Any) -> torch.Tensor:
        raise AssertionError("trained")

    with pytest.raises(InvalidGroups, match="a, b have none"):
        found(built(MLP), shuffled_groups(MLP), never, evaluate=accuracy)
    with pytest.raises(InvalidArgument, match="callable as evaluate"):
        found(built(MLP), groups_with_validation(), never, evaluate=0.5)


def test_another_metric_is_another_run(tmp_path: Path) -> None:
    from rtl_plugin.errors import RunFolderMismatch

    found(built(MLP), groups_with_validation(), run_folder=tmp_path)
    with pytest.raises(RunFolderMismatch, match="evaluate"):
        found(built(MLP), groups_with_validation(), run_folder=tmp_path, evaluate=accuracy)


def test_rounds_are_the_schedules_alone_without_it() -> None:
    tickets = found(built(MLP), groups_with_validation(), schedule=GeometricSchedule(0.7, rounds=3))
    assert max(row["round"] for row in tickets.history) == 3
