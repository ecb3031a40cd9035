"""Adaptive lottery tickets for NNI: one ticket a data group from an existing configuration.

Needs the extra ``nni``: ``pip install 'rtl-plugin[nni]'``; cutting networks smaller needs
``torch-pruning`` too. Trials of a search (:func:`run_trial`) run without NNI. Names are imported
when they are first used: NNI's compression takes seconds, and NNI gives an assessor ten. Those that
need NNI raise ``MissingExtra`` then where it is missing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtl_nni.config_check import ConfigCheck as ConfigCheck
    from rtl_nni.config_check import check as check
    from rtl_nni.dependency_config import add_dependency_ids as add_dependency_ids
    from rtl_nni.dependency_config import add_norm_alignment as add_norm_alignment
    from rtl_nni.dependency_config import norms_left_out as norms_left_out
    from rtl_nni.exact_speedup import speedup as speedup
    from rtl_nni.exact_speedup import speedup_with_report as speedup_with_report
    from rtl_nni.group_evaluators import torch_evaluators as torch_evaluators
    from rtl_nni.host_speedup import model_speedup as model_speedup
    from rtl_nni.joint_retraining import retrain as retrain
    from rtl_nni.lightning_evaluator import LightningEvaluator as LightningEvaluator
    from rtl_nni.mask_files import load_masks as load_masks
    from rtl_nni.pruner import RTLPruner as RTLPruner
    from rtl_nni.report import IdenticalTickets as IdenticalTickets
    from rtl_nni.report import Report as Report
    from rtl_nni.report import RoundRow as RoundRow
    from rtl_nni.schedulers import FixedCountPruner as FixedCountPruner
    from rtl_nni.schedulers import GeometricPruner as GeometricPruner
    from rtl_nni.search.assessor import CollapseAssessor as CollapseAssessor
    from rtl_nni.search.budget import Budget as Budget
    from rtl_nni.search.budget import budget as budget
    from rtl_nni.search.collapse_stop import CollapseStop as CollapseStop
    from rtl_nni.search.collapse_stop import StopVerdict as StopVerdict
    from rtl_nni.search.experiment import run_experiment as run_experiment
    from rtl_nni.search.experiment import stop_experiment as stop_experiment
    from rtl_nni.search.experiment_result import ExperimentResult as ExperimentResult
    from rtl_nni.search.experiment_result import ExperimentStatus as ExperimentStatus
    from rtl_nni.search.experiment_result import ExperimentTrial as ExperimentTrial
    from rtl_nni.search.failures import ExperimentFailed as ExperimentFailed
    from rtl_nni.search.latency import measured_latency as measured_latency
    from rtl_nni.search.next_parameters import next_parameters as next_parameters
    from rtl_nni.search.pareto import pareto_front as pareto_front
    from rtl_nni.search.pareto import pareto_table as pareto_table
    from rtl_nni.search.pareto_plot import pareto_plot as pareto_plot
    from rtl_nni.search.records import TrialRecord as TrialRecord
    from rtl_nni.search.records import read_trials as read_trials
    from rtl_nni.search.registration import register_collapse_assessor as register_collapse_assessor
    from rtl_nni.search.registration import (
        unregister_collapse_assessor as unregister_collapse_assessor,
    )
    from rtl_nni.search.space import search_space as search_space
    from rtl_nni.search.tpe_tuner import TpeTuner as TpeTuner
    from rtl_nni.search.trial import run_trial as run_trial
    from rtl_nni.search.trial_result import TrialResult as TrialResult
    from rtl_nni.search.trial_table import best_trial as best_trial
    from rtl_nni.search.trial_table import trial_table as trial_table
    from rtl_nni.speedup_report import LeftWhole as LeftWhole
    from rtl_nni.speedup_report import SpeedupReport as SpeedupReport
    from rtl_nni.target_row import TargetRow as TargetRow
    from rtl_nni.transformers_evaluator import TransformersEvaluator as TransformersEvaluator

_MODULES = {
    "config_check": (
        "ConfigCheck",
        "check",
    ),
    "dependency_config": (
        "add_dependency_ids",
        "add_norm_alignment",
        "norms_left_out",
    ),
    "joint_retraining": ("retrain",),
    "lightning_evaluator": ("LightningEvaluator",),
    "mask_files": ("load_masks",),
    "host_speedup": ("model_speedup",),
    "pruner": ("RTLPruner",),
    "report": (
        "IdenticalTickets",
        "Report",
        "RoundRow",
    ),
    "schedulers": (
        "FixedCountPruner",
        "GeometricPruner",
    ),
    "search.assessor": ("CollapseAssessor",),
    "search.budget": (
        "Budget",
        "budget",
    ),
    "search.collapse_stop": (
        "CollapseStop",
        "StopVerdict",
    ),
    "search.experiment": (
        "run_experiment",
        "stop_experiment",
    ),
    "search.experiment_result": (
        "ExperimentResult",
        "ExperimentStatus",
        "ExperimentTrial",
    ),
    "search.failures": ("ExperimentFailed",),
    "search.latency": ("measured_latency",),
    "search.next_parameters": ("next_parameters",),
    "search.tpe_tuner": ("TpeTuner",),
    "search.pareto": (
        "pareto_front",
        "pareto_table",
    ),
    "search.pareto_plot": ("pareto_plot",),
    "search.records": (
        "TrialRecord",
        "read_trials",
    ),
    "search.registration": (
        "register_collapse_assessor",
        "unregister_collapse_assessor",
    ),
    "search.space": ("search_space",),
    "search.trial": ("run_trial",),
    "search.trial_result": ("TrialResult",),
    "search.trial_table": ("best_trial", "trial_table"),
    "exact_speedup": (
        "speedup",
        "speedup_with_report",
    ),
    "speedup_report": (
        "LeftWhole",
        "SpeedupReport",
    ),
    "target_row": ("TargetRow",),
    "group_evaluators": ("torch_evaluators",),
    "transformers_evaluator": ("TransformersEvaluator",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Budget",
    "CollapseAssessor",
    "CollapseStop",
    "ConfigCheck",
    "ExperimentFailed",
    "ExperimentResult",
    "ExperimentStatus",
    "ExperimentTrial",
    "FixedCountPruner",
    "GeometricPruner",
    "IdenticalTickets",
    "LeftWhole",
    "LightningEvaluator",
    "RTLPruner",
    "Report",
    "RoundRow",
    "SpeedupReport",
    "StopVerdict",
    "TargetRow",
    "TpeTuner",
    "TransformersEvaluator",
    "TrialRecord",
    "TrialResult",
    "add_dependency_ids",
    "add_norm_alignment",
    "best_trial",
    "budget",
    "check",
    "load_masks",
    "measured_latency",
    "model_speedup",
    "next_parameters",
    "norms_left_out",
    "pareto_front",
    "pareto_plot",
    "pareto_table",
    "read_trials",
    "register_collapse_assessor",
    "retrain",
    "run_experiment",
    "run_trial",
    "search_space",
    "speedup",
    "speedup_with_report",
    "stop_experiment",
    "torch_evaluators",
    "trial_table",
    "unregister_collapse_assessor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
