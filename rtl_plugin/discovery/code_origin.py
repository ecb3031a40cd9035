"""Which installed package a module belongs to, and in which version."""

import importlib.metadata
import importlib.util
import os
import platform
import site
import sys
import sysconfig

_OURS = __name__.partition(".")[0]


class Origins:
    """Tells modules that a version describes from those of the user's own project.

    Example:
        >>> Origins().version("json").startswith("python 3"), Origins().version("my_losses")
        (True, None)
    """

    def __init__(self) -> None:
        paths = sysconfig.get_paths()
        self._standard = _real([paths["stdlib"], paths["platstdlib"]])
        installed = [paths["purelib"], paths["platlib"], site.getusersitepackages()]
        self._installed = _real([*installed, *site.getsitepackages()])
        self._known: dict[str, str | None] = {}

    def version(self, module: object) -> str | None:
        """Version of the installed package that a module is part of.

        Args:
            module: its dotted name; anything else counts as the user's own.

        Returns:
            The version; for the standard library that of Python; None for the user's own modules,
            also for those of an editable installation, whose version says little, and for what is
            installed without a version.
        """
        if not isinstance(module, str):
            return None
        if module not in self._known:
            self._known[module] = self._found(module)
        return self._known[module]

    def _found(self, module: str) -> str | None:
        top = module.partition(".")[0]
        if top == _OURS:
            return "as rtl-plugin"  # whose version is told apart from this
        file = _file(module, top)
        inside = file is not None and file.startswith(self._installed)
        if top in sys.stdlib_module_names and not inside:
            standard = file is None or file.startswith(self._standard)
            return f"python {platform.python_version()}" if standard else None
        return _version(top) if inside else None


def _real(folders: list[str]) -> tuple[str, ...]:
    return tuple({os.path.realpath(folder) + os.sep for folder in folders})


def _file(module: str, top: str) -> str | None:
    """Where a module's code lies, without importing anything; None for what is built in."""
    found = getattr(sys.modules.get(module, sys.modules.get(top)), "__file__", None)
    if found is None and top not in sys.modules:
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return None
        found = None if spec is None or not spec.has_location else spec.origin
    return None if found is None else os.path.realpath(found)


def _version(top: str) -> str | None:
    told = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(told, str):
        return str(told)
    names = [top, *importlib.metadata.packages_distributions().get(top, [])]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
