"""Adaptive lottery tickets: one sparse subnetwork a data group, on shared weights."""

from rtl_plugin import errors
from rtl_plugin.baselines import Comparison, SingleModel, compare
from rtl_plugin.baselines import scoring as protocols
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.compact_network import compact, scatter_back
from rtl_plugin.data_groups import DataGroup, DataGroups
from rtl_plugin.diagnostics.collapse import Alarm, CollapseMonitor
from rtl_plugin.diagnostics.collapse_rule import CollapseRule
from rtl_plugin.discovery import (
    CubicSchedule,
    FinishedRound,
    FixedCountSchedule,
    GeometricSchedule,
    Importance,
    LinearSchedule,
    OneShotSchedule,
    SparsitySchedule,
    WarmStart,
    discover,
    prune_to_the_knee,
)
from rtl_plugin.index_map import IndexMap
from rtl_plugin.joint_training import RetrainReport, recalibrate, retrain
from rtl_plugin.mixture import MixtureOfMasks
from rtl_plugin.mixture.exporting import OnnxReport, export_onnx, export_program
from rtl_plugin.mixture.memory import Memory
from rtl_plugin.prunable import Explanation, Verdict, explain
from rtl_plugin.routing import (
    ClassifierRouter,
    ConfidenceRouter,
    ConfidenceThreshold,
    EpsilonGreedyRouter,
    KnownGroupRouter,
    NearestCentroidRouter,
    OneVsRestRouter,
    OnlineRouter,
    Outcome,
    OutputRouter,
    Router,
    RoutingDecision,
    StochasticEnsembleRouter,
    ThompsonSamplingRouter,
    TopNRouter,
)
from rtl_plugin.tickets import Ticket, TicketSet

__all__ = [
    "Alarm",
    "ChannelPlan",
    "ClassifierRouter",
    "CollapseMonitor",
    "CollapseRule",
    "Comparison",
    "ConfidenceRouter",
    "ConfidenceThreshold",
    "CubicSchedule",
    "DataGroup",
    "DataGroups",
    "EpsilonGreedyRouter",
    "Explanation",
    "FinishedRound",
    "FixedCountSchedule",
    "GeometricSchedule",
    "Importance",
    "IndexMap",
    "KnownGroupRouter",
    "LinearSchedule",
    "Memory",
    "MixtureOfMasks",
    "NearestCentroidRouter",
    "OneShotSchedule",
    "OneVsRestRouter",
    "OnlineRouter",
    "OnnxReport",
    "Outcome",
    "OutputRouter",
    "RetrainReport",
    "Router",
    "RoutingDecision",
    "SingleModel",
    "SparsitySchedule",
    "StochasticEnsembleRouter",
    "ThompsonSamplingRouter",
    "Ticket",
    "TicketSet",
    "TopNRouter",
    "Verdict",
    "WarmStart",
    "compact",
    "compare",
    "discover",
    "errors",
    "explain",
    "export_onnx",
    "export_program",
    "protocols",
    "prune_to_the_knee",
    "recalibrate",
    "retrain",
    "scatter_back",
]
