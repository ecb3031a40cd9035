"""Global ranking: exact counts, ties by index, floors, against slow plain-Python references."""

import random
from collections.abc import Mapping

import pytest
import torch

from rtl_plugin.discovery.keep_top import (
    floor_counts,
    keep_top,
    select_top,
    select_top_reference,
)
from rtl_plugin.errors import InvalidArgument

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def plain_select(values: list[float], count: int) -> list[bool]:
    """The highest; among equals the lower index."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    return [i in set(order[: max(count, 0)]) for i in range(len(values))]


def plain_keep_top(
    scores: Mapping[str, list[float]],
    alive: Mapping[str, list[bool]],
    count: int,
    floors: Mapping[str, int],
) -> dict[str, list[bool]]:
    """First every tensor's floor, then the best of the rest, wherever they are."""
    ranked = sorted(
        ((name, i) for name in alive for i, living in enumerate(alive[name]) if living),
        key=lambda place: -scores[place[0]][place[1]],  # stable: ties stay in order
    )
    kept: set[tuple[str, int]] = set()
    for name in alive:
        kept.update([place for place in ranked if place[0] == name][: floors[name]])
    for place in ranked:
        if len(kept) < count:
            kept.add(place)
    return {name: [(name, i) in kept for i in range(len(alive[name]))] for name in alive}


def drawn(rng: random.Random, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Values with many ties, negative ones, both zeros and infinities among them."""
    pool = rng.choice(
        [[0.0, 1.0], [-1.0, -0.5, 0.5, 1.0, 2.0], [float("inf"), 1.0, -float("inf")], [-0.0, 0.0]]
    )
    few = [rng.choice(pool) for _ in range(size)]
    return torch.tensor([rng.gauss(0, 1) if rng.random() < 0.3 else v for v in few], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_select_top_is_its_reference_and_plain_python(dtype: torch.dtype) -> None:
    rng = random.Random(str(dtype))
    for _ in range(300):
        size = rng.randint(1, 12)
        values, count = drawn(rng, size, dtype), rng.randint(0, size)
        chosen = select_top(values, count)
        assert int(chosen.sum()) == count
        assert torch.equal(chosen, select_top_reference(values, count)), (values, count)
        assert chosen.tolist() == plain_select(values.tolist(), count), (values, count)


def test_select_top_on_many_values() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 50, (20_000,), generator=generator).float()
    for count in (1, 399, 10_000, 19_999):
        assert torch.equal(select_top(values, count), select_top_reference(values, count))


def test_among_equals_the_lower_index_wins() -> None:
    for select in (select_top, select_top_reference):
        assert select(torch.ones(5), 2).tolist() == [True, True, False, False, False]
        assert select(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), 3).tolist() == [
            True, True, False, True, False,
        ]  # fmt: skip
        assert select(torch.tensor([-0.0, 0.0]), 1).tolist() == [True, False]


@pytest.mark.parametrize("select", [select_top, select_top_reference])
def test_none_and_all(select: object) -> None:
    assert callable(select)
    assert select(torch.tensor([1.0, 2.0]), 0).tolist() == [False, False]
    assert select(torch.tensor([1.0, 2.0]), 2).tolist() == [True, True]
    assert select(torch.zeros(0), 0).tolist() == []


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_keep_top_is_its_plain_reference(dtype: torch.dtype) -> None:
    rng = random.Random(f"keep {dtype}")
    bound = 0
    for _ in range(200):
        shapes = {"c": (rng.randint(1, 3), 2), "a": (rng.randint(1, 7),), "b": (1, 1, 4)}
        scores = {n: drawn(rng, torch.Size(s).numel(), dtype).reshape(s) for n, s in shapes.items()}
        alive = {n: torch.tensor([rng.random() < 0.8 for _ in range(v.numel())]).reshape(v.shape)
                 for n, v in scores.items()}  # fmt: skip
        floors = {n: rng.randint(0, min(2, int(mask.sum()))) for n, mask in alive.items()}
        total = sum(int(mask.sum()) for mask in alive.values())
        count = rng.randint(sum(floors.values()), total)
        flat = {n: v.flatten().tolist() for n, v in scores.items()}
        living = {n: m.flatten().tolist() for n, m in alive.items()}
        expected = plain_keep_top(flat, living, count, floors)
        without = plain_keep_top(flat, living, count, dict.fromkeys(floors, 0))
        held = tuple(n for n in alive if sum(expected[n]) > sum(without[n]))
        for select in (select_top, select_top_reference):
            kept = keep_top(scores, alive, count, floors, select)
            assert {n: m.flatten().tolist() for n, m in kept.masks.items()} == expected
            assert {n: m.shape for n, m in kept.masks.items()} == {
                n: torch.Size(s) for n, s in shapes.items()
            }
            assert kept.at_floor == held
        bound += bool(held)
    assert bound > 20, "floors must bind now and then, or this test says little about them"


def test_the_dead_stay_dead_however_high_they_score() -> None:
    kept = keep_top({"w": torch.tensor([9.0, 1.0, 2.0])}, {"w": torch.tensor([0, 1, 1]).bool()},
                    1, {"w": 1})  # fmt: skip
    assert kept.masks["w"].tolist() == [False, False, True]


def test_ties_between_tensors_are_broken_by_their_order() -> None:
    alive = {"z": torch.ones(2).bool(), "a": torch.ones(2).bool()}
    kept = keep_top({n: torch.ones(2) for n in alive}, alive, 3, {})
    assert kept.masks["z"].tolist() == [True, True]
    assert kept.masks["a"].tolist() == [True, False]


def test_neither_scores_nor_masks_are_written_to() -> None:
    scores, alive = {"w": torch.tensor([3.0, 1.0])}, {"w": torch.ones(2).bool()}
    keep_top(scores, alive, 1, {"w": 1})
    assert scores["w"].tolist() == [3.0, 1.0]
    assert alive["w"].tolist() == [True, True]


def test_small_differences_in_float64_count() -> None:
    scores = {"w": torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)}
    kept = keep_top(scores, {"w": torch.ones(2).bool()}, 1, {})
    assert kept.masks["w"].tolist() == [False, True]


@pytest.mark.parametrize(("count", "floors"), [(3, {}), (1, {"a": 1, "b": 1})])
def test_an_impossible_count(count: int, floors: dict[str, int]) -> None:
    scores = {"a": torch.ones(1), "b": torch.ones(1)}
    alive = {name: torch.ones(1).bool() for name in scores}
    with pytest.raises(InvalidArgument, match=rf"cannot keep {count} of 2 survivors with floors"):
        keep_top(scores, alive, count, floors)


@pytest.mark.parametrize(
    ("size", "floor", "least"),
    [(200, 0.01, 2), (201, 0.01, 3), (50, 0.01, 1), (1, 0.01, 1), (200, 0.0, 0), (10, 0.3, 3),
     (100, 0.07, 7), (3, 0.999, 3)],
)  # fmt: skip
def test_floor_counts(size: int, floor: float, least: int) -> None:
    assert floor_counts({"w": (size,)}, floor) == {"w": least}


@pytest.mark.parametrize("floor", [-0.1, 1, 1.5, float("nan")])
def test_a_floor_out_of_range(floor: float) -> None:
    with pytest.raises(InvalidArgument, match=r"floor must be a fraction in \[0, 1\), got"):
        floor_counts({"w": (2,)}, floor)
