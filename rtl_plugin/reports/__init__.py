"""Tables and plots of results and tickets."""

from rtl_plugin.reports.plots import accuracy_by_method, similarity_heat_map
from rtl_plugin.reports.tables import comparison_table

__all__ = ["accuracy_by_method", "comparison_table", "similarity_heat_map"]
