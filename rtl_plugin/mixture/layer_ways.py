"""Ways to run one layer for all tickets at once, beside the loop over slices."""

from rtl_plugin.mixture.block_way import BLOCKS
from rtl_plugin.mixture.convolution_way import CONVOLUTION, DEPTHWISE
from rtl_plugin.mixture.grouped_way import BITMASK, GROUPED_MM, TRITON
from rtl_plugin.mixture.norm_way import TABLE

_EVERY = (TABLE, GROUPED_MM, TRITON, BITMASK, CONVOLUTION, DEPTHWISE, BLOCKS)
WAYS = {way.name: way for way in _EVERY}
