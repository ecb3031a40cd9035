"""A pruner of NNI with those that it wraps or is fused with."""

from typing import Any

from rtl_nni.host_types import Pruner


def parts_of(pruner: Any) -> list[Any]:
    """A pruner and those it wraps or is fused with.

    Args:
        pruner: any NNI pruner.

    Returns:
        Each once, the outermost first.
    """
    found: list[Any] = []
    waiting = [pruner]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Pruner) and not any(part is one for one in found):
            found.append(part)
            waiting += [*part.fused_compressors, getattr(part, "bound_pruner", None)]
    return found


def spaces_of(pruner: Any) -> dict[tuple[str, str], Any]:
    """What a pruner and its parts are configured for.

    Args:
        pruner: any NNI pruner.

    Returns:
        (Module name, target name) -> NNI's target space, the outermost part's first.
    """
    found: dict[tuple[str, str], Any] = {}
    for part in parts_of(pruner):
        for module, targets in part._target_spaces.items():
            for target, space in targets.items():
                found.setdefault((module, target), space)
    return found
