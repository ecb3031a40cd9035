"""Networks that move, merge or fold the batch, and the inputs that they take."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CLASSES = 3


class TimeFirst(nn.Module):
    """The batch lies in dimension 1 while the layers run."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.fc(x.transpose(0, 1)))).mean(0)


class MergedPositionMajor(nn.Module):
    """Samples lie B rows apart in the merged dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, _ = x.shape
        h = torch.tanh(self.norm(self.fc(x.transpose(0, 1).flatten(0, 1))))
        return self.head(h).view(time, batch, CLASSES).mean(0)


class MergedSampleMajor(nn.Module):
    """A sample's rows lie side by side in the merged dimension, as in window attention."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.norm(self.fc(x.flatten(0, 1))))
        return self.head(h).unflatten(0, x.shape[:2]).mean(1)


class Attention(nn.Module):
    """Self-attention whose weights are asked for; either way round."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(4, CLASSES), batch_first

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x if self.batch_first else x.transpose(0, 1)
        h, weights = self.attention(x, x, x, need_weights=True)
        return self.head(h if self.batch_first else h.transpose(0, 1)), weights


class Encoder(nn.Module):
    """A stack of torch's encoder layers, with fused paths of its own."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


class PatchNet(nn.Module):
    """Patches, a class token and a learned position embedding that is masked too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.position = nn.Parameter(torch.randn(1, 10, 6))
        self.block = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], dim=1) + self.position
        return self.head(self.block(h)[:, 0])


class Windows(nn.Module):
    """Windows of an image as a batch of their own, shifted before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 3)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        x = torch.roll(x, (1, 1), (1, 2))
        w = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
        w = torch.tanh(self.inside(w.reshape(-1, 4, channels)))
        w = self.attention(w, w, w, need_weights=False)[0]
        w = w.view(batch, height // 2, width // 2, 2, 2, channels).transpose(2, 3)
        x = torch.roll(w.reshape(batch, height, width, channels), (-1, -1), (1, 2))
        return self.head(x.mean((1, 2)))


class Recurrent(nn.Module):
    """A recurrent layer, its last state read both ways round."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool) -> None:
        super().__init__()
        self.layer = kind(4, 5, num_layers=2, batch_first=batch_first, bidirectional=True)
        self.head, self.batch_first = nn.Linear(10, CLASSES), batch_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, state = self.layer(x if self.batch_first else x.transpose(0, 1))
        last = state[0] if isinstance(state, tuple) else state
        h = h[:, -1] if self.batch_first else h[-1]
        return self.head(h + torch.cat([last[0], last[1]], dim=1))


class Packed(nn.Module):
    """A packed sequence inside: rows of samples are interleaved by length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.head(h.sum(1))


class Convolutions(nn.Module):
    """Down and up again, with grouped, depthwise and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.groups = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.leave = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.relu(self.enter(x))
        h = self.groups(self.depthwise(torch.relu(self.norm(self.down(wide)))))
        return self.leave(torch.cat([self.up(h), wide], dim=1))


class Functional(nn.Module):
    """Reads the weights of a layer around it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(F.linear(x, self.fc.weight * self.other.weight.norm(), self.fc.bias))
        return self.head(self.other(h))


class SharedTwice(nn.Module):
    """One module is called several times, and one weight is tied into another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.tied, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.tied.weight = self.fc.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.fc(x))
        h = self.fc(h.flatten(0, 1)).view_as(h)
        h = self.fc(h.transpose(0, 1).flatten(0, 1)).view(h.shape[1], h.shape[0], 4)
        return self.head(torch.tanh(self.tied(h)).mean(0))


class Tokens(nn.Module):
    """Integers into a masked embedding that is tied to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc = nn.Embedding(7, 4, padding_idx=0), nn.Linear(4, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.fc(self.embed(ids))))


class BatchMean(nn.Module):
    """Every sample sees its batch mates."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.fc(x))
        return self.head(h - h.mean(0))


class Reordered(nn.Module):
    """The batch is turned around inside, and back at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.fc(x.flip(0)))).flip(0)


class FiniteOnly(nn.Module):
    """Refuses numbers that are none, as guarded networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("not a number")
        return self.head(torch.tanh(self.fc(x)))


class Stashing(nn.Module):
    """Keeps an activation as an attribute between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = torch.tanh(self.fc(x))
        return self.head(self.kept * x)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclass
class Answer:
    logits: torch.Tensor
    parts: dict[str, torch.Tensor]
    note: str = "as it was"


class NestedOutputs(nn.Module):
    """Dicts and tuples in, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, batch: dict[str, Any], *, scale: float = 1.0) -> Answer:
        first, second = batch["pair"]
        h = torch.tanh(self.fc(first * scale) + second)
        return Answer(self.head(h), {"h": h})


def weight_normed() -> nn.Module:
    """A weight made of two masked tensors, one of them a single number, by a parametrization."""
    fc = parametrizations.weight_norm(nn.Linear(4, 6), dim=None)
    return nn.Sequential(fc, nn.Tanh(), nn.Linear(6, CLASSES))


def spectral_normed() -> nn.Module:
    """A weight that is divided by an estimate kept in buffers."""
    fc = parametrizations.spectral_norm(nn.Linear(4, 6))
    return nn.Sequential(fc, nn.Tanh(), nn.Linear(6, CLASSES))


def conv_1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 9, 3, padding=1), nn.BatchNorm1d(9), nn.ReLU(), nn.Conv1d(9, CLASSES, 1)
    )


def conv_3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 9, 2), nn.BatchNorm3d(9), nn.ReLU(), nn.Flatten(), nn.Linear(9 * 8, CLASSES)
    )
