"""Similarity by depth: how layers split, by hand-computed values, and labels of the user's."""

from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin.diagnostics.depth import depth_labels, depth_similarity
from rtl_plugin.diagnostics.mask_counts import count_masks
from rtl_plugin.diagnostics.similarity import similarity_matrix
from rtl_plugin.errors import InvalidArgument, InvalidTicket


@pytest.mark.parametrize(
    ("layers", "split"),
    [
        *[(1, "m"), (2, "sd"), (3, "smd"), (4, "smmd"), (5, "ssmdd"), (6, "ssmmdd")],
        *[(7, "ssmmmdd"), (8, "sssmmddd"), (54, "s" * 18 + "m" * 18 + "d" * 18)],
    ],
)
def test_how_layers_split_in_thirds(layers: int, split: str) -> None:
    labels = depth_labels(f"block{i}.weight" for i in range(layers))
    assert "".join(label[0] for label in labels.values()) == split


def test_the_split_is_symmetric_and_as_even_as_can_be() -> None:
    for layers in range(1, 60):
        labels = list(depth_labels(str(i) for i in range(layers)).values())
        swapped = [{"shallow": "deep", "deep": "shallow"}.get(each, each) for each in labels]
        assert labels == swapped[::-1]
        sizes = [labels.count(label) for label in ("shallow", "middle", "deep")]
        assert max(sizes) - min(sizes) <= 1, (layers, sizes)


def test_parameters_of_one_module_are_one_layer() -> None:
    names = ["a.weight", "a.bias", "b.weight", "c.0.weight", "c.0.bias", "c.1.weight"]
    assert depth_labels(names) == {
        "a.weight": "shallow", "a.bias": "shallow", "b.weight": "middle",
        "c.0.weight": "middle", "c.0.bias": "middle", "c.1.weight": "deep",
    }  # fmt: skip


def test_parameters_of_the_root_are_layers_of_their_own() -> None:
    assert list(depth_labels(["first", "second", "third"]).values()) == [
        "shallow",
        "middle",
        "deep",
    ]


def mask(bits: str) -> torch.Tensor:
    return torch.tensor([bit == "1" for bit in bits])


# Five layers: 2, 1, 2. Shallow: 1 + 1 shared of 3 + 1; middle 0 of 2; deep 2 + 0 of 2 + 1.
FIRST = {"l0": mask("1100"), "l1": mask("10"), "l2": mask("10"), "l3": mask("110"), "l4": mask("1")}
OTHER = {"l0": mask("0110"), "l1": mask("10"), "l2": mask("01"), "l3": mask("110"), "l4": mask("0")}


def between(found: dict[str, np.ndarray]) -> dict[str, float]:
    return {label: matrix[0, 1].item() for label, matrix in found.items()}


@pytest.mark.parametrize("counted", [False, True])
def test_by_hand(counted: bool) -> None:
    tickets = count_masks([FIRST, OTHER]) if counted else [FIRST, OTHER]
    found = depth_similarity(tickets)
    assert list(found) == ["shallow", "middle", "deep"]
    assert between(found) == {"shallow": 2 / 4, "middle": 0.0, "deep": 2 / 3}


def test_excess_by_hand() -> None:
    # Shallow: 3 of 6 kept in both, chance 1/4 over 3/4; middle: 1/2 each, 1/3.
    # Deep: 3/4 and 2/4, chance (3/8) / (5/4 - 3/8) = 3/7.
    found = between(depth_similarity([FIRST, OTHER], excess=True))
    expected = {"shallow": 1 / 2 - 1 / 3, "middle": -1 / 3, "deep": 2 / 3 - 3 / 7}
    assert found == pytest.approx(expected, abs=1e-15)


def test_labels_of_the_users() -> None:
    depths = {"l4": "head", "l3": "head", "l2": "trunk", "l1": "trunk", "l0": "stem"}
    found = depth_similarity([FIRST, OTHER], depths=depths)
    assert list(found) == ["stem", "trunk", "head"]
    assert between(found) == {"stem": 1 / 3, "trunk": 1 / 3, "head": 2 / 3}


def test_one_label_for_all_is_the_global_similarity() -> None:
    found = depth_similarity([FIRST, OTHER], depths=dict.fromkeys(FIRST, "all"), excess=True)
    expected = similarity_matrix([FIRST, OTHER], excess=True)
    np.testing.assert_array_equal(found["all"], expected)


def test_an_empty_third_is_left_out() -> None:
    assert list(depth_similarity([{"w": mask("10")}])) == ["middle"]
    two = {"a": mask("10"), "b": mask("10")}
    assert list(depth_similarity([two, two])) == ["shallow", "deep"]
    assert depth_similarity([]) == {}


def test_empty_layers_and_many_tickets() -> None:
    torch.manual_seed(0)
    empty = {"none": torch.zeros(0, 3, dtype=torch.bool), "off": torch.zeros(4, dtype=torch.bool)}
    tickets = [{**empty, "w": torch.rand(50) < 0.5} for _ in range(300)]
    found = depth_similarity(tickets)
    np.testing.assert_array_equal(found["shallow"], np.ones((300, 300)))
    np.testing.assert_array_equal(found["middle"], np.ones((300, 300)))
    assert 0.2 < found["deep"][0, 1] < 0.5


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ({"l0": "x"}, r"no label for the masked parameter 'l1' \(4 of these"),
        ({**dict.fromkeys(FIRST, "x"), "l9": "x"}, "a label for the unmasked parameter 'l9'"),
        ({**dict.fromkeys(FIRST, "x"), "l2": ""}, "label of 'l2' must be a non-empty string"),
        ({**dict.fromkeys(FIRST, "x"), "l2": 3}, "label of 'l2' must be a non-empty string, got 3"),
        (["x"] * 5, "depths must map parameter names to labels, got list"),
    ],
)
def test_bad_labels_are_refused(depths: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        depth_similarity([FIRST, OTHER], depths=depths)


def test_tickets_that_disagree_are_refused() -> None:
    with pytest.raises(InvalidTicket, match="'l0'"):
        depth_similarity([FIRST, {**OTHER, "l0": mask("10")}])
    with pytest.raises(InvalidTicket, match="'l4'"):
        depth_similarity([FIRST, {name: OTHER[name] for name in list(OTHER)[:4]}])
