"""Alignment per depth and round, and the tickets of every round of a run folder."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin import DataGroups, GeometricSchedule, Ticket, TicketSet, discover
from rtl_plugin.diagnostics.alignment_tables import alignment_by_depth, alignment_by_round
from rtl_plugin.diagnostics.depth import depth_similarity
from rtl_plugin.diagnostics.label_permutation import PermutationTest
from rtl_plugin.diagnostics.round_tickets import sparsity_of, tickets_by_round
from rtl_plugin.diagnostics.semantic_alignment import semantic_alignment
from rtl_plugin.errors import DamagedFile, InvalidArgument, MissingFile
from rtl_plugin.run_folder import RunFolder

GROUPS = ("a", "b", "c", "d")
LAYERS = ("stem.weight", "body.weight", "head.weight")  # not in alphabetical order


def names_similarity() -> np.ndarray:
    matrix = np.eye(4)
    for place, (i, j) in enumerate([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]):
        matrix[i, j] = matrix[j, i] = (place * 5 % 6) / 10
    return matrix


def random_ticket(name: str, density: float) -> Ticket:
    return Ticket(name, {layer: torch.rand(40) < density for layer in LAYERS})


def random_tickets(density: float = 0.5) -> TicketSet:
    return TicketSet([random_ticket(name, density + 0.1 * k) for k, name in enumerate(GROUPS)])


def test_rows_are_the_alignments_of_each_depth() -> None:
    torch.manual_seed(1)
    tickets, names = random_tickets(), names_similarity()
    found = alignment_by_depth(tickets, names)
    masks = [ticket.masks for ticket in tickets.values()]
    expected = {}
    for excess in (False, True):
        expected["all", excess] = tickets.similarity(excess=excess)
        for depth, matrix in depth_similarity(masks, excess=excess).items():
            expected[depth, excess] = matrix
    assert {(row.depth, row.excess) for row in found.rows} == set(expected)
    assert [row.depth for row in found.rows[::2]] == ["all", "shallow", "middle", "deep"]
    for row in found.rows:
        assert row.alignment == semantic_alignment(expected[row.depth, row.excess], names)
    assert len({row.alignment.rho for row in found.rows}) > 4


def test_depths_of_the_users() -> None:
    depths = {LAYERS[0]: "early", LAYERS[1]: "late", LAYERS[2]: "late"}
    found = alignment_by_depth(random_tickets(), names_similarity(), depths=depths)
    assert [row.depth for row in found.rows[::2]] == ["all", "early", "late"]
    with pytest.raises(InvalidArgument, match="depths= goes with a TicketSet"):
        alignment_by_depth({"x": np.eye(4)}, names_similarity(), depths=depths)


def test_p_is_corrected_apart_for_raw_and_excess() -> None:
    torch.manual_seed(2)
    found = alignment_by_depth(random_tickets(), names_similarity())
    for excess in (False, True):
        rows = sorted(
            (row for row in found.rows if row.excess == excess), key=lambda r: r.alignment.p_value
        )
        highest = 0.0
        for rank, row in enumerate(rows):
            highest = max(highest, min(1.0, row.alignment.p_value * (4 - rank)))
            assert row.p_holm == pytest.approx(highest)


def test_the_test_is_the_users() -> None:
    test = PermutationTest(permutations=10, seed=3, alternative="two-sided")
    (row,) = alignment_by_depth({"x": names_similarity()}, names_similarity(), test=test).rows
    assert (row.alignment.permutations, row.alignment.alternative) == (10, "two-sided")


def test_the_table_and_its_json() -> None:
    flat = np.ones((4, 4))
    found = alignment_by_round({2: {"deep": names_similarity()}, 1: {"deep": flat}},
                               names_similarity())  # fmt: skip
    lines = found.table().splitlines()
    assert lines[0].split() == [
        "round", "depth", "similarity", "rho", "p", "p", "(Holm)", "pairs", "note"
    ]  # fmt: skip
    assert lines[2].split()[:6] == ["1", "deep", "raw", "-", "-", "-"]
    assert lines[3].split()[:6] == ["2", "deep", "raw", "1.000", "0.042", "0.042"]
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content[0]["rho"] is None
    assert content[0]["note"].startswith("every pair of tickets")
    assert content[1] == {
        "depth": "deep", "excess": False, "round": 2, "sparsity": None, "rho": 1.0,
        "p_value": pytest.approx(1 / 24), "p_holm": pytest.approx(1 / 24), "pairs": 6,
        "permutations": 24, "exact": True, "alternative": "greater",
        "note": "4 groups: p cannot be below 0.0417", "smallest_p": pytest.approx(1 / 24),
    }  # fmt: skip


@pytest.mark.parametrize("nothing", [{}, [np.eye(3)], None])
def test_nothing_to_align_is_an_error(nothing: Any) -> None:
    with pytest.raises(InvalidArgument):
        alignment_by_depth(nothing, names_similarity())


def test_rounds_without_any_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="nothing to align"):
        alignment_by_round({}, names_similarity())


class Written:
    """A run folder written by hand: what each group kept after each round."""

    def __init__(self, root: Path, groups: tuple[str, ...] = GROUPS) -> None:
        self.folder = RunFolder(root, "discover")
        self.folder.open({"groups": {"names": list(groups)}, "prunable": list(LAYERS)})
        self.groups = groups
        self.masks: dict[tuple[int, str], Ticket] = {}

    def round(self, number: int, *groups: str, **row: Any) -> None:
        for group in groups or self.groups:
            backwards = reversed(random_ticket(group, 0.9**number).masks.items())
            ticket = Ticket(group, dict(backwards))  # a file need not keep the model's order
            self.masks[number, group] = ticket
            history = [{"round": number, "group": group, **row}]
            path = self.folder.round_ticket(number, self.groups.index(group))
            TicketSet([ticket], history=history).save(path)

    def alarm(self, number: int, group: str, good: int) -> dict[str, Any]:
        alarm = {"ticket": group, "round": number, "last_good_round": good}
        return self.compared(number, group, left=True, alarm=alarm)

    def compared(self, number: int, group: str, **row: Any) -> dict[str, Any]:
        row = {"round": number, "group": group, **row}
        self.folder.log("compared", **row)
        return row

    def finish(self, history: list[dict[str, Any]]) -> None:
        last = [random_ticket(group, 0.5) for group in self.groups]
        TicketSet(last, history=history).save(self.folder.tickets)


def assert_masks(tickets: TicketSet, expected: list[Ticket]) -> None:
    for name, ticket in zip(GROUPS, expected, strict=True):
        assert list(tickets[name].masks) == list(LAYERS)
        for layer in LAYERS:
            assert torch.equal(tickets[name].masks[layer], ticket.masks[layer]), (name, layer)


def test_every_round_of_a_finished_run_in_the_models_order(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.round(1)
    run.round(2)
    run.round(3, closing=True)
    run.finish([])
    found = list(tickets_by_round(tmp_path))
    assert [number for number, _ in found] == [1, 2]
    for number, tickets in found:
        assert tickets.names == GROUPS
        assert_masks(tickets, [run.masks[number, group] for group in GROUPS])


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "killed"])
def test_a_ticket_that_left_has_the_masks_that_it_kept(tmp_path: Path, finished: bool) -> None:
    run = Written(tmp_path)
    for number in (1, 2):
        run.round(number)
    rows = [run.alarm(2, "b", good=1), run.alarm(2, "d", good=0)]
    rows.append(run.compared(2, "c", left=False, alarm={"last_good_round": 1}))
    rows.append(run.compared(2, "a", left=False, alarm=None))
    run.folder.log("round", group="a", round=2, left=True, alarm={"last_good_round": 1})
    with run.folder.log_file.open("a") as log:
        log.write('{"stage": "discover", "event": "al\n')  # a kill in the middle of a line
    run.round(3, "a", "c")
    if finished:
        run.finish([*rows, {"round": 3, "group": "a", "left": True, "alarm": None}])
        run.folder.log_file.unlink()
    else:
        run.round(4, "a")
    found = dict(tickets_by_round(tmp_path))
    assert list(found) == [1, 2, 3]
    assert_masks(found[2], [run.masks[2, group] for group in GROUPS])
    dense = Ticket("d", {layer: torch.ones(40, dtype=torch.bool) for layer in LAYERS})
    expected = [run.masks[3, "a"], run.masks[1, "b"], run.masks[3, "c"], dense]
    assert_masks(found[3], expected)


def test_a_closing_round_after_a_gap_for_some_of_the_tickets(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.round(1)
    rows = [run.compared(1, "a", left=True, alarm=None)]
    rows += [run.alarm(1, group, good=0) for group in GROUPS[1:]]
    run.round(5, "a", "c", closing=True)
    for _ in range(2):
        ((number, tickets),) = tickets_by_round(tmp_path)
        assert number == 1
        assert_masks(tickets, [run.masks[1, group] for group in GROUPS])
        run.finish(rows)


def test_a_killed_run_gives_its_finished_rounds(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.round(1, "a", "b")
    with pytest.raises(MissingFile, match="no finished round"):
        list(tickets_by_round(tmp_path))
    run.round(1)
    run.round(2, "a")
    assert [number for number, _ in tickets_by_round(tmp_path)] == [1]


def test_a_round_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.round(1)
    run.round(2)
    missing = run.folder.round_ticket(1, 2)
    missing.unlink()
    with pytest.raises(DamagedFile, match=missing.name):
        list(tickets_by_round(tmp_path))
    run.round(1)
    run.folder.round_ticket(2, 0).unlink()
    run.finish([])
    with pytest.raises(DamagedFile, match="missing though later files are there"):
        list(tickets_by_round(tmp_path))


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no finished round of discovery"):
        alignment_by_round(tmp_path, names_similarity())
    folder = RunFolder(tmp_path, "discover")
    folder.open({"seed": 0})
    TicketSet([random_ticket("a", 0.5)]).save(folder.round_ticket(1, 0))
    with pytest.raises(DamagedFile, match="does not say which groups"):
        alignment_by_round(tmp_path, names_similarity())


def test_a_real_run_from_its_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(4, 6), *(nn.Linear(6, 6) for _ in range(3))]
    model = nn.Sequential(*layers, nn.Linear(6, 1))
    groups = DataGroups.from_loaders({name: [torch.randn(8, 4)] for name in GROUPS})
    tickets = discover(
        model,
        groups,
        lambda model, batch: (model(batch) - batch[:, :1]).square().mean(),
        schedule=GeometricSchedule(0.8, rounds=2),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
        steps=3,
        run_folder=tmp_path,
        progress=False,
    )
    found = dict(tickets_by_round(tmp_path))
    assert list(found) == [1, 2]
    assert sparsity_of(found[1]) < sparsity_of(found[2]) == pytest.approx(0.8, abs=0.01)
    np.testing.assert_array_equal(found[2].similarity(), tickets.similarity())
    table = alignment_by_round(tmp_path, names_similarity())
    assert [row.round for row in table.rows] == [1] * 8 + [2] * 8
    last = alignment_by_depth(tickets, names_similarity()).rows
    assert [row.alignment for row in table.rows[8:]] == [row.alignment for row in last]
    assert table.rows[8].sparsity == pytest.approx(0.8, abs=0.01)
    assert "80." in table.table()
    assert not math.isnan(table.rows[0].p_holm)
    assert table.rows[0].p_holm >= table.rows[0].alignment.p_value
