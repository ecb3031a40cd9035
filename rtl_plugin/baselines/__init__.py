"""Baselines, ablations, and the comparison of all methods under one budget."""

from rtl_plugin.baselines.comparison import Comparison as Comparison
from rtl_plugin.baselines.comparison import compare as compare
from rtl_plugin.baselines.settings import SingleModel as SingleModel
