"""Finding the tickets: schedules, importance, exact ranking, rewinding, rounds."""

from rtl_plugin.discovery.importance import Importance as Importance
from rtl_plugin.discovery.iterative_pruning import discover as discover
from rtl_plugin.discovery.knee import prune_to_the_knee as prune_to_the_knee
from rtl_plugin.discovery.round_watch import FinishedRound as FinishedRound
from rtl_plugin.discovery.sparsity_schedules import CubicSchedule as CubicSchedule
from rtl_plugin.discovery.sparsity_schedules import FixedCountSchedule as FixedCountSchedule
from rtl_plugin.discovery.sparsity_schedules import GeometricSchedule as GeometricSchedule
from rtl_plugin.discovery.sparsity_schedules import LinearSchedule as LinearSchedule
from rtl_plugin.discovery.sparsity_schedules import OneShotSchedule as OneShotSchedule
from rtl_plugin.discovery.sparsity_schedules import SparsitySchedule as SparsitySchedule
from rtl_plugin.discovery.warm_start import WarmStart as WarmStart
