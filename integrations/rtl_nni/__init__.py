"""Adaptive lottery tickets for NNI: one ticket a data group from an existing configuration.

Needs the extra ``nni``: ``pip install 'rtl-plugin[nni]'``; cutting networks smaller needs
``torch-pruning`` too.
"""

from rtl_nni.config_check import ConfigCheck, check
from rtl_nni.dependency_config import add_dependency_ids, add_norm_alignment, norms_left_out
from rtl_nni.joint_retraining import retrain
from rtl_nni.lightning_evaluator import LightningEvaluator
from rtl_nni.mask_files import load_masks
from rtl_nni.model_speedup import model_speedup
from rtl_nni.pruner import RTLPruner
from rtl_nni.report import IdenticalTickets, Report, RoundRow
from rtl_nni.schedulers import FixedCountPruner, GeometricPruner
from rtl_nni.speedup import speedup, speedup_with_report
from rtl_nni.speedup_report import LeftWhole, SpeedupReport
from rtl_nni.target_row import TargetRow
from rtl_nni.torch_evaluators import torch_evaluators
from rtl_nni.transformers_evaluator import TransformersEvaluator

__all__ = [
    "ConfigCheck",
    "FixedCountPruner",
    "GeometricPruner",
    "IdenticalTickets",
    "LeftWhole",
    "LightningEvaluator",
    "RTLPruner",
    "Report",
    "RoundRow",
    "SpeedupReport",
    "TargetRow",
    "TransformersEvaluator",
    "add_dependency_ids",
    "add_norm_alignment",
    "check",
    "load_masks",
    "model_speedup",
    "norms_left_out",
    "retrain",
    "speedup",
    "speedup_with_report",
    "torch_evaluators",
]
