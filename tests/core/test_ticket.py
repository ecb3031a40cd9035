"""One ticket: what it refuses, what it copies, what it says of itself."""

import copy
import dataclasses
import pickle

import pytest
import torch

from rtl_plugin.errors import InvalidTicket, RtlError
from rtl_plugin.ticket import Ticket


def some_mask() -> torch.Tensor:
    return torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize("name", ["", None, 3, b"a"])
def test_a_name_must_be_a_non_empty_string(name: object) -> None:
    with pytest.raises(InvalidTicket, match="name must be a non-empty string, got"):
        Ticket(name, {"w": some_mask()})


@pytest.mark.parametrize("masks", [{}, None, [], [torch.tensor([True])], "w"])
def test_masks_must_be_a_mapping_with_an_entry(masks: object) -> None:
    with pytest.raises(InvalidTicket, match=r"ticket 'a' needs a mapping .* at least one entry"):
        Ticket("a", masks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64, torch.bfloat16])
def test_a_mask_of_another_dtype_is_refused_with_the_remedy(dtype: torch.dtype) -> None:
    with pytest.raises(
        InvalidTicket, match=rf"mask of 'conv.w' must be a torch.bool tensor, got {dtype}.*bool\(\)"
    ):
        Ticket("a", {"conv.w": some_mask().to(dtype)})


@pytest.mark.parametrize("mask", [[True, False], None, True])
def test_a_mask_that_is_no_tensor_is_refused(mask: object) -> None:
    with pytest.raises(
        InvalidTicket, match=f"must be a torch.bool tensor, got {type(mask).__name__}"
    ):
        Ticket("a", {"w": mask})


@pytest.mark.parametrize("key", ["", 0, None])
def test_a_parameter_name_must_be_a_non_empty_string(key: object) -> None:
    with pytest.raises(InvalidTicket, match="is not a parameter name"):
        Ticket("a", {key: some_mask()})


@pytest.mark.parametrize(
    "masks",
    [
        {"w": torch.zeros(2, 3, dtype=torch.bool)},
        {"w": torch.zeros(2, dtype=torch.bool), "v": torch.zeros(3, dtype=torch.bool)},
        {"w": torch.zeros(0, dtype=torch.bool)},
    ],
)
def test_masks_that_keep_nothing_at_all_are_refused(masks: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InvalidTicket, match="ticket 'a' keeps no weight at all"):
        Ticket("a", masks)


def test_one_empty_mask_is_allowed_and_reported() -> None:
    ticket = Ticket("a", {"w": some_mask(), "v": torch.zeros(2, dtype=torch.bool)})
    assert ticket.empty_masks == ("v",)
    assert ticket.kept == 3
    assert ticket.density == 3 / 8


@pytest.mark.parametrize("state", [None, [], [("m", torch.ones(1))], torch.ones(1)])
def test_state_must_be_a_mapping(state: object) -> None:
    with pytest.raises(InvalidTicket, match="state must be a mapping name -> tensor, got"):
        Ticket("a", {"w": some_mask()}, state)


@pytest.mark.parametrize(
    "state", [{"m": 1.0}, {"m": None}, {0: torch.ones(1)}, {"": torch.ones(1)}]
)
def test_state_must_map_names_to_tensors(state: dict[str, torch.Tensor]) -> None:
    # An empty name could be written to a file, but not read again.
    with pytest.raises(InvalidTicket, match="ticket 'a': state maps names to tensors, got"):
        Ticket("a", {"w": some_mask()}, state)


def test_errors_are_ours_and_the_built_in_that_fits() -> None:
    with pytest.raises(RtlError):
        Ticket("a", {})
    with pytest.raises(ValueError, match="needs a mapping"):
        Ticket("a", {})


def test_later_changes_of_what_was_passed_in_change_nothing() -> None:
    mask, mean = some_mask(), torch.tensor([1.0, 2.0])
    masks, state = {"w": mask}, {"mean": mean}
    ticket = Ticket("a", masks, state)
    mask.fill_(False)
    mean.fill_(9.0)
    masks["v"] = some_mask()
    state["var"] = torch.zeros(1)
    assert torch.equal(ticket.masks["w"], some_mask())
    assert list(ticket.masks) == ["w"]
    torch.testing.assert_close(ticket.state, {"mean": torch.tensor([1.0, 2.0])})


def test_masks_cannot_be_replaced_but_state_entries_can() -> None:
    ticket = Ticket("a", {"w": some_mask()}, {"mean": torch.zeros(2)})
    with pytest.raises(TypeError, match="does not support item assignment"):
        ticket.masks["w"] = some_mask()
    with pytest.raises(dataclasses.FrozenInstanceError):
        ticket.masks = {}
    ticket.state["mean"] = torch.ones(2)
    torch.testing.assert_close(ticket.state["mean"], torch.ones(2))


def test_state_keeps_no_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    ticket = Ticket("a", {"w": some_mask()}, {"mean": weight * 2})
    assert not ticket.state["mean"].requires_grad


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_equal_and_independent(how) -> None:
    ticket = Ticket("a", {"w": some_mask()}, {"mean": torch.zeros(2)})
    other = how(ticket)
    other.state["mean"].fill_(5.0)
    other.masks["w"].fill_(True)
    assert other.name == "a"
    torch.testing.assert_close(ticket.state["mean"], torch.zeros(2))
    assert torch.equal(ticket.masks["w"], some_mask())
    assert torch.equal(other.masks["w"], torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match="does not support item assignment"):
        other.masks["w"] = some_mask()


@pytest.mark.parametrize(
    ("masks", "kept", "density"),
    [
        ({"w": torch.tensor([True, True, False, False])}, 2, 0.5),
        ({"w": torch.tensor(True), "v": torch.tensor([False] * 3)}, 1, 0.25),
        ({"w": torch.ones(2, 2, 2, dtype=torch.bool)}, 8, 1.0),
    ],
)
def test_counts_by_hand(masks: dict[str, torch.Tensor], kept: int, density: float) -> None:
    ticket = Ticket("a", masks)
    assert (ticket.kept, ticket.density) == (kept, density)
