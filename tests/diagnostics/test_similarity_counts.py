"""Counting shared weights: packed and bool masks, blocks, threads, old numpy, hostile tickets."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import rtl_plugin as rtl
from rtl_plugin.diagnostics import mask_counts
from rtl_plugin.diagnostics.mask_counts import count_masks, layer_counts
from rtl_plugin.diagnostics.similarity import layer_similarity, similarity_matrix
from rtl_plugin.errors import InvalidArgument, InvalidTicket
from rtl_plugin.packed_masks import PackedMasks

Masks = Mapping[str, torch.Tensor]

# Word and octet borders, a scalar, nothing, and more than a word a row.
SHAPES = {
    "odd": (5, 13), "below": (63,), "word": (64,), "above": (65,), "long": (3, 211),
    "scalar": (), "none": (0, 4),
}  # fmt: skip


def random_tickets(count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            name: torch.rand(shape, generator=generator) < (k + 1) / (count + 1)
            for name, shape in SHAPES.items()
        }
        for k in range(count)
    ]


def by_products(tickets: list[Any]) -> dict[str, np.ndarray]:
    """The obvious way: a product of float64 matrices."""
    result = {}
    for name in tickets[0]:
        matrix = torch.stack([ticket[name].reshape(-1).cpu() for ticket in tickets]).double()
        result[name] = (matrix @ matrix.T).numpy().astype(np.int64)
    return result


def assert_right(tickets: list[Any], threads: int | None = None) -> None:
    expected, found = by_products(tickets), count_masks(tickets, threads=threads)
    assert found.tickets == len(tickets)
    assert [layer.name for layer in found.layers] == list(expected)
    for layer in found.layers:
        assert layer.size == tickets[0][layer.name].numel(), layer.name
        assert layer.shared.dtype == np.int64
        np.testing.assert_array_equal(layer.shared, expected[layer.name], err_msg=layer.name)


def packed(tickets: list[dict[str, torch.Tensor]]) -> list[Masks]:
    return [PackedMasks(ticket) for ticket in tickets]


FORMS: dict[str, Callable[[list[dict[str, torch.Tensor]]], list[Any]]] = {
    "bool": lambda tickets: tickets,
    "packed": packed,
    "packed and bool": lambda tickets: [*packed(tickets[:2]), *tickets[2:]],
    "bool and packed": lambda tickets: [*tickets[:2], *packed(tickets[2:])],
}


@pytest.mark.parametrize("form", FORMS)
def test_counts_are_those_of_a_float_product(form: str) -> None:
    assert_right(FORMS[form](random_tickets(6)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("words", "rows"), [(1, 1), (3, 2), (2, 100), (64, 4)])
def test_blocks_and_threads_change_nothing(
    form: str, threads: int, words: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_counts, "_BLOCK_WORDS", words)
    monkeypatch.setattr(mask_counts, "_BLOCK_ROWS", rows)
    monkeypatch.setattr(mask_counts, "_WORTH_THREADS", 0)
    assert_right(FORMS[form](random_tickets(7)), threads)


def test_layers_longer_than_a_block_of_the_real_size() -> None:
    size = 64 * mask_counts._BLOCK_WORDS + 1
    assert_right([{"w": torch.rand(size) < d} for d in (0.2, 1.1, 0.9)])


def test_more_tickets_than_a_block_has_rows() -> None:
    torch.manual_seed(0)
    assert_right([{"w": torch.rand(100) < 0.3} for _ in range(300)])


def test_full_words_do_not_overflow_the_counts_of_a_block() -> None:
    size = 64 * mask_counts._BLOCK_WORDS
    counts = count_masks([{"w": torch.ones(size, dtype=torch.bool)}] * 2)
    assert counts.layers[0].shared.tolist() == [[size, size], [size, size]]


def test_without_bitwise_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets = random_tickets(5)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert_right(tickets)
    assert_right(packed(tickets))


def test_bits_of_words_by_halves() -> None:
    words = np.array([0, 1, 2**63, 2**64 - 1, 0x8040_2010_0804_0201, 0xFFFF], dtype=np.uint64)
    words = np.concatenate([words, np.random.default_rng(0).integers(0, 2**64, 500, np.uint64)])
    expected = [int(word).bit_count() for word in words]
    found = np.empty(words.shape, np.uint8)
    mask_counts._count_by_halves(words, found)
    assert found.tolist() == expected
    found[:] = 0
    mask_counts._bit_counter()(words, found)
    assert found.tolist() == expected


def test_threads_are_torchs_and_only_for_work_that_is_worth_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    given: list[int] = []

    class Recording(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

        def map(self, *arguments: Any, **keywords: Any) -> Any:
            given.append(len(arguments[1]))
            return super().map(*arguments, **keywords)

    monkeypatch.setattr(mask_counts, "ThreadPoolExecutor", Recording)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    tickets = [{"w": torch.ones(64 * 32, dtype=torch.bool)}] * 4
    count_masks(tickets)
    assert (asked, given) == ([5], [])
    monkeypatch.setattr(mask_counts, "_WORTH_THREADS", 4 * 4 * 32 // 2)
    count_masks(tickets)
    assert (asked, given) == ([5, 5], [5])
    count_masks(tickets, threads=2)
    assert (asked, given) == ([5, 5, 2], [5, 2])


def test_packed_masks_that_tell_their_shape_are_not_unpacked() -> None:
    class Sealed(PackedMasks):
        def shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._shapes[name])

        def __getitem__(self, name: str) -> torch.Tensor:
            raise AssertionError(f"{name} was unpacked")

    tickets = random_tickets(4)
    sealed = [Sealed(ticket) for ticket in tickets]
    expected = by_products(tickets)
    for layer in layer_counts(sealed):
        np.testing.assert_array_equal(layer.shared, expected[layer.name])
        assert layer.size == tickets[0][layer.name].numel()


def test_a_layer_is_looked_at_when_its_turn_comes_and_once_a_ticket() -> None:
    looks: list[str] = []

    class Looked(Mapping[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            looks.append(name)
            return torch.tensor([True])

        def __iter__(self) -> Iterator[str]:
            return iter("ab")

        def __len__(self) -> int:
            return 2

    layers = layer_counts([Looked(), Looked()])
    next(layers)
    assert looks == ["a", "a"]
    next(layers)
    assert looks == ["a", "a", "b", "b"]


def test_one_count_serves_every_similarity() -> None:
    tickets = random_tickets(4)
    counts = count_masks(tickets)
    for excess in (False, True):
        np.testing.assert_array_equal(
            similarity_matrix(counts, excess=excess), similarity_matrix(tickets, excess=excess)
        )
        layers = layer_similarity(counts, excess=excess)
        assert list(layers) == list(SHAPES)
        for name, expected in layer_similarity(tickets, excess=excess).items():
            np.testing.assert_array_equal(layers[name], expected)


def test_a_packed_set_has_the_similarity_of_the_set() -> None:
    tickets = rtl.TicketSet([rtl.Ticket(f"t{k}", m) for k, m in enumerate(random_tickets(4))])
    lean = tickets.packed()
    assert all(isinstance(ticket.masks, PackedMasks) for ticket in lean.values())
    np.testing.assert_array_equal(lean.similarity(), tickets.similarity())
    layers = lean.similarity(per_layer=True, excess=True)
    expected = tickets.similarity(per_layer=True, excess=True)
    assert isinstance(layers, dict)
    assert isinstance(expected, dict)
    for name in expected:
        np.testing.assert_array_equal(layers[name], expected[name])


@pytest.mark.gpu
def test_masks_on_a_gpu() -> None:
    tickets = random_tickets(3)
    assert_right([{name: mask.cuda() for name, mask in ticket.items()} for ticket in tickets])


def test_identical_tickets_are_alike_and_one_ticket_is_like_itself() -> None:
    ticket = random_tickets(1)[0]
    np.testing.assert_array_equal(similarity_matrix([ticket] * 3), np.ones((3, 3)))
    np.testing.assert_array_equal(similarity_matrix([ticket]), [[1.0]])


@pytest.mark.parametrize("form", ["bool", "packed"])
def test_other_names_are_refused(form: str) -> None:
    mask = torch.tensor([True, False])
    for first, second, message in (
        ({"a": mask}, {"a": mask, "b": mask}, "ticket 1 has 'b' and ticket 0 does not"),
        ({"a": mask, "b": mask}, {"a": mask}, "ticket 0 has 'b' and ticket 1 does not"),
    ):
        with pytest.raises(InvalidTicket, match=message):
            similarity_matrix(FORMS[form]([first, second]))


@pytest.mark.parametrize("form", ["bool", "packed"])
@pytest.mark.parametrize("other", [(4, 3), (12,), (3, 5), (3, 4, 1)])
def test_other_shapes_are_refused(form: str, other: tuple[int, ...]) -> None:
    first, second = ({"a": torch.ones(s, dtype=torch.bool)} for s in ((3, 4), other))
    with pytest.raises(InvalidTicket, match=r"'a' has \[3, 4\] in ticket 0 and .* in ticket 2"):
        layer_similarity(FORMS[form]([first, first, second]))


@pytest.mark.parametrize("mask", [torch.ones(2), torch.ones(2, dtype=torch.uint8), [True, False]])
def test_masks_that_are_not_bool_are_refused(mask: Any) -> None:
    good = {"a": torch.tensor([True, False])}
    with pytest.raises(InvalidTicket, match=r"expected torch\.bool masks, got .* of ticket 1"):
        similarity_matrix([good, {"a": mask}])


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_that_are_none_are_refused(threads: Any) -> None:
    with pytest.raises(InvalidArgument, match="threads must be a whole number"):
        count_masks(random_tickets(2), threads=threads)
