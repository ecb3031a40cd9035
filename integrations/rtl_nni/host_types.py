"""The host's classes that others here build on or ask about."""

from rtl_nni.host import check_version, quiet

check_version()
with quiet():
    from nni.common import is_traceable
    from nni.compression.base.compressor import Pruner
    from nni.compression.pruning import FPGMPruner, MovementPruner
    from nni.compression.pruning.scheduled_pruner import ScheduledPruner, _ComboPruner
    from nni.compression.utils.evaluator import (
        DeepspeedTorchEvaluator,
        Evaluator,
        TorchEvaluator,
    )

ComboPruner = _ComboPruner

__all__ = [
    "ComboPruner",
    "DeepspeedTorchEvaluator",
    "Evaluator",
    "FPGMPruner",
    "MovementPruner",
    "Pruner",
    "ScheduledPruner",
    "TorchEvaluator",
    "is_traceable",
]
