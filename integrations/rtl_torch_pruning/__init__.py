"""Adaptive lottery tickets for Torch-Pruning: one smaller network a data group, cut by its graph.

Needs the extra ``torch-pruning``: ``pip install 'rtl-plugin[torch-pruning]'``.
"""

from rtl_plugin.integration_api import require as _require

_require("torch_pruning", "torch-pruning", "rtl_torch_pruning")

from rtl_torch_pruning.latency import LatencyComparison, compare_latency  # noqa: E402
from rtl_torch_pruning.pruner import RTLPruner  # noqa: E402
from rtl_torch_pruning.round_report import GroupRow, RoundReport  # noqa: E402
from rtl_torch_pruning.schedulers import (  # noqa: E402
    cubic_scheduler,
    geometric_scheduler,
    linear_scheduler,
)
from rtl_torch_pruning.size_report import (  # noqa: E402
    NetworkSize,
    SizeReport,
    measure_networks,
)

__all__ = [
    "GroupRow",
    "LatencyComparison",
    "NetworkSize",
    "RTLPruner",
    "RoundReport",
    "SizeReport",
    "compare_latency",
    "cubic_scheduler",
    "geometric_scheduler",
    "linear_scheduler",
    "measure_networks",
]
