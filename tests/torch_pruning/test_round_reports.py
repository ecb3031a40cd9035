"""What a round says it did, and when having done nothing is an error."""

import pytest

from rtl_plugin.errors import InvalidArgument, PruningFailed, UnknownTicket
from tests.torch_pruning.setups import pruner_of, run_all, trained_pruner
from tests.torch_pruning.zoo import CONV_BN, ZOO


def test_reports() -> None:
    model = CONV_BN.build()
    pruner = trained_pruner(CONV_BN, model, iterative_steps=2, pruning_ratio=0.5)
    first, second = pruner.step(), pruner.step()
    assert pruner.reports == [first, second]
    assert [first.round, second.round] == [1, 2]
    dense = sum(p.numel() for p in model.parameters())
    for name in "ab":
        assert first[name].widths == {"parts.0": (6, 8), "parts.3": (9, 12)}
        row = second[name]
        assert row.widths == {"parts.0": (4, 8), "parts.3": (6, 12)}
        assert (row.asked, row.achieved, row.dense_parameters) == (0.5, 0.5, dense)
        assert row.parameters == sum(p.numel() for p in pruner.compact(name).parameters())
        assert (row.note, row.left_whole, row.batches) == ("", (), 0)
        assert row.loss is not None
        assert row.loss > 0
        assert set(row.seconds) == {"train", "rank and cut", "check"}
        assert first[name].asked == first[name].achieved == 0.25
    lines = str(second).splitlines()
    assert lines[0] == "round 2: channels removed (asked and achieved), parameters left"
    assert lines[3].split()[:3] == ["a", "0.500", "0.500"]
    assert f"{row.parameters / dense:.1%}" in lines[4]
    history = pruner.tickets.history
    assert [(entry["round"], entry["group"]) for entry in history] == [
        (1, "a"), (1, "b"), (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_parameters_count_what_is_cut() -> None:
    for net in ZOO:
        pruner = run_all(pruner_of(net, net.build(), iterative_steps=2))
        for name in "ab":
            small = pruner.compact(name)
            assert pruner.reports[-1][name].parameters == sum(p.numel() for p in small.parameters())


def test_a_step_that_cuts_nothing_is_an_error() -> None:
    pruner = pruner_of(CONV_BN, CONV_BN.build(), pruning_ratio=0.05)
    pruner.step()  # one of twelve channels
    whole = pruner_of(CONV_BN, CONV_BN.build(), lambda group: None, pruning_ratio=0.5)
    with pytest.raises(PruningFailed, match=r"group 'a', round 1: nothing was cut, 0.0% .* 50.0%"):
        whole.step()
    with pytest.raises(InvalidArgument, match="there are no tickets yet: call step"):
        _ = whole.tickets


def test_asking_for_nothing_is_an_error() -> None:
    model = CONV_BN.build()
    for asked in ({"pruning_ratio": 0.0}, {"pruning_ratio_dict": {model.parts: 0.0}}):
        with pytest.raises(InvalidArgument, match="nothing is asked for: pruning_ratio is 0"):
            pruner_of(CONV_BN, model, **asked)
    with pytest.raises(InvalidArgument, match=r"asks 0\.5 of Linear, of which nothing can be cut"):
        pruner_of(CONV_BN, model, pruning_ratio_dict={model.head: 0.5})


@pytest.mark.parametrize("name", ["own ratio", "cap"])
def test_rounds_that_the_host_makes_without_cutting(name: str) -> None:
    model = CONV_BN.build()
    keywords = {
        "own ratio": {"pruning_ratio_dict": {model.parts: 0.1}, "iterative_steps": 5},
        "cap": {"pruning_ratio": 0.5, "max_pruning_ratio": 0.3, "iterative_steps": 4},
    }[name]
    pruner = run_all(pruner_of(CONV_BN, model, **keywords))
    rows = [report["a"] for report in pruner.reports]
    assert rows[-1].asked == pytest.approx(0.1 if name == "own ratio" else 0.3)
    assert rows[-1].achieved >= rows[-1].asked
    assert any(row.note for row in rows)


def test_rounding_may_have_removed_as_much_before() -> None:
    pruner = pruner_of(
        CONV_BN, CONV_BN.build(), pruning_ratio=0.5, round_to=4, iterative_steps=4
    )  # fmt: skip
    run_all(pruner)
    assert pruner.reports[0]["a"].widths == {"parts.0": (4, 8), "parts.3": (8, 12)}
    notes = [report["a"].note for report in pruner.reports]
    assert notes[0] == ""
    assert "nothing cut: as much was removed before" in notes
    assert [r["a"].achieved >= r["a"].asked for r in pruner.reports] == [True] * 4


def test_a_group_that_is_not_there() -> None:
    report = pruner_of(CONV_BN, CONV_BN.build()).step()
    with pytest.raises(UnknownTicket, match="unknown group 'c'; this round had 'a', 'b'"):
        report["c"]
