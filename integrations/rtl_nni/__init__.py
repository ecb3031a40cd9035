"""Adaptive lottery tickets for NNI: one ticket a data group from an existing configuration.

Needs the extra ``nni``: ``pip install 'rtl-plugin[nni]'``.
"""

from rtl_nni.config_check import ConfigCheck, check
from rtl_nni.joint_retraining import retrain
from rtl_nni.lightning_evaluator import LightningEvaluator
from rtl_nni.mask_files import load_masks
from rtl_nni.pruner import RTLPruner
from rtl_nni.report import IdenticalTickets, Report, RoundRow
from rtl_nni.schedulers import FixedCountPruner, GeometricPruner
from rtl_nni.target_row import TargetRow
from rtl_nni.torch_evaluators import torch_evaluators
from rtl_nni.transformers_evaluator import TransformersEvaluator

__all__ = [
    "ConfigCheck",
    "FixedCountPruner",
    "GeometricPruner",
    "IdenticalTickets",
    "LightningEvaluator",
    "RTLPruner",
    "Report",
    "RoundRow",
    "TargetRow",
    "TransformersEvaluator",
    "check",
    "load_masks",
    "retrain",
    "torch_evaluators",
]
