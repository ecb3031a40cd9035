"""NNI's TPE tuner, without the crashes that late results cause."""

import threading
from typing import Any

from rtl_nni.host import imported
from rtl_plugin.integration_api import InvalidArgument

_Base: Any = imported("nni.algorithms.hpo.tpe_tuner").TpeTuner


class TpeTuner(_Base):  # type: ignore[misc]
    """NNI's TPE, which also takes the result of a trial of whose end it was told before.

    NNI's dispatcher tells of results and of ends from two threads, so an end may overtake the
    result, or come while a proposal is made; and NNI 3.0 can tell an end under another trial's
    number (:func:`rtl_nni.next_parameters` avoids that). NNI's TPE then ends the experiment with a
    KeyError. Every proposal is NNI's.

    Args:
        optimize_mode: "maximize" or "minimize". It has no default: NNI's is to minimize, and
            the metrics of `run_trial` are better when higher.
        seed: as in NNI's.
        tpe_args: as in NNI's.

    Raises:
        InvalidArgument: `optimize_mode` is missing, or an argument is unknown or wrong.

    Example:
        >>> tuner = TpeTuner("maximize", seed=0)
        >>> tuner.update_search_space({"rounds": {"_type": "randint", "_value": [2, 8]}})
        >>> params = tuner.generate_parameters(0)
        >>> tuner.trial_end(0, True)
        >>> tuner.receive_trial_result(0, params, 0.9)
    """

    def __init__(
        self,
        optimize_mode: str | None = None,
        seed: int | None = None,
        tpe_args: dict[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            raise InvalidArgument(
                f"TpeTuner has no class argument {name!r}: it takes optimize_mode, seed, tpe_args"
            )
        if optimize_mode not in ("maximize", "minimize"):
            raise InvalidArgument(
                'TpeTuner needs optimize_mode="maximize" (accuracy, say) or "minimize" (a loss), '
                f"got {optimize_mode!r}; in a configuration it is one of tuner.class_args"
            )
        try:
            super().__init__(optimize_mode, seed, tpe_args)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidArgument(
                f"NNI's TPE does not accept seed={seed!r}, tpe_args={tpe_args!r}: {error}"
            ) from error
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

    def import_data(self, data: Any) -> None:
        """Learn from trials of before a resume; NNI calls it.

        Args:
            data: their parameters and final results, as NNI packs them.
        """
        with self._one_at_a_time:
            super().import_data(data)
