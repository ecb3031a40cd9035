"""rtl_nni.TpeTuner: NNI's proposals, without NNI's crashes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("nni", reason="NNI cannot be imported here")

from nni.algorithms.hpo.tpe_tuner import TpeTuner as Theirs

from rtl_nni.search.tpe_tuner import TpeTuner
from rtl_plugin.errors import InvalidArgument

SPACE = {
    "rate": {"_type": "loguniform", "_value": [1e-4, 1.0]},
    "rounds": {"_type": "randint", "_value": [1, 9]},
    "kind": {"_type": "choice", "_value": ["a", "b", "c"]},
}
ARGS = {"n_startup_jobs": 4, "constant_liar_type": "best"}


def tuner_of(kind: Callable[..., Any], seed: int = 3) -> Any:
    tuner = kind("maximize", seed=seed, tpe_args=dict(ARGS))
    tuner.update_search_space(SPACE)
    return tuner


def value_of(parameters: Any) -> float:
    return float(parameters["rounds"] - abs(parameters["rate"] - 0.1))


def proposals(tuner: Any, end_first: bool = False) -> list[Any]:
    """Two trials at a time; every fourth is stopped and has no result."""
    made = [tuner.generate_parameters(0)]
    for number in range(1, 24):
        made.append(tuner.generate_parameters(number))
        done = number - 1
        if end_first:
            tuner.trial_end(done, done % 4 != 3)
        if done % 4 != 3:
            tuner.receive_trial_result(done, made[done], value_of(made[done]))
        if not end_first:
            tuner.trial_end(done, done % 4 != 3)
    return made


def test_proposals_are_nnis() -> None:
    ours = proposals(tuner_of(TpeTuner))
    assert ours == proposals(tuner_of(Theirs))
    assert ours != proposals(tuner_of(TpeTuner, seed=4))


def test_a_result_after_the_end_counts_the_same() -> None:
    with pytest.raises(KeyError):
        proposals(tuner_of(Theirs), end_first=True)
    assert proposals(tuner_of(TpeTuner), end_first=True) == proposals(tuner_of(Theirs))


def test_swapped_numbers_leave_nothing_behind() -> None:
    """NNI recorded 0 for the trial that ran 1, and 1 for the one that ran 0."""
    swapped, right = tuner_of(TpeTuner), tuner_of(TpeTuner)
    for tuner in (swapped, right):
        assert tuner.generate_parameters(0) != tuner.generate_parameters(1)
    swapped.trial_end(0, False)  # that with 1 is stopped; "best" lies about it until ...
    swapped.receive_trial_result(0, None, 0.5)
    swapped.trial_end(1, True)  # ... that with 0 has ended
    right.trial_end(1, False)
    right.receive_trial_result(0, None, 0.5)
    right.trial_end(0, True)
    assert swapped._running_params == right._running_params == {}
    later = range(2, 12)
    assert [swapped.generate_parameters(n) for n in later] == [
        right.generate_parameters(n) for n in later
    ]


class _Slow(dict[str, Any]):
    """Parameters whose reading lets another thread in."""

    def __init__(self, before: Callable[[], None], parameters: Any) -> None:
        super().__init__(parameters)
        self.before = before

    def items(self) -> Any:
        self.before()
        return super().items()


def test_an_end_waits_until_a_proposal_is_made() -> None:
    """NNI's dispatcher tells of ends from a thread of their own."""

    def proposed_while_one_ends(kind: Callable[..., Any]) -> Any:
        tuner = tuner_of(kind)
        first = tuner.generate_parameters(0)
        second = tuner.generate_parameters(1)
        other = threading.Thread(target=tuner.trial_end, args=(1, False))

        def end() -> None:
            if not other.ident:
                other.start()
                other.join(timeout=0.3)

        tuner._running_params[0] = _Slow(end, tuner._running_params[0])
        try:
            third = tuner.generate_parameters(2)
        finally:
            other.join(timeout=10)
        assert set(tuner._running_params) == {0, 2}
        return first, second, third

    with pytest.raises(RuntimeError, match="changed size during iteration"):
        proposed_while_one_ends(Theirs)
    assert len(proposed_while_one_ends(TpeTuner)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'needs optimize_mode="maximize" .* got None'),
        ({"optimize_mode": "max"}, "got 'max'"),
        ({"optimise_mode": "maximize"}, "no class argument 'optimise_mode': it takes optimize_m"),
        ({"optimize_mode": "minimize", "seed": "x"}, "does not accept seed='x'"),
        ({"optimize_mode": "minimize", "seed": -1}, "does not accept seed=-1"),
        ({"optimize_mode": "maximize", "tpe_args": {"gama": 1}}, "does not accept .*gama"),
        ({"optimize_mode": "maximize", "tpe_args": {"constant_liar_type": "no"}}, "accept .*'no'"),
    ],
)
def test_class_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        TpeTuner(**arguments)


def test_earlier_trials_count_as_in_nnis() -> None:
    data = [{"parameter": {"rate": 0.1, "rounds": r, "kind": "a"}, "value": r} for r in range(1, 7)]
    ours, theirs = tuner_of(TpeTuner), tuner_of(Theirs)
    for tuner in (ours, theirs):
        tuner.import_data(data)
    assert proposals(ours) == proposals(theirs) != proposals(tuner_of(Theirs))


def test_earlier_trials_wait_until_a_proposal_is_made() -> None:
    tuner = tuner_of(TpeTuner)
    other = threading.Thread(target=tuner.import_data, args=([],))
    with tuner._one_at_a_time:
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
    other.join(timeout=10)
    assert not other.is_alive()
