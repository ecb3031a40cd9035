"""What every strategy is held to: deep copies with multiplied weights, run sample by sample.

Nothing of rtl_plugin computes here, so a fault in its masking cannot hide on both sides.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from rtl_plugin import MixtureOfMasks, Ticket, TicketSet
from rtl_plugin.prunable import Prunable, select_prunable
from rtl_plugin.structure import persistent_buffers
from tests.channels.zoo import ChannelNet, channel_tickets, small_layer_norm
from tests.models import Network

NAMES = ("a", "b", "c", "d")

# Within one strategy, as design.md states them.
TOLERANCES = {
    torch.float64: {"atol": 1e-10, "rtol": 1e-10},
    torch.float32: {"atol": 1e-5, "rtol": 1e-4},
    torch.bfloat16: {"atol": 2e-2, "rtol": 2e-2},
}

PRIVATE = {
    "conv_net": ("1.weight", "1.bias", "8.weight", "8.bias"),  # norm affine and head
    "mlp": ("4.weight", "4.bias"),
    "resnet": ("bn.weight", "fc.weight", "fc.bias"),
    "transformer": ("encoder.norm1.weight", "encoder.norm1.bias", "fc.weight"),
}


def random_tickets(
    model: nn.Module,
    names: Sequence[str] = NAMES,
    *,
    keep: float = 0.5,
    private: Sequence[str] = (),
    prunable: Prunable = None,
    seed: int = 7,
) -> TicketSet:
    """Tickets that all differ: in masks, in norm statistics, and in private parameters."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        return (low + (high - low) * drawn).to(like.dtype)

    tickets = []
    for name in names:
        masks = {n: uniform(p, 0, 1) < keep for n, p in select_prunable(model, prunable).items()}
        state = {n: value.clone() for n, value in persistent_buffers(model).items()}
        for n, value in state.items():
            # Small variances, so that the network stays alive under any mask.
            if n.endswith("running_var"):
                value.copy_(uniform(value, 0.02, 0.2))
            elif n.endswith("running_mean"):
                value.copy_(uniform(value, -0.2, 0.2))
        for n in private:
            value = parameters[n].detach()
            state[n] = value + uniform(value, -0.3, 0.3)
        tickets.append(Ticket(name, masks, state))
    return TicketSet(tickets)


def plain_copy(model: nn.Module, ticket: Ticket) -> nn.Module:
    """One ticket's subnetwork as a module of its own."""
    if ticket.channels is not None and ticket.channels.compact_only:
        return small_layer_norm(model, ticket).eval()
    plain = copy.deepcopy(model)
    tensors = dict(plain.named_parameters()) | dict(plain.named_buffers())
    with torch.no_grad():
        for name, value in ticket.state.items():
            tensors[name].copy_(value)
        for name, mask in ticket.masks.items():
            tensors[name].mul_(mask)
    plain.eval()
    return plain


def sample_by_sample(
    model: nn.Module, tickets: TicketSet, x: torch.Tensor, names: Sequence[str]
) -> torch.Tensor:
    copies = {name: plain_copy(model, ticket) for name, ticket in tickets.items()}
    return torch.cat([copies[name](x[i : i + 1]) for i, name in enumerate(names)])


def served(
    network: Network, strategy: str, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, MixtureOfMasks, Network]:
    torch.manual_seed(3)
    model = network.build().to(dtype)
    channels = isinstance(network, ChannelNet)
    tickets = channel_tickets(network, model, NAMES) if channels else random_tickets(model)
    return model, MixtureOfMasks(model, tickets, strategy=strategy), network


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, **TOLERANCES[expected.dtype])
