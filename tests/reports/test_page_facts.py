"""What the page says of masks, by hand."""

import itertools
import sys

import numpy as np
import pytest
import torch

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.errors import MissingExtra
from rtl_plugin.reports.page.charts import layer_map, similarity_maps
from rtl_plugin.reports.page.mask_facts import clustered_order, mask_facts
from rtl_plugin.reports.page.ticket_tables import (
    bytes_table,
    kept_table,
    layer_table,
    order_table,
    similarity_tables,
)


def bits(text, *shape):
    flat = torch.tensor([c == "1" for c in text])
    return flat.reshape(shape) if shape else flat


def ticket(name, weight, bias, **state):
    return Ticket(name, {"in.weight": bits(weight, 3, 2), "in.bias": bits(bias)}, state)


TICKETS = TicketSet(
    [
        ticket("a", "110000", "110", m=torch.ones(2)),
        ticket("b", "111100", "011"),
        ticket("c", "000011", "111"),
    ]
)
# The first and the last are alike, so that they are neighbours in the pictures.
APART = TicketSet(
    [
        ticket("first", "111000", "110"),
        ticket("other", "000111", "001"),
        ticket("alike", "111100", "110"),
    ]
)


def test_counts_by_hand():
    facts = mask_facts(TICKETS)
    assert facts.kept.tolist() == [[2, 4, 2], [2, 2, 3]]
    assert facts.union.tolist() == [6, 3]
    assert facts.shared_by == (0, 4, 4, 1)
    assert facts.exclusive.tolist() == [0, 2, 2]
    assert facts.prunable == 9
    assert facts.sparsities.tolist() == pytest.approx([5 / 9, 3 / 9, 4 / 9])
    assert facts.vectors == (False, True)
    assert facts.dead[0].tolist() == [2, 1, 2]


def test_bytes_by_hand():
    facts = mask_facts(TICKETS)
    # Six and three weights take a byte each, in every ticket.
    assert facts.mask_bytes == 3 * (1 + 1)
    assert facts.state_bytes == 8
    rows = {row[0]: row for row in bytes_table(facts).rows}
    assert rows["union, masks and own state"][3] == str(4 * 9 + 6 + 8)
    separate = rows["as many separate sparse networks, masks and own state"]
    assert separate[1] == "15"
    assert separate[3] == str(4 * 15 + 6 + 8)


def test_layers_by_hand():
    rows = layer_table(mask_facts(TICKETS, {"in.weight": 2, "in.bias": 0})).rows
    plain = [[cell.replace("\N{NO-BREAK SPACE}", "") for cell in row] for row in rows]
    shares = ["33.33%", "33.33%", "66.67%", "100.00%"]
    assert plain[0] == ["in.weight", "6", *shares, "1 to 2", "2", "3"]
    assert plain[1][6:] == ["\N{EN DASH}", "0", "0"]


def test_floors_of_a_run_that_recorded_none_are_the_default_ones():
    assert mask_facts(TICKETS).floors == (1, 1)
    assert mask_facts(TICKETS, {"in.weight": "2", "other": 5}).floors == (1, 1)
    assert mask_facts(TICKETS, ["in.weight"]).floors == (1, 1)


def test_where_no_floor_was_applied_none_is_shown():
    facts = mask_facts(TICKETS, {})
    assert facts.floors == facts.near_floor == (None, None)
    assert {row[7:] for row in layer_table(facts).rows} == {("\N{EN DASH}", "\N{EN DASH}")}


def test_a_third_that_holds_all_layers_is_left_out():
    assert list(mask_facts(TICKETS).likeness) == ["all layers"]
    mask = {"in.weight": bits("10"), "out.weight": bits("11")}
    two = mask_facts(TicketSet([Ticket("a", mask), Ticket("b", mask)]))
    assert list(two.likeness) == ["all layers", "shallow", "deep"]


def test_points_on_a_line_come_back_in_order():
    places = np.random.default_rng(0).permutation(12)
    similarity = 1 / (1 + np.abs(places[:, None] - places[None, :]))
    found = [int(places[k]) for k in clustered_order(similarity)]
    assert found in (list(range(12)), list(range(11, -1, -1)))


def test_the_order_begins_at_the_end_of_the_earlier_ticket():
    for seed in range(5):
        similarity = np.random.default_rng(seed).uniform(size=(7, 7))
        similarity = (similarity + similarity.T) / 2
        order = clustered_order(similarity)
        assert sorted(order) == list(range(7))
        assert order[0] < order[-1]


def test_pairs_that_are_alike_are_neighbours():
    similarity = np.full((6, 6), 0.1)
    for i, j in ((0, 3), (1, 4), (2, 5)):
        similarity[i, j] = similarity[j, i] = 0.9
    order = clustered_order(similarity)
    pairs = {frozenset(pair) for pair in itertools.pairwise(order)}
    assert {frozenset(pair) for pair in ((0, 3), (1, 4), (2, 5))} <= pairs


def test_one_and_two_tickets_need_no_tree(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    assert clustered_order(np.ones((1, 1))) == (0,)
    assert clustered_order(np.ones((2, 2))) == (0, 1)
    with pytest.raises(MissingExtra, match="scipy is needed for ordering tickets"):
        clustered_order(np.ones((3, 3)))


def test_the_order_is_told():
    facts = mask_facts(TICKETS)
    rows = order_table(facts).rows
    assert [number for number, _ in rows] == ["1", "2", "3"]
    assert [name for _, name in rows] == [facts.names[k] for k in facts.order]


def test_tables_and_pictures_keep_to_the_order():
    facts = mask_facts(APART)
    assert facts.order == (0, 2, 1)
    names = ["first", "alike", "other"]
    kept = kept_table(facts)
    assert kept.columns[1:] == tuple(f"#{name}" for name in names)
    assert kept.rows[0] == ("in.weight", "3", "4", "3")
    pairs = similarity_tables(facts)[0]
    assert [row[0] for row in pairs.rows] == names
    assert pairs.rows[0][1:] == ("1.000", "0.833", "0.000")
    assert pairs.rows[2][1:] == ("0.000", "0.111", "1.000")
    grid = similarity_maps(facts)[0].grids[0]
    assert [label.whole for label in grid.rows] == names
    texts = [label.text for label, _ in grid.values]
    assert texts == [".83", ".00", ".83", ".11", ".00", ".11"]
    picture, _ = layer_map(facts)
    assert [label.text for label, _ in picture.values][:3] == [".50", ".67", ".50"]


def test_excess_is_drawn_in_two_colours_only_where_much_lies_below_chance():
    raw, excess = similarity_maps(mask_facts(APART))
    assert all(name.startswith("q") for name in raw.bins.classes)
    assert all(name.startswith("d") for name in excess.bins.classes)
    alike = TicketSet([ticket("a", "110000", "100"), ticket("b", "110000", "100")])
    excess = similarity_maps(mask_facts(alike))[1]
    assert all(name.startswith("q") for name in excess.bins.classes)
