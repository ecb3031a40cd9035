"""What a user passes to prune each architecture of torchvision: input, constructor, keywords."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
import torchvision
from torch import nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.shufflenetv2 import InvertedResidual
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

CLASSES = 11  # no hidden layer of the zoo has as many channels
Keywords = dict[str, Any]


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The classifiers, those of auxiliary heads included."""
    return [
        layer
        for layer in model.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == CLASSES)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == CLASSES)
    ]


def only_output_layers(model: nn.Module) -> Keywords:
    return {"ignored_layers": output_layers(model)}


@dataclass(frozen=True)
class Recipe:
    """How a family of architectures is built and pruned.

    Args:
        size: of the images, in pixels.
        network: constructor keywords beside ``num_classes`` and ``weights``.
        keywords: model -> keywords of the pruner.
        shown: the keywords beside the output layers in ``ignored_layers``, for the table.
        documented_fix: what the host's own example sets by hand after cutting.
    """

    size: int = 64
    network: Keywords = field(default_factory=dict)
    keywords: Callable[[nn.Module], Keywords] = only_output_layers
    shown: str = ""
    documented_fix: Callable[[nn.Module], Any] | None = None


class Opaque(torch.autograd.Function):
    """One node of the autograd graph in the place of everything between two tensors."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, *sources: torch.Tensor) -> torch.Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> None:
        raise RuntimeError("this forward is for tracing only")


Hook = Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], Any]


def hooked(network: nn.Module, inputs: torch.Tensor, hooks: dict[type[nn.Module], Hook]) -> Any:
    """Run a network with forward hooks that come before the host's."""
    handles = [
        module.register_forward_hook(hook, prepend=True)
        for module in network.modules()
        for kind, hook in hooks.items()
        if type(module) is kind
    ]
    try:
        return network(inputs)
    finally:
        for handle in handles:
            handle.remove()


