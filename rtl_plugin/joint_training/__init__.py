"""Retraining all tickets on shared weights: balanced batches and isolated updates."""

from rtl_plugin.joint_training.recalibration import recalibrate as recalibrate
from rtl_plugin.joint_training.report import RetrainReport as RetrainReport
from rtl_plugin.joint_training.retraining import retrain as retrain
