"""NNI's ``config_list``, one entry a layer in the model's order, with the same meaning."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import nn

from rtl_nni.host import imported
from rtl_plugin.integration_api import InvalidArgument, SparsitySchedule

Entry = Mapping[str, Any]

# What NNI's scheduled pruners scale on the way to the final sparsity.
SCHEDULED_KEYS = ("sparse_ratio", "sparse_threshold", "max_sparse_ratio", "min_sparse_ratio")
_SELECTORS = (
    "op_names", "op_names_re", "op_types",
    "exclude_op_names", "exclude_op_names_re", "exclude_op_types",
)  # fmt: skip


@dataclass(frozen=True)
class LayerEntry:
    """What one entry of a configuration says about one layer.

    Args:
        layer: the module's name.
        number: of the entry in the user's list, counted from 0.
        settings: the entry without what selects layers.
        named: the entry names this very layer in ``op_names``.
    """

    layer: str
    number: int
    settings: Mapping[str, Any]
    named: bool

    def as_config(self, factor: float = 1.0) -> dict[str, Any]:
        """As an entry of a ``config_list`` that selects this layer alone.

        Args:
            factor: what its ratios are multiplied with.
        """
        return {"op_names": [self.layer], **scaled(self.settings, factor)}


def checked_list(config_list: Any) -> list[dict[str, Any]]:
    """A configuration in NNI's present format.

    Args:
        config_list: the user's, also in the format of NNI 2.

    Returns:
        A copy, translated and validated as NNI does.

    Raises:
        InvalidArgument: it is no list of mappings, or NNI's own schema refuses an entry.
    """
    listed = isinstance(config_list, Sequence) and not isinstance(config_list, str)
    if not listed or not config_list or not all(isinstance(e, Mapping) for e in config_list):
        raise InvalidArgument(
            f"config_list must be a list of at least one dict, NNI's format, got {config_list!r}"
        )
    host = imported("nni.compression.base.config")
    translated = host.trans_legacy_config_list([deepcopy(dict(entry)) for entry in config_list])
    schema = host.default_config_schema("pruning")
    errors = imported("schema").SchemaError
    for number, entry in enumerate(translated):
        if "group_id" in str(entry) and "total_sparsity" in config_list[number]:
            raise InvalidArgument(
                f"config_list[{number}]: NNI 3 does not translate total_sparsity: write "
                "'sparse_ratio' and a 'global_group_id' of your choice"
            )
        try:
            schema.validate(entry)
        except errors as error:
            raise InvalidArgument(
                f"config_list[{number}] is not what NNI accepts: {_one_line(error)}. Ratios and "
                "thresholds are floats (0.5), and 'granularity' is 'default', 'in_channel', "
                "'out_channel', 'per_channel' or a list"
            ) from error
    return list(translated)


def entries_by_layer(model: nn.Module, config_list: Sequence[Entry]) -> list[LayerEntry]:
    """Which layers each entry selects, by NNI's own rules.

    NNI walks over a set of names, whose order differs between processes; the model's order makes
    runs repeatable.

    Args:
        model: the network.
        config_list: from :func:`checked_list`; every name in it is a module of the model.

    Returns:
        One item a (entry, layer), entries in the user's order, layers in the model's.
    """
    select = imported("nni.compression.base.config").select_modules_by_config
    order = [name for name, _ in model.named_modules(remove_duplicate=False)]
    found = []
    for number, entry in enumerate(config_list):
        selected = select(model, entry)[0]
        settings = {key: value for key, value in entry.items() if key not in _SELECTORS}
        named = set(entry.get("op_names", ()))
        found += [
            LayerEntry(name, number, settings, name in named) for name in order if name in selected
        ]
    return found


def progress_factor(schedule: SparsitySchedule | None, round: int, prunable: int) -> float:
    """What final ratios are multiplied with in a round.

    Args:
        schedule: the path; None is one round.
        round: counted from 1.
        prunable: number of weights under a ratio or threshold.

    Returns:
        A number in [0, 1]; exactly 1 in the last round.
    """
    if schedule is None or round == schedule.rounds_for(prunable):
        return 1.0
    return schedule.sparsity(round, prunable) / schedule.target


def scaled(settings: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Settings with their ratios and thresholds multiplied, those of targets too.

    Args:
        settings: of an entry or a target.
        factor: see :func:`progress_factor`.

    Returns:
        A copy.
    """
    copied = deepcopy(dict(settings))
    for table in (copied, *copied.get("target_settings", {}).values()):
        for key in SCHEDULED_KEYS:
            if table.get(key) is not None and factor != 1:
                table[key] = float(table[key] * factor)
    return copied


def check_schedule(entries: Sequence[LayerEntry], schedule: SparsitySchedule | None) -> None:
    """Refuse a schedule that contradicts one uniform ratio.

    Args:
        entries: of the user's configuration.
        schedule: the user's, or None.

    Raises:
        InvalidArgument: all layers have one final ratio, and the schedule has another.
    """
    ratios = {
        table["sparse_ratio"]
        for entry in entries
        for table in settings_tables(entry.settings)
        if "sparse_ratio" in table
    }
    if schedule is not None and len(ratios) == 1 and ratios != {schedule.target}:
        raise InvalidArgument(
            f"config_list asks for sparse_ratio {ratios.pop()} everywhere, the schedule ends at "
            f"{schedule.target}: give both the same (the schedule sets the path, config_list what "
            "is reached)"
        )


def settings_tables(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dicts of an entry that may hold a ratio: itself, and one a target.

    Args:
        settings: of an entry.
    """
    return [dict(settings), *map(dict, settings.get("target_settings", {}).values())]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