def opaque(*kinds: type[nn.Module]) -> Callable[[nn.Module, Any], Any]:
    """A ``forward_fn`` that hides the inside of some layers from the host.

    The host reads the autograd graph, also inside a layer that has a customized pruner, and takes
    slices and concatenations along height and width for ones along channels.
    """

    def hide(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        return Opaque.apply(output.detach(), *inputs)

    return lambda network, inputs: hooked(network, inputs, dict.fromkeys(kinds, hide))


def without_shuffles(network: nn.Module, inputs: torch.Tensor) -> Any:
    """Run a ShuffleNet; in the graph a block's branches end in one node, without the shuffle."""
    ends: dict[nn.Module, torch.Tensor] = {}

    def note(branch: nn.Module, _: Any, output: torch.Tensor) -> None:
        ends[branch] = output

    def hide(block: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        branches = (block.branch1, block.branch2)
        return Opaque.apply(output.detach(), *(ends[b] for b in branches if b in ends))

    return hooked(network, inputs, {nn.Sequential: note, InvertedResidual: hide})


def with_auxiliary_outputs(network: nn.Module, inputs: torch.Tensor) -> Any:
    """Run a network in eval mode but for the flag that makes it return its auxiliary outputs."""
    before, network.training = network.training, True
    try:
        return network(inputs)
    finally:
        network.training = before


class AttentionPruner(tp.BasePruningFunc):
    """Cuts the same channels of every head of an attention with one fused projection."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
        qkv, out, heads = self._parts(layer)
        three = [part * out.in_features + i for part in range(3) for i in idxs]
        tp.prune_linear_out_channels(qkv, three)
        tp.prune_linear_in_channels(qkv, idxs)
        tp.prune_linear_out_channels(out, idxs)
        tp.prune_linear_in_channels(out, idxs)
        if hasattr(layer, "head_dim"):
            layer.head_dim = out.in_features // heads
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: Any) -> int:
        return self._parts(layer)[1].in_features

    get_in_channels = get_out_channels

    def get_out_channel_groups(self, layer: Any) -> int:
        return self._parts(layer)[2]

    get_in_channel_groups = get_out_channel_groups

    def _parts(self, layer: Any) -> tuple[Any, Any, int]:
        if isinstance(layer, RelativePositionalMultiHeadAttention):
            return layer.to_qkv, layer.merge, layer.n_heads
        return layer.qkv, layer.proj, layer.num_heads


class PatchMergingPruner(tp.BasePruningFunc):
    """Four neighbouring pixels are concatenated, then halved: C -> 4 C -> 2 C."""

    def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
        width = layer.reduction.in_features // 4
        four = [part * width + i for part in range(4) for i in idxs]
        if isinstance(layer, PatchMerging):
            tp.prune_layernorm_out_channels(layer.norm, four)
        tp.prune_linear_in_channels(layer.reduction, four)
        return layer

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
        tp.prune_linear_out_channels(layer.reduction, idxs)
        if isinstance(layer, PatchMergingV2):
            tp.prune_layernorm_out_channels(layer.norm, idxs)
        return layer

    def get_in_channels(self, layer: Any) -> int:
        return int(layer.reduction.in_features // 4)

    def get_out_channels(self, layer: Any) -> int:
        return int(layer.reduction.out_features)


def vision_transformer(model: nn.Module) -> Keywords:
    block = next(m for m in model.modules() if isinstance(m, EncoderBlock))
    return {**only_output_layers(model), "round_to": block.num_heads}


def set_hidden_dim(model: nn.Module) -> None:
    assert isinstance(model, VisionTransformer)
    model.hidden_dim = model.conv_proj.out_channels


def swin(model: nn.Module) -> Keywords:
    attentions = (ShiftedWindowAttention, ShiftedWindowAttentionV2)
    mergings = (PatchMerging, PatchMergingV2)
    pruners: dict[Any, Any] = {kind: AttentionPruner() for kind in attentions}
    pruners |= {kind: PatchMergingPruner() for kind in mergings}
    forward = opaque(*attentions, *mergings)
    return {**only_output_layers(model), "customized_pruners": pruners, "forward_fn": forward}


def maxvit(model: nn.Module) -> Keywords:
    kind = RelativePositionalMultiHeadAttention
    pruners = {kind: AttentionPruner()}
    forward = opaque(kind)
    return {**only_output_layers(model), "customized_pruners": pruners, "forward_fn": forward}


def shufflenet(model: nn.Module) -> Keywords:
    blocks = [m for m in model.modules() if isinstance(m, InvertedResidual)]
    shuffled = [c for b in blocks for c in (*b.branch1, *b.branch2) if isinstance(c, nn.Conv2d)]
    # The first convolution of branch2 and the depthwise one behind it stay inside the block.
    inside = [c for b in blocks for c in list(b.branch2)[:4]]
    ignored = [c for c in shuffled if not any(c is other for other in inside)]
    ignored += output_layers(model)
    return {"ignored_layers": ignored, "forward_fn": without_shuffles}


def auxiliary(model: nn.Module) -> Keywords:
    return {**only_output_layers(model), "forward_fn": with_auxiliary_outputs}


_AUXILIARY = {"aux_logits": True, "init_weights": False, "transform_input": False}
_HIDDEN = "forward_fn hides their inside"
RECIPES = {
    "googlenet": Recipe(64, _AUXILIARY, auxiliary, "forward_fn with auxiliary outputs"),
    "inception": Recipe(299, _AUXILIARY, auxiliary, "forward_fn with auxiliary outputs"),
    "vit_h_14": Recipe(
        28, {"image_size": 28}, vision_transformer, "round_to=num_heads", set_hidden_dim
    ),
    "vit": Recipe(
        32, {"image_size": 32}, vision_transformer, "round_to=num_heads", set_hidden_dim
    ),
    "swin": Recipe(
        64, {}, swin, f"customized_pruners for attention and patch merging, {_HIDDEN}"
    ),
    "maxvit": Recipe(
        224, {"input_size": (224, 224)}, maxvit, f"customized_pruners for attention, {_HIDDEN}"
    ),
    "shufflenet": Recipe(
        64,
        {},
        shufflenet,
        "ignored_layers: convolutions whose outputs are shuffled; forward_fn hides the shuffles",
    ),
}  # fmt: skip


def recipe_for(architecture: str) -> Recipe:
    """The recipe of the longest prefix of the name, or the plain one."""
    fitting = [prefix for prefix in RECIPES if architecture.startswith(prefix)]
    return RECIPES[max(fitting, key=len)] if fitting else Recipe()


def build(architecture: str, recipe: Recipe, seed: int) -> nn.Module:
    """The architecture with random weights, also where torchvision starts with ones and zeros."""
    torch.manual_seed(seed)
    model: nn.Module = torchvision.models.get_model(
        architecture, weights=None, num_classes=CLASSES, **recipe.network
    )
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            uniform = tensor.dim() < 2 or "layer_scale" in name or not bool(tensor.any())
            if tensor.is_floating_point() and uniform:
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def architectures() -> list[str]:
    return [str(name) for name in torchvision.models.list_models(module=torchvision.models)]
