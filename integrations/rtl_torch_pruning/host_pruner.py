"""Torch-Pruning's pruner with its silent omissions made errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch_pruning as tp
from torch_pruning.dependency import Group
from torch_pruning.pruner.importance import ActivationImportance, OBDCImportance

from rtl_plugin.integration_api import (
    DataGroups,
    InvalidArgument,
    InvalidImportance,
    PruningFailed,
    RtlError,
)

OnVanishing = Literal["error", "keep"]


class HostPruner(tp.pruner.BasePruner):  # type: ignore[misc]
    """The host's ranking and cutting, with checked scores and no layer left out in silence.

    Args:
        model: the working network.
        example_inputs: for the trace.
        importance: the host's or the user's.
        on_vanishing: what to do where cutting would leave a layer without channels: ``"error"``,
            or ``"keep"`` the layer whole as the host does, and note it.
        keywords: of the host.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        example_inputs: Any,
        importance: Any,
        on_vanishing: OnVanishing,
        **keywords: Any,
    ) -> None:
        self.dense_groups: list[Group] = []
        self._collecting = True
        super().__init__(model, example_inputs, importance, **keywords)
        self._collecting = False
        self.on_vanishing = on_vanishing
        self.left_whole: list[str] = []
        self._enough_left = self.DG.check_pruning_group
        self.DG.check_pruning_group = self._checked_group

    def _is_atten_group(self, group: Group) -> Any:
        # The constructor asks this of every group to cut, which spares a second enumeration.
        if self._collecting:
            self.dense_groups.append(group)
        return super()._is_atten_group(group)

    def estimate_importance(self, group: Group) -> torch.Tensor | None:
        """The importance's scores of a group, checked.

        Raises:
            InvalidImportance: they are not finite, not one a channel, or it fails.
        """
        name, channels = self.root_name(group), len(group[0].idxs)
        kind = type(self.importance).__name__
        try:
            scores = super().estimate_importance(group)
        except Exception as error:
            raise InvalidImportance(
                f"{kind} failed on the group of {name!r} ({type(error).__name__}: {error})"
            ) from error
        if scores is None:
            return None
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != (channels,):
            came = (
                tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            )
            raise InvalidImportance(
                f"{kind} must give one score a channel of {name!r}, a tensor of shape "
                f"({channels},), got {came}"
            )
        if not bool(torch.isfinite(scores).all()):
            raise InvalidImportance(
                f"{kind} gives scores of {name!r} that are NaN or infinite: weights or gradients "
                "of this layer's group are not finite, or a normalizer divides by zero"
            )
        return scores

    def root_name(self, group: Group) -> str:
        """Name of the layer that a group is named after."""
        return str(self.DG._module2name[group[0].dep.target.module])

    def _checked_group(self, group: Group) -> bool:
        if self._enough_left(group):
            return True
        name = self.root_name(group)
        if self.on_vanishing == "error":
            rounding = f" (rounding to multiples of {self.round_to})" if self.round_to else ""
            raise PruningFailed(
                f"cutting {len(group[0].idxs)} channels of {name!r}{rounding} would leave a layer "
                "of its group without any: lower pruning_ratio, give this layer its own in "
                "pruning_ratio_dict, cap it with max_pruning_ratio, add it to ignored_layers, or "
                "pass on_vanishing='keep' to leave such layers whole, as Torch-Pruning does"
            )
        self.left_whole.append(name)
        return False


@contextmanager
def host_errors(where: object) -> Iterator[None]:
    """Say in which round and group Torch-Pruning failed, and what to do.

    Args:
        where: for the message.

    Raises:
        PruningFailed: in the place of whatever the host raised.
    """
    try:
        yield
    except RtlError:
        raise
    except Exception as error:
        raise PruningFailed(
            f"{where}: Torch-Pruning cannot rank or cut this network ({type(error).__name__}: "
            f"{error}): add the layers concerned to ignored_layers, give head and group counts "
            "(num_heads, out_channel_groups), or a pruner of your own in customized_pruners"
        ) from error


def guarded_groups(groups: Iterator[Group], where: object) -> Iterator[Group]:
    """The host's groups, where it fails to make one with :func:`host_errors`.

    Args:
        groups: of the host, made one after the other.
        where: for the message.

    Returns:
        The same groups.

    Raises:
        PruningFailed: in the place of whatever the host raised.
    """
    while True:
        with host_errors(where):
            group = next(groups, None)
        if group is None:
            return
        yield group


def check_arguments(
    model: Any, groups: Any, importance: Any, on_vanishing: Any, fix_attributes: Any
) -> None:
    """Refuse arguments of another kind, and importances that RTLPruner cannot feed.

    Args:
        model: the user's.
        groups: the user's.
        importance: the user's.
        on_vanishing: the user's.
        fix_attributes: the user's.

    Raises:
        InvalidArgument: naming the argument.
    """
    if fix_attributes is not None and not callable(fix_attributes):
        raise InvalidArgument(
            f"fix_attributes must be a function of the cut network, got {fix_attributes!r}"
        )
    if not isinstance(model, torch.nn.Module) or not isinstance(groups, DataGroups):
        raise InvalidArgument(
            "RTLPruner takes an nn.Module and groups=DataGroups, got "
            f"{type(model).__name__} and {type(groups).__name__}: make groups with "
            "DataGroups.from_labels, from_metadata, from_clusters or from_loaders"
        )
    if on_vanishing not in ("error", "keep"):
        raise InvalidArgument(f'on_vanishing must be "error" or "keep", got {on_vanishing!r}')
    if not callable(importance):
        raise InvalidArgument(
            f"importance must be callable on a group of Torch-Pruning, got {importance!r}: for "
            "example tp.importance.GroupMagnitudeImportance(p=2)"
        )
    if isinstance(importance, (OBDCImportance, ActivationImportance)):
        raise InvalidArgument(
            f"{type(importance).__name__} records activations of the network that it ranks, and "
            "tickets take turns in one working network: use GroupTaylorImportance or "
            "GroupHessianImportance, which rank by the group's own data too"
        )


def needs_gradients(importance: Any) -> bool:
    """Whether an importance reads gradients: Taylor, Hessian, or one that says so.

    Args:
        importance: the host's, or an object with ``needs_gradients``.
    """
    known = (tp.importance.GroupTaylorImportance, tp.importance.GroupHessianImportance)
    return isinstance(importance, known) or bool(getattr(importance, "needs_gradients", False))


def squares_gradients(importance: Any) -> bool:
    """Whether it is the host's Hessian importance, which reads mean squared gradients.

    Its own ``accumulate_grad`` keeps the last batch only (it looks parameters up by another key
    than it stores them under), so the mean is made here.

    Args:
        importance: any.
    """
    return isinstance(importance, tp.importance.GroupHessianImportance)
