"""Networks that looked at with three samples do not show all that they do."""

import enum
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Two layers; what lies between is each network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def merged(self, x: torch.Tensor, sample_major: bool) -> torch.Tensor:
        """The first layer on [B, T, 4] with batch and time merged either way round."""
        batch, time, _ = x.shape
        if sample_major:
            return self.fc(x.flatten(0, 1)).unflatten(0, (batch, time))
        h = self.fc(x.transpose(0, 1).flatten(0, 1))
        return h.unflatten(0, (time, batch)).transpose(0, 1)


class ExtraWhereLarge(Net):
    """How often a layer runs depends on the ticket."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(4, 4)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.fc(x)
        return self.head(self.extra(h) if float(h.detach().abs().max()) > 1e-3 else h)


class Conditioned(nn.Linear):
    """Multiplies by what it was told before."""

    condition: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.condition


class ToldBefore(nn.Module):
    """A side input reaches a layer as an attribute, as in conditional norms."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Conditioned(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        self.block.condition = condition
        return self.head(torch.tanh(self.block(x)))


class Block(nn.Module):
    """Reads one weight functionally, and uses a layer of another module."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.fc, self.shared = nn.Linear(4, 4), shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(F.linear(self.shared(x), self.fc.weight))


class SharedInside(nn.Module):
    """A layer of its own is inside a block too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.block, self.head = Block(self.first), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.first(x)))


class Order(enum.Enum):
    SAMPLES = "samples"
    POSITIONS = "positions"


class ByEnum(Net):
    """An option that is no plain value says how rows are merged."""

    def forward(self, x: torch.Tensor, order: Order) -> torch.Tensor:
        return self.head(torch.tanh(self.merged(x, order is Order.SAMPLES)).mean(1))


@dataclass
class Request:
    x: torch.Tensor
    order: str


class ByField(Net):
    """The option is a field beside the tensors."""

    def forward(self, request: Request) -> torch.Tensor:
        h = self.merged(request.x, request.order == "samples")
        return self.head(torch.tanh(h).mean(1))


class FirstUseSkipped(Net):
    """The first of two calls of one layer is left out where no sample asks for it."""

    def forward(self, x: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        if asked.any():
            x = x + torch.where(asked.view(-1, 1, 1), self.merged(x, True), 0)
        return self.head(torch.tanh(self.merged(x, False)).mean(1))


class Peak(Net):
    """Keeps the largest value seen as a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = torch.tensor(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.peak = torch.maximum(self.peak, x.detach().abs().max())
        return self.head(torch.tanh(self.fc(x / self.peak)))


class Centred(Net):
    """Mixes the batch before its first layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.fc(x - x.mean(0))))


class CentredTokens(Net):
    """The same, of embedded integers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = self.embed(ids).mean(1)
        return self.head(torch.tanh(self.fc(h - h.mean(0))))


class FixedPoint(Net):
    """Iterates until nothing changes, which NaN never stops doing."""

    limit = 2_000  # far more than it needs, and soon reached by a loop that cannot end

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.fc.weight.mul_(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.zeros_like(x)
        for _ in range(self.limit):
            new = torch.tanh(self.fc(z) + x)
            if (new - z).abs().max() < 1e-12:
                return self.head(new)
            z = new
        raise AssertionError(f"no end after {self.limit} steps")


class Distribution(Net):
    """Gives something that is no nesting of tensors."""

    def forward(self, x: torch.Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(self.fc(x), 1.0)
