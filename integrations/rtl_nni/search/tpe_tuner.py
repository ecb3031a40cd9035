"""NNI's TPE tuner, without the crashes that late results cause."""

import threading
from typing import Any

from rtl_nni.host import imported

_Base: Any = imported("nni.algorithms.hpo.tpe_tuner").TpeTuner


class TpeTuner(_Base):  # type: ignore[misc]
    """NNI's TPE, which also takes the result of a trial of whose end it was told before.

    NNI's dispatcher tells of results and of ends from two threads, so an end may overtake the
    result, or come while a proposal is made; and NNI 3.0 can tell an end under another trial's
    number (:func:`rtl_nni.next_parameters` avoids that). NNI's TPE then ends the experiment with a
    KeyError. Every proposal is NNI's.

    Args:
        optimize_mode: "maximize" or "minimize", as in NNI's.
        seed: as in NNI's.
        tpe_args: as in NNI's.

    Example:
        >>> tuner = TpeTuner("maximize", seed=0)
        >>> tuner.update_search_space({"rounds": {"_type": "randint", "_value": [2, 8]}})
        >>> params = tuner.generate_parameters(0)
        >>> tuner.trial_end(0, True)
        >>> tuner.receive_trial_result(0, params, 0.9)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._one_at_a_time = threading.Lock()

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
        """Propose parameters; NNI calls it.

        Args:
            parameter_id: the number of the proposal.
            kwargs: what NNI adds.

        Returns:
            Name -> value.
        """
        with self._one_at_a_time:
            return super().generate_parameters(parameter_id, **kwargs)

    def receive_trial_result(
        self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any
    ) -> None:
        """Learn from a finished trial; NNI calls it.

        Args:
            parameter_id: the number of the proposal.
            parameters: the proposal.
            value: its final result.
            kwargs: what NNI adds.
        """
        with self._one_at_a_time:
            self._running_params.setdefault(parameter_id, self._params[parameter_id])
            super().receive_trial_result(parameter_id, parameters, value, **kwargs)

    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Note that a trial has ended; NNI calls it.

        Args:
            parameter_id: the number of its proposal by NNI's records.
            success: whether it ran to its end.
            kwargs: what NNI adds.
        """
        with self._one_at_a_time:
            super().trial_end(parameter_id, success, **kwargs)
