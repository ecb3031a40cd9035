"""Sums and figures of gradient pairs: by hand, and against a loop over single weights."""

import json
import math

import numpy as np
import pytest
import torch

from rtl_plugin.diagnostics import interference_pairs
from rtl_plugin.diagnostics.interference_pairs import (
    PairFigures,
    PairSums,
    layer_sums,
    pair_figures,
    sums_by_layer,
)

Rows = list[list[float]]


def figures_of(masks: Rows, gradients: Rows) -> PairFigures:
    kept = [torch.tensor(mask).bool() for mask in masks]
    values = [torch.tensor(g)[mask] for g, mask in zip(gradients, kept, strict=True)]
    return pair_figures(layer_sums(kept, values))


@pytest.mark.parametrize(
    ("other", "cosine", "conflict"),
    [
        ([6.0, 8.0], 1.0, 0.0),
        ([-3.0, -4.0], -1.0, 1.0),
        ([-4.0, 3.0], 0.0, 0.5),
        ([0.0, -4.0], -0.8, 0.5),  # a weight without a gradient is in no conflict
    ],
)
def test_cosine_and_conflict_by_hand(other: list[float], cosine: float, conflict: float) -> None:
    found = figures_of([[1, 1], [1, 1]], [[3.0, 4.0], other])
    assert found.cosine[0, 1] == found.cosine[1, 0] == pytest.approx(cosine, abs=1e-15)
    assert found.conflict[0, 1] == found.conflict[1, 0] == conflict
    assert found.overlap.tolist() == [[2, 2], [2, 2]]
    np.testing.assert_allclose(np.diag(found.cosine), 1.0, atol=1e-15)


def test_parallel_gradients_are_never_more_than_parallel() -> None:
    for seed in range(50):
        row = torch.randn(7, generator=torch.Generator().manual_seed(seed)).double()
        found = pair_figures(layer_sums([None, None], [row, 3 * row]))
        assert found.cosine.max() <= 1.0
        np.testing.assert_allclose(found.cosine, 1.0)


def test_a_large_overlap_without_conflict_and_a_small_one_all_in_conflict() -> None:
    masks = [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1]]
    gradients = [[1.0, 1, 1, 1, 2, 9], [2.0, 2, 2, 2, 9, 2], [9.0, 9, 9, 9, -1, -1]]
    found = figures_of(masks, gradients)
    assert (found.overlap[0, 1], found.cosine[0, 1], found.conflict[0, 1]) == (4, 1.0, 0.0)
    assert (found.overlap[0, 2], found.cosine[0, 2], found.conflict[0, 2]) == (1, -1.0, 1.0)


def test_the_cosine_looks_at_the_overlap_alone() -> None:
    found = figures_of([[1, 1, 0], [0, 1, 1]], [[100.0, 2.0, 0.0], [0.0, 3.0, -100.0]])
    assert found.cosine[0, 1] == 1.0
    assert found.norm.tolist() == [math.hypot(100, 2), math.hypot(3, 100)]


def test_the_effect_is_not_symmetric_and_tells_who_hurts_whom() -> None:
    found = figures_of([[1, 1], [1, 0]], [[3.0, 4.0], [-1.0, 0.0]])
    # A step of length 1 along -(3, 4) / 5 moves the second weight's loss by +3/5; the second's own
    # step moves the first's loss by +3.
    assert found.effect.tolist() == [[-5.0, 0.6], [3.0, -1.0]]


def test_without_overlap_there_is_nothing_to_compare_and_no_effect() -> None:
    found = figures_of([[1, 0], [0, 1]], [[1.0, 0.0], [0.0, 1.0]])
    assert math.isnan(found.cosine[0, 1])
    assert math.isnan(found.conflict[0, 1])
    assert found.effect[0, 1] == 0.0
    assert math.copysign(1.0, found.effect[0, 1]) == 1.0  # -0.0 would read as a tiny gain


def test_a_ticket_without_gradient_has_no_direction() -> None:
    found = figures_of([[1, 1], [1, 1]], [[0.0, 0.0], [1.0, 1.0]])
    assert math.isnan(found.cosine[0, 1])
    assert found.conflict[0, 1] == 0.0
    assert math.isnan(found.effect[0, 1])
    assert found.effect[1, 0] == 0.0


def test_tiny_gradients_do_not_underflow() -> None:
    tiny = [torch.tensor([1e-100, 2e-100], dtype=torch.float64)] * 2
    assert pair_figures(layer_sums([None, None], tiny)).cosine[0, 1] == pytest.approx(1.0)


def slow_sums(masks: Rows, gradients: Rows) -> PairSums:
    """One weight and one pair at a time."""
    count = len(masks)
    result = PairSums.none(count)
    for j in range(count):
        for k in range(count):
            for i in range(len(masks[0])):
                if masks[j][i] and masks[k][i]:
                    a, b = gradients[j][i], gradients[k][i]
                    result.overlap[j, k] += 1
                    result.product[j, k] += a * b
                    result.square[j, k] += a * a
                    result.opposed[j, k] += a * b < 0
    return result


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_against_the_loop_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interference_pairs, "_BLOCK", block)
    generator = np.random.default_rng(3)
    masks = generator.random((4, 23)) < np.array([[0.2], [0.5], [0.9], [0.0]])
    gradients = generator.normal(size=(4, 23))
    gradients[1, :5] = 0
    tensors = [torch.from_numpy(g[m]) for g, m in zip(gradients, masks, strict=True)]
    found = layer_sums([torch.from_numpy(mask) for mask in masks], tensors)
    expected = slow_sums(masks.tolist(), gradients.tolist())
    for part in ("overlap", "product", "square", "opposed"):
        np.testing.assert_allclose(
            getattr(found, part), getattr(expected, part), rtol=1e-12, atol=1e-12, err_msg=part
        )


def test_layers_are_summed_apart_and_add_up() -> None:
    shapes = {"conv": (3, 2, 2), "empty": (0, 4), "scalar": ()}
    generator = torch.Generator().manual_seed(0)
    masks = [{n: torch.rand(s, generator=generator) < 0.6 for n, s in shapes.items()}] * 2
    gradients = [
        {n: torch.randn(int(m[n].sum()), generator=generator) for n in shapes} for m in masks
    ]
    layers = sums_by_layer(masks, gradients)
    assert list(layers) == list(shapes)
    joined = layer_sums(
        [torch.cat([m[n].reshape(-1) for n in shapes]) for m in masks],
        [torch.cat([g[n] for n in shapes]) for g in gradients],
    )
    total = layers["conv"] + layers["empty"] + layers["scalar"]
    np.testing.assert_allclose(total.product, joined.product, rtol=1e-12)
    np.testing.assert_array_equal(total.overlap, joined.overlap)
    assert math.isnan(pair_figures(layers["empty"]).cosine[0, 1])


def test_json_has_none_for_what_is_not_a_number() -> None:
    found = figures_of([[1, 0], [0, 1]], [[1.0, 0.0], [0.0, 2.0]]).to_json()
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == {
        "overlap": [[1, 0], [0, 1]],
        "cosine": [[1.0, None], [None, 1.0]],
        "conflict": [[0.0, None], [None, 0.0]],
        "effect": [[-1.0, 0.0], [0.0, -2.0]],
        "norm": [1.0, 2.0],
    }
