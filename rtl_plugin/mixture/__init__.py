"""Serving all tickets from one module and one copy of the weights."""

from rtl_plugin.mixture.mixture_of_masks import MixtureOfMasks as MixtureOfMasks
