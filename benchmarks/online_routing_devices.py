"""The measured and simulated devices of ``online_routing.py``."""

import time
from typing import Any

import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.compact_network import compact
from rtl_plugin.index_map import IndexMap
from rtl_plugin.tasks import digits

HIDDEN = 1024
WIDTHS = (1.0, 0.5, 0.25, 0.1)  # share of the hidden units
BATCH = 32
SLOWDOWN = 3.0
SCENARIOS = ("stationary", "slow half-way")
SIMULATED = ("simulated", "simulated, drawn anew half-way")


def network() -> nn.Sequential:
    """Two hidden layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, 10),
    )  # fmt: skip


def ticket(model: nn.Sequential, width: float) -> rtl.Ticket:
    """The hidden units with the largest incoming weights, as a channel ticket."""
    count = round(width * HIDDEN)
    kept = [
        model[layer].weight.detach().norm(dim=1).topk(count).indices.sort().values
        for layer in (0, 2)
    ]
    maps = {
        "0.weight": IndexMap((HIDDEN, 784), (kept[0], None)),
        "0.bias": IndexMap((HIDDEN,), (kept[0],)),
        "2.weight": IndexMap((HIDDEN, HIDDEN), (kept[1], kept[0])),
        "2.bias": IndexMap((HIDDEN,), (kept[1],)),
        "4.weight": IndexMap((10, HIDDEN), (None, kept[1])),
    }
    attributes = {
        "0": {"out_features": count},
        "2": {"in_features": count, "out_features": count},
        "4": {"in_features": count},
    }
    masks = {name: index_map.mask() for name, index_map in maps.items()}
    return rtl.Ticket(f"width {width}", masks, channels=ChannelPlan(maps, attributes))


def trained_tickets(epochs: int) -> tuple[list[nn.Module], dict[str, Any]]:
    """Small networks of the tickets after joint training, and validation and test digits."""
    images, labels = digits.load_digits()
    images = images.flatten(1)
    parts = {
        name: (images[rows], labels[rows]) for name, rows in digits.split_digits(labels).items()
    }
    model = network()
    loader = digits.TensorBatches(*parts["train"], 64, shuffle=True)
    tickets = rtl.TicketSet([ticket(model, width) for width in WIDTHS])
    groups = rtl.DataGroups.from_loaders(dict.fromkeys(tickets, loader))
    rtl.retrain(
        model, tickets, groups, digits.cross_entropy, epochs=epochs, progress=False,
        optimizer=lambda params: torch.optim.Adam(params, lr=1e-3),
    )  # fmt: skip
    return [compact(model, one) for one in tickets.values()], parts


def trace(networks: list[nn.Module], data: Any, requests: int, seed: int) -> torch.Tensor:
    """Measured (latency in seconds, accuracy) of every ticket for every request, [T, K, 2]."""
    images, labels = data
    generator = torch.Generator().manual_seed(seed)
    measured = torch.zeros(requests, len(networks), 2, dtype=torch.float64)
    with torch.inference_mode():
        for network in networks * 5:
            network(images[:BATCH])  # warm
        for request in range(requests):
            rows = torch.randint(len(labels), (BATCH,), generator=generator)
            x, y = images[rows], labels[rows]
            for k in torch.randperm(len(networks), generator=generator).tolist():
                began = time.thread_time()
                answer = networks[k](x)
                measured[request, k, 0] = time.thread_time() - began
                measured[request, k, 1] = (answer.argmax(dim=1) == y).double().mean()
    return measured


def replayed(measured: torch.Tensor, scenario: str, seed: int) -> torch.Tensor:
    """One shuffle of the requests, and the scenario applied."""
    order = torch.randperm(len(measured), generator=torch.Generator().manual_seed(seed))
    played = measured[order].clone()
    if scenario == "slow half-way":
        played[len(played) // 2 :, :, 0] *= SLOWDOWN
    return played


def simulated(scenario: str, seed: int, requests: int) -> tuple[torch.Tensor, tuple[float, float]]:
    """Outcomes (latency, quality) of tickets with random chances, [T, K, 2], and targets."""
    generator = torch.Generator().manual_seed(seed)
    chances = [torch.rand(len(WIDTHS), generator=generator) for _ in range(2)]
    second = chances[1] if scenario == SIMULATED[1] else chances[0]
    luck = torch.rand(requests, len(WIDTHS), generator=generator)
    half = requests // 2
    good = torch.cat([luck[:half] < chances[0], luck[half:] < second])
    played = torch.stack([torch.where(good, 0.5, 2.0), torch.ones(good.shape)], dim=2)
    return played.double(), (1.0, 1.0)


def successes(played: torch.Tensor, targets: tuple[float, float]) -> torch.Tensor:
    """Whether every ticket meets both targets at every request, [T, K]."""
    return (played[:, :, 0] <= targets[0]) & (played[:, :, 1] >= targets[1])
