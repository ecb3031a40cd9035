"""Name similarity by vectors: cosine by hand, encoders of both kinds, bad vectors refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from rtl_plugin.diagnostics.name_similarity import embedding_similarity, sentence_similarity
from rtl_plugin.errors import InvalidArgument, InvalidGroups


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, np.float32, torch.bfloat16])
def test_cosine_by_hand(kind: Any) -> None:
    rows: Any = [[3.0, 4.0], [-4.0, 3.0], [-6.0, -8.0]]
    if kind is np.float32:
        rows = np.array(rows, kind)
    elif kind is torch.bfloat16:
        rows = torch.tensor(rows, dtype=kind)
    else:
        rows = kind(rows)
    found = embedding_similarity(rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[1, 0, -1], [0, 1, 0], [-1, 0, 1]], atol=1e-15)


def test_a_list_of_tensors_and_integers_will_do() -> None:
    vectors = [torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([1.0, 1.0])]
    assert embedding_similarity(vectors)[0, 1] == pytest.approx(math.sqrt(0.5))
    assert embedding_similarity([[1, 0], [1, 1]])[0, 1] == pytest.approx(math.sqrt(0.5))


def test_lengths_do_not_matter_however_large_or_small() -> None:
    rows = np.array([[1e300, 1e300], [1e-300, 1e-300], [1.0, 0.0]])
    found = embedding_similarity(rows)
    assert found[0, 1] == pytest.approx(1.0)
    assert found[1, 2] == pytest.approx(math.sqrt(0.5))


def test_the_result_is_exactly_symmetric_with_ones() -> None:
    found = embedding_similarity(np.random.default_rng(0).normal(size=(40, 7)))
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1.0)
    assert np.abs(found).max() <= 1.0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([1.0, 2.0], "one vector a name"),
        ([[[1.0]]], "one vector a name"),
        ([], "one vector a name"),
        ([[1.0, 2.0], [0.0, 0.0]], "row 1 holds"),
        ([[1.0, math.nan], [1.0, 0.0]], "row 0 holds"),
        ([[1.0, 2.0], [math.inf, 0.0]], "row 1 holds"),
        ([[1.0], [1.0, 2.0]], "rows of one length"),
        ([["a"], ["b"]], "expected real numbers"),
        ([[1j]], "expected real numbers"),
        (torch.tensor([[True]]), "expected real numbers"),
    ],
)
def test_bad_vectors(vectors: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        embedding_similarity(vectors)


class Encoder:
    """Callable like a module, but its texts go to ``encode``."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, features: Any) -> Any:
        raise TypeError("this takes features, not texts")

    def encode(self, texts: list[str]) -> Any:
        self.texts = texts
        return torch.tensor([[len(text), text.count(" ")] for text in texts]).float()


def test_an_encoder_object_sees_plain_words_in_the_template() -> None:
    encoder = Encoder()
    found = sentence_similarity(["maple_tree", "cat"], encoder, template="a photo of a {}")
    assert encoder.texts == ["a photo of a maple tree", "a photo of a cat"]
    first, other = np.array([23.0, 5.0]), np.array([16.0, 4.0])
    cosine = first @ other / np.linalg.norm(first) / np.linalg.norm(other)
    assert found[0, 1] == pytest.approx(cosine)


def test_bad_encoders() -> None:
    with pytest.raises(InvalidArgument, match=r"an array \[2, D\], got shape \(1, 2\)"):
        sentence_similarity(["a", "b"], lambda texts: [[1.0, 2.0]])
    with pytest.raises(InvalidArgument, match="encoder must be a function"):
        sentence_similarity(["a", "b"], 3)
    with pytest.raises(InvalidArgument, match="template must be"):
        sentence_similarity(["a", "b"], Encoder(), template="a photo")
    with pytest.raises(InvalidGroups, match="comes twice"):
        sentence_similarity(["a", "a"], Encoder())
    with pytest.raises(InvalidArgument, match="the one str"):
        sentence_similarity("ab", Encoder())
