"""Tables, plots and pages of results and tickets."""

from rtl_plugin.reports.page.writing import write_report
from rtl_plugin.reports.plots import accuracy_by_method, similarity_heat_map
from rtl_plugin.reports.tables import comparison_table
from rtl_plugin.reports.tensorboard import write_tensorboard

__all__ = [
    "accuracy_by_method",
    "comparison_table",
    "similarity_heat_map",
    "write_report",
    "write_tensorboard",
]
