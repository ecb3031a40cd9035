"""A network under NNI masks, asked by layer and channel."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

Masks = Mapping[str, torch.Tensor]


class MaskedNetwork:
    """A network and masks over it, asked by layer.

    Args:
        model: the network, left as it is.
        masks: parameter name -> bool mask, True where kept.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self._layers = dict(model.named_modules())
        self._names = {id(p): name for name, p in model.named_parameters()}  # tied: the first
        self.masks = masks

    def dead_outputs(self, name: str, channels: Iterable[int]) -> set[int]:
        """Those of a layer's output channels whose weights and bias are all masked.

        Args:
            name: of the layer.
            channels: to look at.

        Returns:
            A subset of them; empty for kinds of layers that NNI masks in no known layout.
        """
        layer = self._layers[name]
        dim = output_dim(layer)
        weight = self._mask(layer, "weight")
        if dim is None or weight is None:
            return set()
        alive = weight.transpose(0, dim).flatten(1).any(dim=1)
        if getattr(layer, "bias", None) is not None:
            bias = self._mask(layer, "bias")
            alive = alive | (torch.ones_like(alive) if bias is None else bias)
        dead = set((~alive).nonzero().flatten().tolist())
        return dead.intersection(channels)

    def alive_in_norm(self, name: str, channels: Iterable[int]) -> list[int]:
        """Those of a norm's channels whose weight or bias is not masked.

        Args:
            name: of the norm.
            channels: to look at.
        """
        layer, kept = self._layers[name], set()
        for target in ("weight", "bias"):
            if getattr(layer, target, None) is not None:
                mask = self._mask(layer, target)
                kept |= {c for c in channels if mask is None or bool(mask[c])}
        return sorted(kept)

    def is_stuck(self, name: str) -> bool:
        """Whether a norm shifts channels by its statistics and has no weight to mask.

        Args:
            name: of the norm.
        """
        layer = self._layers[name]
        bare = getattr(layer, "weight", None) is None
        return bare and getattr(layer, "running_mean", None) is not None

    def completed(self, norms: Mapping[str, Iterable[int]]) -> dict[str, torch.Tensor]:
        """The masks, with more channels of norms masked.

        Args:
            norms: norm -> channels.

        Returns:
            Parameter name -> mask; the present masks are not written to.
        """
        masks = dict(self.masks)
        for name, channels in norms.items():
            for parameter in (getattr(self._layers[name], t, None) for t in ("weight", "bias")):
                if parameter is not None:
                    key = self._names[id(parameter)]
                    now = masks.get(key)
                    mask = torch.ones_like(parameter, dtype=torch.bool) if now is None else now
                    masks[key] = mask.clone()
                    masks[key][sorted(channels)] = False
        return masks

    def _mask(self, layer: nn.Module, target: str) -> torch.Tensor | None:
        return self.masks.get(self._names.get(id(getattr(layer, target, None)), ""))


def output_dim(layer: nn.Module) -> int | None:
    """The dimension of a layer's weight that counts output channels, where NNI masks by it.

    Args:
        layer: any.

    Example:
        >>> output_dim(nn.Conv2d(1, 2, 1)), output_dim(nn.ConvTranspose2d(1, 2, 1))
        (0, 1)
    """
    if isinstance(layer, nn.Linear):
        return 0
    if isinstance(layer, nn.Embedding):
        return 1
    if isinstance(layer, nn.modules.conv._ConvNd):
        alone = layer.groups == layer.in_channels == layer.out_channels
        if not layer.transposed or alone:
            return 0
        return 1 if layer.groups == 1 else None
    return None
