"""An experiment's configuration, read and checked before anything is started."""

import importlib
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_plugin.integration_api import InvalidArgument, MissingFile

# NNI's own list of the services whose machines call back on a second port.
_TWO_PORTS = {"hybrid", "remote", "openpai", "kubeflow", "frameworkcontroller", "adl"}


def loaded(config: Any) -> Any:
    """The configuration itself, or what a YAML file of NNI says.

    Args:
        config: an ExperimentConfig, or the path of a YAML (or JSON) file with NNI's own keys.
            Relative paths in it count from the file's folder, as NNI documents.

    Returns:
        The ExperimentConfig.

    Raises:
        MissingFile: there is no such file.
        InvalidArgument: it is no configuration, or holds a key that NNI does not know.

    Example:
        >>> loaded("no-such-file.yml")
        Traceback (most recent call last):
        rtl_plugin.errors.MissingFile: there is no configuration file no-such-file.yml
    """
    nni_config = imported("nni.experiment.config")
    if isinstance(config, nni_config.ExperimentConfig):
        return config
    if not isinstance(config, (str, Path)):
        raise InvalidArgument(
            "config must be an nni.experiment.ExperimentConfig or the path of an NNI YAML file, "
            f"got {type(config).__name__}"
        )
    path = Path(config)
    if not path.is_file():
        raise MissingFile(f"there is no configuration file {config}")
    with _host_errors(f"the configuration file {config}"):
        try:
            # Absolute, so that a later change of the working folder moves no relative path.
            return nni_config.ExperimentConfig.load(path.absolute())
        finally:
            # A file that NNI refuses stays the base of all later paths otherwise.
            imported("nni.experiment.config.utils").unset_base_path()


def checked(config: Any) -> Any:
    """A configuration with every path absolute and every field of the right type.

    Args:
        config: an ExperimentConfig; it is left as it is.

    Returns:
        NNI's canonical copy of it.

    Raises:
        InvalidArgument: something is missing or wrong; the message says what to set.

    Example:
        >>> from nni.experiment import ExperimentConfig
        >>> checked(ExperimentConfig("local", trial_command="python trial.py"))
        Traceback (most recent call last):
        rtl_plugin.errors.InvalidArgument: the experiment has no tuner: set config.tuner.name ...
    """
    _check_services(config)
    _check_tuner(config)
    _check_end(config)
    with _host_errors("the experiment's configuration"):
        canonical = config.canonical_copy()
    _check_algorithms(canonical)
    return canonical


def folder_of(canonical: Any, experiment_id: str) -> Path:
    """The folder that NNI keeps an experiment in.

    Args:
        canonical: a checked configuration.
        experiment_id: the experiment's id.

    Returns:
        The absolute path.
    """
    return Path(canonical.experiment_working_directory) / experiment_id


def number_of_ports(canonical: Any) -> int:
    """How many ports in a row NNI listens on: 2 for services on other machines, else 1."""
    service = canonical.training_service
    platform = "hybrid" if isinstance(service, list) else service.platform
    return 2 if platform in _TWO_PORTS else 1


def _services(config: Any) -> list[Any]:
    service = config.training_service
    return service if isinstance(service, list) else [service]


def _check_services(config: Any) -> None:
    known = imported("nni.experiment.config.training_service").TrainingServiceConfig
    missing = imported("nni.experiment.config.utils").is_missing
    for service in _services(config):
        if missing(service) or not isinstance(service, known):
            given = "none is set" if missing(service) else f"NNI does not know {service!r}"
            raise InvalidArgument(
                f"the experiment needs a training service, and {given}: "
                'ExperimentConfig("local"), or trainingService: {platform: local} in YAML'
            )
        command = service.trial_command
        if (missing(command) or command is None) and config.trial_command is None:
            raise InvalidArgument(
                "the experiment has no trial command: set config.trial_command (trialCommand in "
                'YAML), for example "python trial.py"; it runs in config.trial_code_directory'
            )
    if isinstance(config.training_service, list) and config.nni_manager_ip is None:
        raise InvalidArgument(
            "several training services need config.nni_manager_ip, the address of this machine "
            "that theirs can reach (NNI itself stops with an AttributeError)"
        )


def _check_tuner(config: Any) -> None:
    named = [a for a in (config.tuner, config.advisor) if getattr(a, "name", a) != "_none_"]
    if not any(each is not None for each in named):
        raise InvalidArgument(
            "the experiment has no tuner: set config.tuner.name (tuner: {name: TPE} in YAML), "
            'for example "TPE", with class_args={"optimize_mode": "maximize"}'
        )


def _check_end(config: Any) -> None:
    if config.max_trial_number is None and config.max_experiment_duration is None:
        raise InvalidArgument(
            "the experiment would never end: set config.max_trial_number (maxTrialNumber in "
            'YAML), config.max_experiment_duration (maxExperimentDuration, "2h"), or both'
        )


def _check_algorithms(canonical: Any) -> None:
    for kind in ("tuner", "assessor"):
        algorithm = getattr(canonical, kind)
        if algorithm is None:
            continue
        if algorithm.name is not None:
            _check_name(algorithm.name, kind)
        _check_own(algorithm, kind)


def _check_name(name: str, kind: str) -> None:
    """A name that NNI does not know shows as a tuner that does not answer, ten seconds on."""
    metas = imported("nni.tools.package_utils").get_all_algo_meta()
    known = {meta.name: meta for meta in metas if meta.algo_type == kind}
    aliases = {meta.alias for meta in known.values() if meta.alias}
    if name.lower() not in {each.lower() for each in {*known, *aliases}}:
        hint = (
            "register it first with rtl_nni.register_collapse_assessor()"
            if name.lower() == "collapse"
            else f"known are {', '.join(sorted(known))}"
        )
        raise InvalidArgument(f"NNI knows no {kind} {name!r}: {hint}")


def _check_own(algorithm: Any, kind: str) -> None:
    """Ours is built once here: NNI checks no class argument before everything runs."""
    name = algorithm.class_name
    if name is None:
        name = imported("nni.tools.package_utils").get_algo_meta(algorithm.name).class_name
    module, _, own = name.rpartition(".")
    if module.partition(".")[0] != "rtl_nni":
        return
    try:
        with _only_warnings():
            getattr(importlib.import_module(module), own)(**(algorithm.class_args or {}))
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise InvalidArgument(f"the {kind} {name} cannot be built: {error}") from error


@contextmanager
def _only_warnings() -> Iterator[None]:
    """Without the notes of NNI's algorithms: the seed of one that is thrown away misleads."""
    logger = logging.getLogger("nni")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _host_errors(what: str) -> Iterator[None]:
    """Say whose fault an exception of NNI's configuration classes is, and of which line."""
    yaml_error = imported("yaml").YAMLError
    try:
        yield
    except (AttributeError, TypeError, ValueError, AssertionError, OSError, yaml_error) as error:
        if isinstance(error, InvalidArgument):
            raise
        # NNI's bare asserts say nothing; the line that failed does.
        why = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        raise InvalidArgument(f"NNI does not accept {what}: {why}") from error
