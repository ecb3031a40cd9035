"""The collapse assessor among NNI's named algorithms, so that a configuration can name it."""

from pathlib import Path
from typing import Any

from rtl_nni.host import imported
from rtl_plugin.integration_api import InvalidArgument

NAME = "Collapse"
_CLASS = "rtl_nni.CollapseAssessor"
_FILE = "registered_algorithms.yml"


def register_collapse_assessor() -> Path:
    """Make ``config.assessor.name = "Collapse"`` mean `CollapseAssessor`.

    NNI keeps registered algorithms in a file for each virtual environment
    (``nni/registered_algorithms.yml`` below it), or in the folder of the environment variable
    ``NNI_CONFIG_DIR``. Once is enough for all later experiments; calling it again changes
    nothing. `rtl_nni` must be importable where the manager runs.

    Returns:
        The file that it is registered in.

    Raises:
        InvalidArgument: another algorithm has the name.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.environ["NNI_CONFIG_DIR"] = folder
        ...     register_collapse_assessor().name
        ...     _ = os.environ.pop("NNI_CONFIG_DIR")
        'registered_algorithms.yml'
    """
    tools = imported("nni.tools.package_utils")
    # A file that says it already is left alone: NNI rewrites it in place while others read.
    if not _is_registered():
        tools.register_algo_meta(
            tools.AlgoMeta.load(
                {"algoType": "assessor", "builtinName": NAME, "className": _CLASS, "source": "user"}
            )
        )
    return _file()


def unregister_collapse_assessor() -> Path:
    """Take the name back; nothing happens where it is not registered.

    Returns:
        The file that it was registered in.

    Raises:
        InvalidArgument: the name belongs to another algorithm.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.environ["NNI_CONFIG_DIR"] = folder
        ...     unregister_collapse_assessor() == register_collapse_assessor()
        ...     _ = os.environ.pop("NNI_CONFIG_DIR")
        True
    """
    if _is_registered():
        imported("nni.tools.package_utils").unregister_algo_meta(NAME)
    return _file()


def _is_registered() -> bool:
    meta: Any = imported("nni.tools.package_utils").get_algo_meta(NAME)
    if meta is None:
        return False
    if (meta.class_name, meta.algo_type) != (_CLASS, "assessor"):
        raise InvalidArgument(
            f"NNI knows another algorithm by the name {NAME!r}: the {meta.algo_type} "
            f"{meta.class_name} in {_file()}; unregister that one first"
        )
    return True


def _file() -> Path:
    path: Path = imported("nni.runtime.config").get_config_file(_FILE)
    return path
