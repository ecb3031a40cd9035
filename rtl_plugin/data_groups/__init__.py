"""Data groups: the data of every ticket, by label, by metadata, by cluster, or from loaders."""

from rtl_plugin.data_groups.group import DataGroup as DataGroup
from rtl_plugin.data_groups.groups import DataGroups as DataGroups
