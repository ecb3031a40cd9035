"""Metrics of predictions, and statistics of metrics over seeds and groups."""

from rtl_plugin.evaluation.classification import (
    calibrate_thresholds,
    one_vs_rest_metrics,
    top1_accuracy,
)
from rtl_plugin.evaluation.statistics import (
    GroupSummary,
    Interval,
    confidence_interval,
    group_summary,
    paired_difference,
)

__all__ = [
    "GroupSummary",
    "Interval",
    "calibrate_thresholds",
    "confidence_interval",
    "group_summary",
    "one_vs_rest_metrics",
    "paired_difference",
    "top1_accuracy",
]
