"""Four small networks that every property of the core is held to, and an input for each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

CLASSES = 3


def conv_net() -> nn.Module:
    """Convolutions with batch norm: the statistics differ between groups."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, CLASSES),
    )


def conv_net_input(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 1, 6, 6)


def mlp() -> nn.Module:
    """No normalisation, so no buffers at all."""
    return nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    )


def mlp_input(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 5)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + self.shortcut(x))


class SmallResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2))
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.blocks(torch.relu(self.bn(self.stem(x))))
        return self.fc(features.mean(dim=(2, 3)))


def resnet() -> nn.Module:
    """Two basic blocks, one of them with a projection shortcut."""
    return SmallResNet()


def resnet_input(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 1, 6, 6)


class SmallTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(
            8, nhead=2, dim_feedforward=12, dropout=0.0, batch_first=True
        )
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.encoder(x).mean(dim=1))


def transformer() -> nn.Module:
    """One encoder layer without dropout; in eval and no_grad torch takes its fused fast path."""
    return SmallTransformer()


def transformer_input(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 5, 8)


@dataclass(frozen=True)
class Network:
    """A network of the zoo.

    Args:
        name: its name in test ids.
        build: makes a new one from torch's present random state.
        inputs: makes a batch for it; takes the batch size.
        has_norm_statistics: whether it has batch norm, so own state.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[..., torch.Tensor]
    has_norm_statistics: bool

    def __str__(self) -> str:
        return self.name


ZOO = (
    Network("conv_net", conv_net, conv_net_input, True),
    Network("mlp", mlp, mlp_input, False),
    Network("resnet", resnet, resnet_input, True),
    Network("transformer", transformer, transformer_input, False),
)
