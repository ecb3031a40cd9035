"""Ways to run one layer for all tickets at once, beside the loop over slices."""

from rtl_plugin.mixture.block_way import BLOCKS
from rtl_plugin.mixture.grouped_way import GROUPED_MM
from rtl_plugin.mixture.norm_way import TABLE

WAYS = {way.name: way for way in (TABLE, GROUPED_MM, BLOCKS)}
