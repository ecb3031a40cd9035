"""Widths that networks keep as plain attributes, which the host does not know of."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch_pruning as tp
from torch import nn

from rtl_torch_pruning.working_network import WorkingNetwork

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads", "nhead")
_HEAD_WIDTHS = ("head_dim", "attention_head_size", "head_size", "dim_head", "d_head")
_ALL_WIDTHS = ("all_head_size", "attn_dim", "inner_dim")


def update_stale_attributes(work: WorkingNetwork, host: tp.pruner.BasePruner) -> None:
    """Set attributes that follow from the widths of layers, after the host has cut these.

    Known are the head counts and sizes of attention modules whose projections are listed in
    ``num_heads`` (fused or separate, by the names that timm and transformers use), the
    ``hidden_dim`` of torchvision's VisionTransformer, and the shape of RMSNorm. An attribute is
    only set where it held the dense width before.

    Args:
        work: the working network.
        host: its pruner, with the present ``num_heads``.
    """
    for name, module in work.network.named_modules():
        for attribute, dense, now in _expected(work, host, name, module):
            if work.dense_attribute(name, attribute) == dense and dense != now:
                vars(module)[attribute] = now


def _expected(
    work: WorkingNetwork, host: tp.pruner.BasePruner, name: str, module: nn.Module
) -> Iterator[tuple[str, Any, Any]]:
    """Attribute, its dense value, and the value that fits the cut layers."""
    patches = getattr(module, "conv_proj", None)
    if type(module).__name__ == "VisionTransformer" and isinstance(patches, nn.Conv2d):
        dense = work.dense_attribute(f"{name}.conv_proj" if name else "conv_proj", "out_channels")
        yield "hidden_dim", dense, patches.out_channels
    if isinstance(module, nn.RMSNorm) and module.weight is not None:
        dense = work.dense_attribute(name, "normalized_shape")
        yield "normalized_shape", dense, tuple(module.weight.shape)
    projections: list[tuple[str, Any]] = [
        (local, child) for local, child in module.named_children() if child in host.init_num_heads
    ]
    if not projections:
        return
    local, projection = max(projections, key=lambda item: host.init_num_heads[item[1]])
    child = f"{name}.{local}" if name else local
    heads = (host.init_num_heads[projection], host.num_heads[projection])
    fused = 3 if len(projections) == 1 and not hasattr(module, "num_key_value_heads") else 1
    widths = (
        work.dense_attribute(child, "out_features") // fused,
        projection.out_features // fused,
    )
    for attribute in _HEADS:
        yield attribute, *heads
    for attribute in _HEAD_WIDTHS:
        yield attribute, widths[0] // heads[0], widths[1] // heads[1]
    for attribute in _ALL_WIDTHS:
        yield attribute, *widths


def suspects(work: WorkingNetwork, cut_widths: Mapping[int, int]) -> list[str]:
    """What may keep the cut network from running: attributes that hold a width which was cut.

    Args:
        work: the working network, as cut.
        cut_widths: dense width -> width of a layer that was cut.

    Returns:
        ``module.attribute=value`` of modules that are no layers of torch, and one attention layer
        of those whose heads the cut does not fill evenly, at most six.
    """
    found = []
    uneven = set()
    for name, module in work.network.named_modules():
        if isinstance(module, nn.MultiheadAttention) and module.embed_dim % module.num_heads:
            sizes = (module.embed_dim, module.num_heads)
            if sizes not in uneven:
                found.append(
                    f"{name}.embed_dim={sizes[0]} of MultiheadAttention, which is no multiple of "
                    f"its num_heads={sizes[1]} (pass round_to={sizes[1]})"
                )
            uneven.add(sizes)
        if type(module).__module__.startswith("torch.nn."):
            continue
        for attribute, value in vars(module).items():
            if type(value) is int and value in cut_widths and not attribute.startswith("_"):
                shown = f"{name}.{attribute}" if name else attribute
                found.append(f"{shown}={value} of {type(module).__name__}")
    return found[:6]
