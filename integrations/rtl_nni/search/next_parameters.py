"""A trial's own parameters, also where NNI would hand it another trial's."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from rtl_nni.host import imported
from rtl_nni.search.failures import ExperimentFailed
from rtl_plugin.integration_api import InvalidArgument

_LOOK_SECONDS = 0.2
_ANSWER_SECONDS = 20.0  # as NNI's own client


def next_parameters(patience: float = 60.0) -> Mapping[str, Any]:
    """The parameters that NNI has recorded for this trial; in place of nni.get_next_parameter().

    NNI 3.0's local and remote services hand the next parameters to whichever trial asks first, but
    record them for the trial that was submitted first. So trials that start together swap
    parameters now and then, and after one that died before it asked all later trials have another
    one's. On this machine this takes the trial's own from the manager's records. Elsewhere it is
    nni.get_next_parameter(): only the remote service has the same fault there. All trials of an
    experiment must use the same of the two.

    Args:
        patience: seconds to wait for the record, above 0.

    Returns:
        Name -> value. Without NNI's manager what NNI gives then, no parameters.

    Raises:
        InvalidArgument: ``patience`` is not above 0, or NNI has no parameters left.
        ExperimentFailed: the manager has not told them in time.
        MissingExtra: NNI is not installed.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # NNI's, that no manager runs
        ...     dict(next_parameters())
        {}
    """
    if not isinstance(patience, int | float) or not patience > 0:
        raise InvalidArgument(f"patience must be a number of seconds above 0, got {patience!r}")
    nni = imported("nni")
    url = os.environ.get("NNI_TRIAL_COMMAND_CHANNEL", "")
    if os.environ.get("NNI_PLATFORM") == "local" and "/env/" in url:
        _take_from_records(nni, url, patience)
    params = nni.get_next_parameter()
    if params is None:
        raise InvalidArgument("NNI's manager has no parameters for this trial; see its log")
    given: Mapping[str, Any] = params
    return given


def _take_from_records(nni: Any, url: str, patience: float) -> None:
    """Let NNI's own call find the record, so that metrics carry the right parameters' number."""
    channel = imported("nni.runtime.trial_command_channel")
    v3 = imported("nni.runtime.trial_command_channel.v3")
    record = nni.load(_recorded(url, patience))

    class FromRecords(v3.TrialCommandChannelV3):  # type: ignore[misc, name-defined]
        def receive_parameter(self) -> Any:
            return record

    channel.set_default_trial_command_channel(FromRecords(url))


def _recorded(channel_url: str, patience: float) -> str:
    """What the manager has recorded as this trial's parameters, packed by NNI."""
    server, _, path = channel_url.partition("/env/")
    url = f"{server}/api/v1/nni/trial-jobs/{path.rpartition('/')[2]}"
    deadline = time.monotonic() + patience
    while True:
        last, job = _answer(url)
        recorded = job.get("hyperParameters")
        if recorded:
            return str(recorded[0])
        if time.monotonic() >= deadline:
            raise ExperimentFailed(
                f"NNI's manager has not told this trial's parameters within {patience} seconds: "
                f"{url} answers {last}"
            )
        time.sleep(_LOOK_SECONDS)


def _answer(url: str) -> tuple[str, Mapping[str, Any]]:
    """An answer in words and as a mapping, empty where the manager does not know the trial yet."""
    # The manager is on this machine; a proxy that the environment names is for others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_SECONDS) as response:
            text = response.read().decode()
    except OSError as error:  # that of urllib too
        return repr(error), {}
    try:
        job = json.loads(text)  # nothing at all where it does not know the trial
    except ValueError:
        return repr(text[:200]), {}
    return repr(text[:200]), job if isinstance(job, dict) else {}
