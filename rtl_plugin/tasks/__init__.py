"""What a comparison is made of, and a ready one on data that a package carries."""

from rtl_plugin.tasks.comparison_task import ComparisonTask as ComparisonTask
