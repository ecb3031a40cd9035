"""Tiny networks with every kind of layer that Torch-Pruning cuts, each with three outputs a sample.

Their last layer is called ``head`` and is never cut.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.randomness import forked
from tests.models import CLASSES


class Features(nn.Module):
    """A network of parts in a row and a head."""

    def __init__(self, *parts: nn.Module, width: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.parts(x))


def pooled() -> list[nn.Module]:
    return [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def conv_bn() -> nn.Module:
    first = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)]
    return Features(*first, *second, *pooled(), width=12)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.inner = nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.down(torch.relu(self.inner(self.up(x))))
        return self.head(x.mean(dim=(2, 3)))


def depthwise() -> nn.Module:
    first = [nn.Conv2d(2, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    middle = [nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()]
    return Features(*first, *middle, nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), *pooled(), width=12)


def grouped() -> nn.Module:
    first = [nn.Conv2d(2, 16, 1), nn.BatchNorm2d(16), nn.ReLU()]
    middle = [nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(16)]
    return Features(*first, *middle, nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8), *pooled(), width=8)


class Dense(nn.Module):
    """Concatenations of concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.one = nn.Conv2d(6, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(14)
        self.two = nn.Conv2d(14, 10, 1)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = self.bn(torch.cat([x, torch.relu(self.one(x))], dim=1))
        x = torch.cat([x, self.two(torch.relu(x))], dim=1)
        return self.head(x.mean(dim=(2, 3)))


class Split(nn.Module):
    """A convolution whose output is split between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Conv2d(2, 16, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 12, 1), nn.Conv2d(10, 12, 1)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        widths = [self.left.in_channels, self.right.in_channels]
        left, right = torch.split(torch.relu(self.both(x)), widths, dim=1)
        return self.head((self.right(right) + self.left(left)).mean(dim=(2, 3)))


def flatten() -> nn.Module:
    parts = [nn.Conv2d(2, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10), nn.Tanh()]
    return Features(*parts, width=10)


def group_norm() -> nn.Module:
    first = [nn.Conv2d(2, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()]
    return Features(*first, nn.Conv2d(8, 16, 1), nn.GroupNorm(4, 16), *pooled(), width=16)


def layer_norm() -> nn.Module:
    parts = [nn.Linear(8, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU()]
    return Features(*parts, width=10)


class FusedAttention(nn.Module):
    """Attention with one projection for queries, keys and values, by the names of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 4
        self.stem = nn.Linear(8, 12)
        self.qkv = nn.Linear(12, 48)
        self.proj = nn.Linear(16, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q @ k.transpose(-2, -1)) * self.head_dim**-0.5).softmax(dim=-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return self.head(x.mean(dim=1))


class SeparateAttention(nn.Module):
    """Attention with three projections, by the names of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size, self.all_head_size = 4, 4, 16
        self.stem = nn.Linear(8, 12)
        self.query, self.key, self.value = (nn.Linear(12, 16) for _ in range(3))
        self.dense = nn.Linear(16, 12)
        self.head = nn.Linear(12, CLASSES)

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        q, k, v = (self.heads(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = (q @ k.transpose(-2, -1) / self.attention_head_size**0.5).softmax(dim=-1) @ v
        mixed = mixed.permute(0, 2, 1, 3).contiguous()
        x = x + self.dense(mixed.view(*mixed.shape[:2], self.all_head_size))
        return self.head(x.mean(dim=1))


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.ffn = nn.Linear(16, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.ffn(torch.relu(x))).mean(dim=1))


def single_output() -> nn.Module:
    """A convolution with one output channel inside, which can never be cut."""
    parts = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)]
    return Features(*parts, nn.Flatten(), nn.Linear(25, 10), nn.ReLU(), width=10)


class Unwrapped(nn.Module):
    """Parameters of the network itself, one of them with its channels in front."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.after = nn.Conv2d(8, 12, 3, padding=1)
        self.shift = nn.Parameter(torch.rand(12, 5, 5))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x) * self.scale)
        return self.head((self.after(x) + self.shift).mean(dim=(2, 3)))


def transposed() -> nn.Module:
    parts = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 2, stride=2)]
    return Features(*parts, nn.BatchNorm2d(12), nn.Conv2d(12, 8, 1), *pooled(), width=8)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        return self.head((x + self.down(torch.relu(self.up(x)))).mean(dim=1))


def images(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 2, 5, 5)


def rows(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 8)


def tokens(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 8)


def numbers(batch: int = 4) -> torch.Tensor:
    return torch.randint(10, (batch, 3))


def head_only(model: Any) -> dict[str, Any]:
    return {"ignored_layers": [model.head]}


def fused_heads(model: Any) -> dict[str, Any]:
    return {"ignored_layers": [model.head], "num_heads": {model.qkv: 4}}


def separate_heads(model: Any) -> dict[str, Any]:
    heads = {model.query: 4, model.key: 4, model.value: 4}
    return {"ignored_layers": [model.head], "num_heads": heads}


def even_widths(model: Any) -> dict[str, Any]:
    """Two heads divide an even width only."""
    return {"ignored_layers": [model.head], "round_to": 2}


def both_unwrapped(model: Any) -> dict[str, Any]:
    return {
        "ignored_layers": [model.head],
        "unwrapped_parameters": [(model.scale, 1), (model.shift, 0)],
    }


@dataclass(frozen=True)
class Net:
    """A network of the zoo.

    Args:
        name: in test ids.
        make: builds it from torch's present random state.
        inputs: makes a batch; takes the batch size.
        keywords: of the host, that this network needs; speak of the model that is given.
        exact: masking computes what the small network computes.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[..., torch.Tensor]
    keywords: Callable[[Any], dict[str, Any]] = head_only
    exact: bool = True

    def __str__(self) -> str:
        return self.name

    def build(self, seed: int = 0) -> Any:
        with forked(seed):
            return self.make()


CONV_BN = Net("conv_bn", conv_bn, images)
FLATTEN = Net("flatten", flatten, images)
DENSE = Net("dense", Dense, images)
GROUPED = Net("grouped", grouped, images)
GROUP_NORM = Net("group_norm", group_norm, images, exact=False)
LAYER_NORM = Net("layer_norm", layer_norm, rows, exact=False)
FUSED = Net("fused_attention", FusedAttention, tokens, fused_heads, exact=False)
SEPARATE = Net("separate_attention", SeparateAttention, tokens, separate_heads, exact=False)
MULTIHEAD = Net("multihead", Multihead, tokens, even_widths, exact=False)
UNWRAPPED = Net("unwrapped", Unwrapped, images, both_unwrapped)
# The host's own pruner loses track of where a split is once it has cut there, in 1.6.1.
SPLIT = Net("split", Split, images)
BN_NETS = (
    CONV_BN, Net("residual", Residual, images), Net("depthwise", depthwise, images), GROUPED, DENSE,
    Net("single_output", single_output, images), Net("transposed", transposed, images),
)  # fmt: skip
ZOO = (
    *BN_NETS, SPLIT, FLATTEN, GROUP_NORM, LAYER_NORM, FUSED, SEPARATE,
    MULTIHEAD, UNWRAPPED, Net("embedded", Embedded, numbers),
)  # fmt: skip
