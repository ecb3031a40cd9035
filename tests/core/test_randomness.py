"""Random streams: forked from the caller's, named by what they are for, restored afterwards."""

import random
import re

import numpy as np
import pytest
import torch

from rtl_plugin.randomness import RandomStream, derived_seed, forked, seed_everything


def draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def draw_with_torch_distributions() -> float:
    return torch.normal(0.0, 1.0, (3,)).sum().item()


def test_a_seed_depends_on_every_part_and_on_their_order() -> None:
    calls = [
        (0, "discover", 1, "a"),
        (1, "discover", 1, "a"),
        (0, "retrain", 1, "a"),
        (0, "discover", 2, "a"),
        (0, "discover", 1, "b"),
        (0, 1, "discover", "a"),
        (0, "discover", 1),
        (0, "discover", "1", "a"),
        (0, "discover", 1, "a", ""),
    ]
    seeds = [derived_seed(*parts) for parts in calls]
    assert len(set(seeds)) == len(calls)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(*calls[0]) == seeds[0]


def test_a_seed_is_the_same_everywhere() -> None:
    # Another value would make a run that was begun with an older release resume differently.
    assert derived_seed(3, "loader", 1, "ä") == 3689698270180926298


def test_all_three_generators_are_seeded() -> None:
    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert all(one != other for one, other in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32 + 5, 2**63 - 1])
def test_every_derived_seed_can_be_used(seed: int) -> None:
    with forked(seed):
        first = draw()
    with forked(seed):
        assert draw() == first


def test_a_fork_is_its_own_stream_and_leaves_the_caller_s_alone() -> None:
    seed_everything(1)
    draw()
    expected = [draw() for _ in range(3)]
    seed_everything(1)
    draw()
    with forked(9):
        inside = draw()
    assert draw() == expected[0]
    with pytest.raises(RuntimeError, match=re.escape(f"stop at {inside}")), forked(9):
        raise RuntimeError(f"stop at {draw()}")
    assert [draw(), draw()] == expected[1:]


def test_forks_nest() -> None:
    with forked(1):
        first, second = draw(), draw()
    with forked(1):
        assert draw() == first
        with forked(2):
            draw()
        assert draw() == second


def test_a_fork_leaves_no_seed_behind_for_a_cuda_that_starts_later() -> None:
    # Before CUDA starts, torch only notes the seed, in a place that no fork restores.
    if torch.cuda.is_initialized():
        pytest.skip("CUDA has started in this process")
    torch.manual_seed(77)
    before = [id(call[0]) for call in torch.cuda._lazy_seed_tracker.get_calls() if call]
    with forked(9):
        torch.rand(1)
    after = [id(call[0]) for call in torch.cuda._lazy_seed_tracker.get_calls() if call]
    assert after == before


def test_a_stream_goes_on_where_it_was_left() -> None:
    with forked(4):
        expected = [draw() for _ in range(4)]
    stream = RandomStream(4)
    seed_everything(0)
    callers = [draw() for _ in range(3)]
    seed_everything(0)
    got = []
    for own in callers:
        with stream:
            got.append(draw())
        assert draw() == own
    with stream:
        got.append(draw())
    assert got == expected


def test_two_streams_do_not_shift_each_other() -> None:
    with forked(1):
        alone = [draw() for _ in range(3)]
    one, two = RandomStream(1), RandomStream(2)
    got = []
    for count in range(3):
        with one:
            got.append(draw())
        with two:
            for _ in range(count):
                draw_with_torch_distributions()
    assert got == alone


def test_a_stream_restores_after_an_exception() -> None:
    stream = RandomStream(1)
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with pytest.raises(RuntimeError, match="stop at"), stream:
        raise RuntimeError(f"stop at {draw()}")
    assert draw() == expected


@pytest.mark.gpu
def test_cuda_streams_are_forked_too() -> None:
    torch.zeros(1, device="cuda")
    torch.cuda.manual_seed(0)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(0)
    with forked(5):
        inside = torch.rand(3, device="cuda")
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    with forked(5):
        assert torch.equal(torch.rand(3, device="cuda"), inside)
