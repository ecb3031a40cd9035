"""A set of tickets: refusals, counts, similarity, the summary, and whether it fits a model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidTicket, RtlError, StructureMismatch, UnknownTicket
from rtl_plugin.fingerprint import model_structure
from rtl_plugin.ticket import Ticket
from rtl_plugin.tickets import TicketSet
from tests.models import ZOO, Network, mlp


def mask(bits: str) -> torch.Tensor:
    return torch.tensor([bit == "1" for bit in bits])


def three_tickets() -> TicketSet:
    return TicketSet(
        [
            Ticket("a", {"w": mask("1100"), "v": mask("10")}),
            Ticket("b", {"w": mask("0110"), "v": mask("10")}),
            Ticket("c", {"w": mask("0100"), "v": mask("00")}),
        ]
    )


@pytest.mark.parametrize("tickets", [[], (), ["a"], {"a": 1}, 5, None])
def test_a_set_needs_tickets(tickets: object) -> None:
    with pytest.raises(InvalidTicket, match="takes a sequence of at least one Ticket, got"):
        TicketSet(tickets)


def test_a_bare_ticket_is_refused() -> None:
    with pytest.raises(InvalidTicket, match="takes a sequence of at least one Ticket"):
        TicketSet(Ticket("a", {"w": mask("1")}))


def test_two_tickets_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidTicket, match="two tickets are named 'a': give each its own name"):
        TicketSet([Ticket("a", {"w": mask("1")}), Ticket("a", {"w": mask("1")})])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"v": mask("11")}, "disagree about 'v': None against"),
        (
            {"w": mask("111")},
            r"disagree about 'w': .*\[2\]\) against .*\[3\]\)",
        ),
        ({"w": mask("11").reshape(1, 2)}, "disagree about 'w'"),
        ({"w": mask("11"), "x": mask("1")}, "disagree about 'x': None against"),
    ],
)
def test_tickets_must_agree_on_names_and_shapes(
    other: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(InvalidTicket, match=f"tickets 'a' and 'b' {message}"):
        TicketSet([Ticket("a", {"w": mask("11")}), Ticket("b", other)])


def test_tickets_may_list_their_masks_in_another_order() -> None:
    tickets = TicketSet(
        [
            Ticket("a", {"w": mask("10"), "v": mask("110")}),
            Ticket("b", {"v": mask("011"), "w": mask("11")}),
        ]
    )
    assert list(tickets.union()) == ["w", "v"]
    assert torch.equal(tickets.union()["w"], mask("11"))
    assert torch.equal(tickets.union()["v"], mask("111"))


def test_it_is_an_ordered_mapping() -> None:
    tickets = three_tickets()
    assert tickets.names == ("a", "b", "c") == tuple(tickets)
    assert [ticket.name for ticket in tickets.values()] == ["a", "b", "c"]
    assert len(tickets) == 3
    assert "b" in tickets
    assert "x" not in tickets
    assert 0 not in tickets
    assert tickets.shapes == {"w": (4,), "v": (2,)}


@pytest.mark.parametrize("name", ["x", 0, None, ["a"]])
def test_an_unknown_name_is_a_readable_key_error(name: object) -> None:
    with pytest.raises(UnknownTicket) as caught:
        three_tickets()[name]
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, RtlError)
    # A plain KeyError would show the message quoted, with escaped quotes inside.
    assert str(caught.value) == f"unknown ticket {name!r}; this set has 'a', 'b', 'c'"


def test_get_and_density_of_unknown_names() -> None:
    assert three_tickets().get("x") is None
    with pytest.raises(KeyError, match="unknown ticket 'x'"):
        three_tickets().density("x")


def test_counts_by_hand() -> None:
    tickets = three_tickets()
    union = tickets.union()
    assert type(union) is dict
    assert torch.equal(union["w"], mask("1110"))
    assert torch.equal(union["v"], mask("10"))
    assert tickets.active_parameters() == 4
    assert [tickets.density(name) for name in tickets] == [3 / 6, 3 / 6, 1 / 6]


def test_the_union_is_a_copy() -> None:
    tickets = TicketSet([Ticket("a", {"w": mask("10")})])
    tickets.union()["w"].fill_(True)
    assert torch.equal(tickets["a"].masks["w"], mask("10"))


def test_similarity_by_hand() -> None:
    tickets = three_tickets()
    # a = {w0, w1, v0}, b = {w1, w2, v0}, c = {w1}.
    expected = np.array([[1, 2 / 4, 1 / 3], [2 / 4, 1, 1 / 3], [1 / 3, 1 / 3, 1]])
    np.testing.assert_allclose(tickets.similarity(), expected, rtol=1e-15)
    per_layer = tickets.similarity(per_layer=True)
    assert list(per_layer) == ["w", "v"]
    np.testing.assert_allclose(
        per_layer["w"], [[1, 1 / 3, 1 / 2], [1 / 3, 1, 1 / 2], [1 / 2, 1 / 2, 1]], rtol=1e-15
    )
    np.testing.assert_allclose(per_layer["v"], [[1, 1, 0], [1, 1, 0], [0, 0, 1]], rtol=1e-15)


def test_excess_over_chance_by_hand() -> None:
    excess = three_tickets().similarity(excess=True)
    # Densities a = b = 1/2, c = 1/6: chance(a, b) = .25 / .75, chance(a, c) = (1/12) / (7/12).
    assert excess[0, 1] == pytest.approx(2 / 4 - 1 / 3)
    assert excess[0, 2] == pytest.approx(1 / 3 - 1 / 7)
    per_layer = three_tickets().similarity(per_layer=True, excess=True)
    # In v alone densities are 1/2, 1/2, 0.
    np.testing.assert_allclose(per_layer["v"][0], [1 - 1 / 3, 1 - 1 / 3, 0])


def test_the_summary_is_true() -> None:
    tickets = TicketSet(
        [
            Ticket("1000", {"w": mask("1100"), "v": mask("00")}, {"mean": torch.zeros(3)}),
            Ticket("007", {"w": mask("0111"), "v": mask("10")}),
        ]
    )
    lines = tickets.summary().splitlines()
    assert lines[0].split("  ")[0] == "ticket"
    # kept 2 of 6 and 4 of 6; Jaccard 1/5; chance (1/3 * 2/3) / (7/9) = 2/7; 1 byte a mask.
    assert lines[2].split() == ["1000", "2", "66.67%", "0.200", "-0.086", "14"]
    assert lines[3].split() == ["007", "4", "33.33%", "0.200", "-0.086", "2"]
    assert lines[5:] == ["union 5 of 6 prunable weights", "nothing kept in 1000: v"]


def test_names_break_no_summary() -> None:
    family = "environment " * 10
    names = ["a\nb\x1b[2J", f"{family}1", f"{family}2", "x" * 32, "日本"]
    tickets = TicketSet([Ticket(n, {"w": mask("0011"), "v": mask("00")}) for n in names])
    lines = tickets.summary().splitlines()
    shown = ["a\ufffdb\ufffd[2J", "environment envi…t environment 1"]
    shown += [f"{shown[1][:-1]}2", "x" * 32, "日本"]
    assert [line.split("  ")[0].rstrip() for line in lines[2:7]] == shown
    assert {len(name) for name in shown[1:4]} == {32}
    assert lines[9:] == [f"nothing kept in {name}: v" for name in shown]
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 100
    assert tickets.names == tuple(names), "only what is shown changes"


def test_repr_names_the_tickets() -> None:
    assert repr(three_tickets()) == "TicketSet(a: 50.0%, b: 50.0%, c: 16.7%)"


def test_copies() -> None:
    tickets = TicketSet(
        [Ticket("a", {"w": mask("10")}, {"mean": torch.zeros(1)})],
        structure="s",
        theta_0="t",
        schedule={"kind": "linear"},
        history=[{"round": 1}],
        rewind_state={"w": torch.ones(2)},
    )
    deep = copy.deepcopy(tickets)
    deep["a"].state["mean"].fill_(4.0)
    deep.rewind_state["w"].fill_(4.0)
    deep.history[0]["round"] = 9
    torch.testing.assert_close(tickets["a"].state["mean"], torch.zeros(1))
    torch.testing.assert_close(tickets.rewind_state, {"w": torch.ones(2)})
    assert tickets.history == [{"round": 1}]
    assert (deep.structure, deep.theta_0, deep.schedule) == ("s", "t", {"kind": "linear"})
    assert copy.copy(tickets)["a"] is tickets["a"]


def test_to_returns_new_tickets_that_share_no_state() -> None:
    tickets = TicketSet(
        [Ticket("a", {"w": mask("10")}, {"mean": torch.zeros(1)})], theta_0="t", history=[{"r": 1}]
    )
    moved = tickets.to("cpu")
    moved["a"].state["mean"].fill_(3.0)
    torch.testing.assert_close(tickets["a"].state["mean"], torch.zeros(1))
    assert (moved.theta_0, moved.history, moved.rewind_state) == ("t", [{"r": 1}], None)


@pytest.mark.parametrize("network", ZOO, ids=str)
def test_tickets_of_a_network_fit_it(network: Network) -> None:
    model = network.build()
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    state = dict(model.named_buffers())
    tickets = TicketSet([Ticket("a", masks, state)], structure=model_structure(model))
    tickets.check_fits(model)
    wider = nn.Sequential(model, nn.Linear(3, 3))
    with pytest.raises(StructureMismatch, match="is not in the model; it has"):
        tickets.check_fits(wider)


@pytest.mark.parametrize(
    ("masks", "state", "message"),
    [
        ({"fc.weight": mask("1")}, {}, "masked parameter 'fc.weight' is not in the model; it has"),
        (
            {"0.weight": mask("1")},
            {},
            r"'0.weight' has shape \(1,\), in the model it is \(8, 5\)",
        ),
        ({"0.bias": mask("1" * 8)}, {"mean": torch.ones(1)}, "state of ticket 'a': 'mean' is not"),
        (
            {"0.bias": mask("1" * 8)},
            {"2.bias": torch.ones(3)},
            r"'2.bias' has shape \(3,\), in the model it is \(8,\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    masks: dict[str, torch.Tensor], state: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(StructureMismatch, match=message):
        TicketSet([Ticket("a", masks, state)]).check_fits(mlp())


def test_every_ticket_s_state_is_checked() -> None:
    good, bad = {"0.bias": mask("1" * 8)}, {"2.bias": torch.ones(3)}
    tickets = TicketSet([Ticket("a", good), Ticket("b", good, bad)])
    with pytest.raises(StructureMismatch, match=r"state of ticket 'b': '2.bias' has shape"):
        tickets.check_fits(mlp())


def test_another_structure_outside_the_masks_is_refused() -> None:
    model = mlp()
    tickets = TicketSet([Ticket("a", {"0.bias": mask("1" * 8)})], structure=model_structure(model))
    tickets.check_fits(model)
    model[4] = nn.Linear(8, 5)
    with pytest.raises(StructureMismatch, match="another structure than this Sequential"):
        tickets.check_fits(model)
