"""Triton kernels for batches that mix tickets, and the tables they read.

Importing this compiles nothing and touches no GPU; :func:`available` says where they run.
"""

from rtl_plugin.mixture.kernels.configs import KernelConfig as KernelConfig
from rtl_plugin.mixture.kernels.configs import block_rows_for as block_rows_for
from rtl_plugin.mixture.kernels.configs import shipped_configs as shipped_configs
from rtl_plugin.mixture.kernels.convolution import depthwise_conv2d as depthwise_conv2d
from rtl_plugin.mixture.kernels.convolution import grouped_conv2d as grouped_conv2d
from rtl_plugin.mixture.kernels.expansion import expand_masked as expand_masked
from rtl_plugin.mixture.kernels.linear import bitmask_linear as bitmask_linear
from rtl_plugin.mixture.kernels.linear import grouped_linear as grouped_linear
from rtl_plugin.mixture.kernels.loading import available as available
from rtl_plugin.mixture.kernels.loading import why_not as why_not
from rtl_plugin.mixture.kernels.packed_words import pack_depthwise as pack_depthwise
from rtl_plugin.mixture.kernels.packed_words import pack_words as pack_words
from rtl_plugin.mixture.kernels.packed_words import unpack_words as unpack_words
from rtl_plugin.mixture.kernels.tiles import tile_table as tile_table
