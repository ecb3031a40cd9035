"""Networks whose channels are cut by hand, and channel tickets over them.

Plans are written down layer by layer here, so no pruner decides what the tests compare. No layer
before a norm has a bias: its gradient is rounding noise, which Adam makes steps of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from rtl_plugin import Ticket, TicketSet
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.fingerprint import model_structure, model_values
from rtl_plugin.index_map import IndexMap
from rtl_plugin.randomness import forked
from rtl_plugin.structure import persistent_buffers
from tests.models import CLASSES, Network

Choose = Callable[[int], torch.Tensor]
Axes = dict[int, torch.Tensor]


class Cutter:
    """Collects which positions of which tensors one ticket keeps."""

    def __init__(self, model: nn.Module, choose: Choose) -> None:
        self._tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        self._axes: dict[str, Axes] = {}
        self._entries: dict[str, torch.Tensor] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self.choose = choose

    def tensor(self, name: str, dim: int, kept: torch.Tensor) -> None:
        if name in self._tensors:
            self._axes.setdefault(name, {})[dim] = kept

    def entries(self, name: str, positions: torch.Tensor) -> None:
        self._entries[name] = positions

    def sets(self, layer: str, **values: Any) -> None:
        self._attributes.setdefault(layer, {}).update(values)

    def outputs(self, layer: str, kept: torch.Tensor, attribute: str = "out_channels") -> None:
        self.tensor(f"{layer}.weight", 0, kept)
        self.tensor(f"{layer}.bias", 0, kept)
        self.sets(layer, **{attribute: kept.numel()})

    def inputs(self, layer: str, kept: torch.Tensor, attribute: str = "in_channels") -> None:
        self.tensor(f"{layer}.weight", 1, kept)
        self.sets(layer, **{attribute: kept.numel()})

    def norm(self, layer: str, kept: torch.Tensor, **attributes: Any) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.tensor(f"{layer}.{name}", 0, kept)
        self.sets(layer, **(attributes or {"num_features": kept.numel()}))

    def plan(self, compact_only: Sequence[str] = ()) -> ChannelPlan:
        maps = {}
        for name, axes in self._axes.items():
            shape = tuple(self._tensors[name].shape)
            maps[name] = IndexMap(shape, tuple(axes.get(d) for d in range(len(shape))))
        for name, positions in self._entries.items():
            maps[name] = IndexMap(tuple(self._tensors[name].shape), entries=positions)
        return ChannelPlan(maps, self._attributes, tuple(compact_only))


@dataclass(frozen=True)
class ChannelNet(Network):
    """A network of the zoo with a way to cut its channels."""

    cut: Callable[[Cutter], None] = lambda cutter: None
    compact_only: tuple[str, ...] = ()
    private: tuple[str, ...] = field(default=())  # trained parameters that nothing cuts

    def __str__(self) -> str:
        return self.name


def conv_bn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def cut_conv_bn(cutter: Cutter) -> None:
    first, second = cutter.choose(6), cutter.choose(8)
    cutter.outputs("0", first)
    cutter.norm("1", first)
    cutter.inputs("3", first)
    cutter.outputs("3", second)
    cutter.norm("4", second)
    cutter.inputs("7", second, "in_features")


def mlp_flatten() -> nn.Module:
    """A kept channel is four neighbouring inputs of the layer behind the flatten."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 4, 10),
        nn.Tanh(),
        nn.Linear(10, CLASSES),
    )


def cut_mlp_flatten(cutter: Cutter) -> None:
    channels, hidden = cutter.choose(4), cutter.choose(10)
    cutter.outputs("0", channels)
    flat = (4 * channels[:, None] + torch.arange(4)).flatten()
    cutter.inputs("3", flat, "in_features")
    cutter.outputs("3", hidden, "out_features")
    cutter.inputs("5", hidden, "in_features")


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def cut_depthwise(cutter: Cutter) -> None:
    wide, out = cutter.choose(6), cutter.choose(8)
    cutter.outputs("0", wide)
    cutter.norm("1", wide)
    cutter.outputs("3", wide)
    cutter.sets("3", in_channels=wide.numel(), groups=wide.numel())
    cutter.inputs("5", wide)
    cutter.outputs("5", out)
    cutter.norm("6", out)
    cutter.inputs("9", out, "in_features")


