"""What earlier trials say about how far a later one can go."""

from typing import Any

import pytest

from rtl_nni.search.known_collapses import KnownCollapses
from rtl_plugin.errors import InvalidArgument


def known(least: int, collapsed: list[float], survived: list[float]) -> KnownCollapses:
    made = KnownCollapses(least)
    for sparsity in collapsed:
        made.collapsed(sparsity)
    for sparsity in survived:
        made.survived(sparsity)
    return made


@pytest.mark.parametrize(
    ("least", "collapsed", "survived", "doomed"),
    [
        (1, [], [], []),
        (1, [0.8], [], [0.8, 0.9, 0.99]),
        (1, [0.8, 0.9], [], [0.9, 0.99]),  # as far as all that collapsed
        (1, [0.9, 0.8], [], [0.9, 0.99]),
        (2, [0.8], [], []),  # too few of them
        (2, [0.8, 0.7], [], [0.8, 0.9, 0.99]),
        (3, [0.8, 0.8], [], []),
        (1, [0.8], [0.7], [0.8, 0.9, 0.99]),
        (1, [0.8], [0.8], [0.9, 0.99]),  # one survived as far
        (1, [0.8], [0.9], [0.99]),
        (1, [0.8], [0.9, 0.6], [0.99]),
        (1, [0.8], [0.99], []),
        (0, [0.8] * 9, [], []),  # says nothing ever
    ],
)
def test_doomed_are_as_sparse_as_all_collapses_and_sparser_than_all_survivors(
    least: int, collapsed: list[float], survived: list[float], doomed: list[float]
) -> None:
    made = known(least, collapsed, survived)
    assert [target for target in (0.6, 0.7, 0.8, 0.9, 0.99) if made.dooms(target)] == doomed


def test_one_weight_more_or_less_is_the_same_sparsity() -> None:
    """A target is rounded to a whole number of weights, up or down."""
    thousandth = 1e-3
    collapsed = known(1, [0.8004], [])
    assert not collapsed.dooms(0.8)
    assert collapsed.dooms(0.8, thousandth)
    assert not collapsed.dooms(0.799, thousandth)
    survived = known(1, [0.7], [0.7996])
    assert survived.dooms(0.8)
    assert not survived.dooms(0.8, thousandth)
    assert survived.dooms(0.801, thousandth)


@pytest.mark.parametrize("wrong", [-1, 1.5, "2", None, True])
def test_a_number_of_collapses_is_a_whole_number(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="remember must be"):
        KnownCollapses(wrong)


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_sparsity_lies_between_0_and_1(wrong: float) -> None:
    for told in (KnownCollapses(1).collapsed, KnownCollapses(1).survived):
        with pytest.raises(InvalidArgument, match=r"a sparsity lies in \(0, 1\)"):
            told(wrong)


def test_it_says_what_is_known() -> None:
    assert str(known(1, [0.9, 0.987654], [0.5])) == (
        "2 such trials before it collapsed, at up to 98.77% sparsity"
    )
