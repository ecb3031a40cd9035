"""What can go wrong with an experiment as a whole."""

from rtl_plugin.integration_api import RtlError


class ExperimentFailed(RtlError, RuntimeError):
    """An NNI experiment ended without a result, or something of it could not be stopped."""


class NotStartedInTime(ExperimentFailed):
    """NNI gave up on a part of an experiment that was still starting; nothing has run yet."""