class Residual(nn.Module):
    """The stream stays whole; only the inside of the block is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.up = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.inner = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(4, CLASSES)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        return x + self.down(torch.relu(self.inner(self.up(x))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


def cut_residual(cutter: Cutter) -> None:
    inside = cutter.choose(8)
    cutter.outputs("up", inside)
    cutter.norm("inner", inside)
    cutter.inputs("down", inside)


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


def cut_grouped(cutter: Cutter) -> None:
    """Each group keeps other inputs, so the weight is cut by single entries, not by axes."""
    left, right = cutter.choose(4), 3 - cutter.choose(4).flip(0)
    inside = torch.cat([left, 4 + right])
    out = cutter.choose(4)
    both = torch.cat([out, 4 + out])
    cutter.outputs("0", inside)
    cutter.norm("1", inside)
    rows = [row * 4 + kept for half, kept in ((out, left), (4 + out, right)) for row in half]
    cutter.entries("3.weight", torch.stack(rows)[:, :, None, None])
    cutter.sets("3", in_channels=inside.numel(), out_channels=both.numel())
    cutter.norm("4", both)
    cutter.inputs("8", both, "in_features")


def layer_norm() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 6), nn.Linear(6, CLASSES)
    )


def cut_layer_norm(cutter: Cutter) -> None:
    hidden = cutter.choose(8)
    cutter.outputs("0", hidden, "out_features")
    cutter.norm("1", hidden, normalized_shape=(hidden.numel(),))
    cutter.inputs("3", hidden, "in_features")


def small_layer_norm(model: nn.Module, ticket: Ticket) -> nn.Module:
    """The one small network that is no masked one, put together by hand."""
    kept = ticket.masks["1.weight"]
    values = {**dict(model.named_parameters()), **ticket.state}
    values = {n: v[:, kept] if n == "3.weight" else v for n, v in values.items()}
    values = {n: v[kept] if n[0] in "01" else v for n, v in values.items()}
    width = int(kept.sum())
    small = nn.Sequential(
        nn.Linear(5, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 6), nn.Linear(6, 3)
    )
    small.to(model[0].weight.dtype).load_state_dict(values)
    return small


def images(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 2, 5, 5)


def rows(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 5)


BN_NETS = (
    ChannelNet("conv_bn", conv_bn, images, True, cut_conv_bn, private=("7.bias",)),
    ChannelNet("depthwise", depthwise, images, True, cut_depthwise, private=("9.bias",)),
    ChannelNet("residual", Residual, images, True, cut_residual, private=("fc.*", "bn.*")),
    ChannelNet("grouped", grouped, images, True, cut_grouped, private=("8.bias",)),
)
MLP_FLATTEN = ChannelNet(
    "mlp_flatten", mlp_flatten, images, False, cut_mlp_flatten, private=("5.bias",)
)
LAYER_NORM = ChannelNet(
    "layer_norm", layer_norm, rows, False, cut_layer_norm, ("layer '1' (LayerNorm)",), ("4.*",)
)
MASKABLE = (*BN_NETS, MLP_FLATTEN)
CHANNEL_ZOO = (*MASKABLE, LAYER_NORM)
CONV_BN, RESIDUAL, GROUPED = BN_NETS[0], BN_NETS[2], BN_NETS[3]


def random_choice(seed: int) -> Choose:
    """Some half of the channels; the same seed gives the same."""
    generator = torch.Generator().manual_seed(seed)
    return lambda width: torch.randperm(width, generator=generator)[: width // 2].sort().values


def every_second(start: int) -> Choose:
    return lambda width: torch.arange(start, width, 2)


def channel_ticket(
    net: ChannelNet, model: nn.Module, name: str, choose: Choose | None = None
) -> Ticket:
    """One ticket with random norm statistics of the shared size."""
    cutter = Cutter(model, choose or random_choice(ord(name)))
    net.cut(cutter)
    plan = cutter.plan(net.compact_only)
    masks = {n: plan.maps[n].mask() for n, _ in model.named_parameters() if n in plan.maps}
    generator = torch.Generator().manual_seed(ord(name))
    state = {n: value.clone() for n, value in persistent_buffers(model).items()}
    for n, value in state.items():
        drawn = torch.rand(value.shape, generator=generator, dtype=torch.float64)
        if n.endswith("running_var"):
            value.copy_(0.1 + 0.4 * drawn)
        elif n.endswith("running_mean"):
            value.copy_(drawn - 0.5)
    return Ticket(name, masks, state, plan)


def channel_tickets(net: ChannelNet, model: nn.Module, names: Sequence[str] = "ab") -> TicketSet:
    tickets = [channel_ticket(net, model, name) for name in names]
    return TicketSet(tickets, structure=model_structure(model), theta_0=model_values(model))


def disjoint_channels(net: ChannelNet, model: nn.Module) -> TicketSet:
    """Ticket a keeps the even channels, b the odd ones."""
    return TicketSet([channel_ticket(net, model, n, every_second(k)) for k, n in enumerate("ab")])


def masked(tickets: TicketSet) -> TicketSet:
    """The same masks and state without channel plans: ordinary unstructured tickets."""
    bare = [Ticket(t.name, t.masks, t.state) for t in tickets.values()]
    return TicketSet(bare, structure=tickets.structure, theta_0=tickets.theta_0)


def made(net: Network, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """The network with norm affine parameters and biases that are not all alike."""
    with forked(seed):
        model = net.build().to(dtype)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                nn.init.uniform_(parameter, 0.5, 1.5)
    return model
