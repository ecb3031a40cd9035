"""Jaccard similarity against a slow reference that counts in plain Python floats."""

import numpy as np
import pytest
import torch

from rtl_plugin.diagnostics.similarity import layer_similarity, mean_similarity, similarity_matrix

Masks = dict[str, torch.Tensor]


def slow_jaccard(first: list[bool], second: list[bool], excess: bool) -> float:
    both = sum(1.0 for a, b in zip(first, second, strict=True) if a and b)
    either = sum(1.0 for a, b in zip(first, second, strict=True) if a or b)
    value = both / either if either else 1.0
    if not excess:
        return value
    a, b = (sum(mask) / len(mask) if mask else 0.0 for mask in (first, second))
    return value - (a * b / (a + b - a * b) if a + b else 1.0)


def slow_matrix(tickets: list[Masks], names: list[str], excess: bool) -> np.ndarray:
    flat = [[bit for name in names for bit in t[name].flatten().tolist()] for t in tickets]
    return np.array([[slow_jaccard(a, b, excess) for b in flat] for a in flat])


def random_tickets(count: int, densities: tuple[float, ...]) -> list[Masks]:
    generator = torch.Generator().manual_seed(7)
    shapes = {"conv": (3, 2, 3, 3), "fc": (5, 7), "scalar": (), "bias": (9,), "none": (0, 4)}
    return [
        {
            name: torch.rand(shape, generator=generator) < densities[k % len(densities)]
            for name, shape in shapes.items()
        }
        for k in range(count)
    ]


@pytest.mark.parametrize("excess", [False, True], ids=["raw", "excess"])
@pytest.mark.parametrize("densities", [(0.5,), (0.1, 0.9, 0.4), (0.0, 0.3), (1.0,)])
def test_against_the_slow_reference(densities: tuple[float, ...], excess: bool) -> None:
    tickets = random_tickets(4, densities)
    names = list(tickets[0])
    expected = slow_matrix(tickets, names, excess)
    np.testing.assert_allclose(
        similarity_matrix(tickets, excess=excess), expected, rtol=0, atol=1e-15
    )
    per_layer = layer_similarity(tickets, excess=excess)
    assert list(per_layer) == names
    for name in names:
        expected = slow_matrix(tickets, [name], excess)
        np.testing.assert_allclose(per_layer[name], expected, rtol=0, atol=1e-15, err_msg=name)


def test_global_similarity_is_not_the_mean_of_the_layers() -> None:
    tickets = [
        {"big": torch.tensor([True] * 8), "small": torch.tensor([True, False])},
        {"big": torch.tensor([True] * 8), "small": torch.tensor([False, True])},
    ]
    assert similarity_matrix(tickets)[0, 1] == 8 / 10
    assert layer_similarity(tickets)["small"][0, 1] == 0.0


def test_excess_is_zero_on_average_for_random_masks() -> None:
    torch.manual_seed(0)
    tickets = [{"w": torch.rand(200_000) < density} for density in (0.2, 0.5)]
    raw = similarity_matrix(tickets)[0, 1]
    assert raw == pytest.approx(0.1 / 0.6, abs=0.005)
    assert similarity_matrix(tickets, excess=True)[0, 1] == pytest.approx(0.0, abs=0.005)


def test_two_empty_masks_are_alike_and_not_more_than_chance_has_it() -> None:
    empty = [{"w": torch.zeros(3, dtype=torch.bool)}] * 2
    np.testing.assert_array_equal(similarity_matrix(empty), np.ones((2, 2)))
    np.testing.assert_array_equal(similarity_matrix(empty, excess=True), np.zeros((2, 2)))


def test_the_matrix_is_symmetric_float64_with_ones_on_the_diagonal() -> None:
    matrix = similarity_matrix(random_tickets(5, (0.2, 0.7)))
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), np.ones(5))


def test_masks_of_any_layout_count_alike() -> None:
    torch.manual_seed(0)
    masks = [torch.rand(4, 6) > 0.5 for _ in range(2)]
    strided = [m.t().contiguous().t() for m in masks]
    assert not strided[0].is_contiguous()
    np.testing.assert_array_equal(
        similarity_matrix([{"w": strided[0]}, {"w": masks[1]}]),
        similarity_matrix([{"w": m} for m in masks]),
    )


def test_names_pair_masks_not_positions() -> None:
    a, b = torch.tensor([True, False]), torch.tensor([False, True])
    assert similarity_matrix([{"x": a, "y": b}, {"y": b, "x": a}])[0, 1] == 1.0


def test_mean_similarity_leaves_the_ticket_itself_out() -> None:
    matrix = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.0], [0.4, 0.0, 1.0]])
    np.testing.assert_allclose(mean_similarity(matrix), [0.3, 0.1, 0.2], rtol=1e-15)
    excess = np.array([[0.9, -0.1], [-0.1, 0.5]])
    np.testing.assert_allclose(mean_similarity(excess), [-0.1, -0.1], rtol=1e-15)


def test_mean_similarity_of_one_ticket_is_nan_without_a_warning() -> None:
    assert np.isnan(mean_similarity(np.ones((1, 1)))).tolist() == [True]


def test_no_tickets() -> None:
    assert similarity_matrix([]).shape == (0, 0)
    assert layer_similarity([]) == {}
