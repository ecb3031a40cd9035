"""What a configuration says about one parameter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TargetRow:
    """What a configuration says about one parameter.

    Args:
        layer: the module's name.
        target: ``"weight"``, ``"bias"``, ...
        shape: of the parameter, or None where the module has none of this name.
        entry: number of the entry in ``config_list``, counted from 0.
        named: the entry names this very layer in ``op_names``.
        settings: NNI's own, defaults included.
        granularity: ``"fine"``, ``"out_channel"``, ``"in_channel"``, a list, or ``"default"``
            where the pruner is not known.
        note: what is worth knowing, or empty.

    Example:
        >>> row = TargetRow("fc", "weight", (2, 4), 0, True, {"sparse_ratio": 0.5}, "fine", "")
        >>> row.name, row.ranked
        ('fc.weight', True)
    """

    layer: str
    target: str
    shape: tuple[int, ...] | None
    entry: int
    named: bool
    settings: Mapping[str, Any]
    granularity: Any
    note: str

    @property
    def name(self) -> str:
        """The parameter's name in the model."""
        return f"{self.layer}.{self.target}" if self.layer else self.target

    @property
    def ranked(self) -> bool:
        """Whether a ratio or threshold of its own is asked for; others follow another target."""
        asked = (self.settings.get("sparse_ratio"), self.settings.get("sparse_threshold"))
        return self.shape is not None and any(value is not None for value in asked)

    @property
    def asked(self) -> str:
        """What is asked for, in words."""
        for key, word in (("sparse_ratio", "ratio"), ("sparse_threshold", "threshold")):
            if self.settings.get(key) is not None:
                return f"{word} {self.settings[key]:g}"
        source = self.settings.get("align")
        if not source:
            return "nothing"
        module = source["module_name"] or self.layer
        return f"as {module}.{source['target_name']}"

    @property
    def numel(self) -> int:
        """Number of its weights; 0 where the module has none of this name."""
        return math.prod(self.shape) if self.shape is not None else 0

    @property
    def group(self) -> str:
        """The groups that it is ranked in, in words."""
        kinds = (("dependency_group_id", "dependency"), ("global_group_id", "global"))
        named = [(word, self.settings.get(key)) for key, word in kinds]
        return ", ".join(f"{word} {identity}" for word, identity in named if identity is not None)
