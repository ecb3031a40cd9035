"""Which versions a run was made with."""

import importlib.metadata
import platform

PACKAGES = ("rtl-plugin", "torch", "numpy")


def software_versions() -> dict[str, str]:
    """Versions of Python and of what results depend on.

    Returns:
        Name -> version; a package that is not installed as one is left out.

    Example:
        >>> sorted(software_versions())[:1]
        ['numpy']
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout
    return versions
