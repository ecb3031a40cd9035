"""Networks, tickets and routings of the serving benchmark, and the loops users write without us."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torchvision
from torch import nn
from torch.nn.utils import prune

import rtl_plugin as rtl
from rtl_plugin.prunable import select_prunable
from rtl_plugin.structure import persistent_buffers

TICKETS = 10
DENSITY = 0.3
ZIPF_EXPONENT = 1.0
SEED = 0
CALIBRATION = 8  # samples that a ticket's norm statistics come from
MLP, RESNET, POINTWISE = "MLP 1024-2048-2048-10", "resnet18@32", "1x1 net 256-512-512"


class Network(NamedTuple):
    """How to build a network, and the shape of one sample."""

    build: Callable[[], nn.Module]
    sample: tuple[int, ...]


def mlp() -> nn.Module:
    """6.3 M parameters, no norms."""
    return nn.Sequential(
        nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10)
    )


def resnet18_at_32() -> nn.Module:
    """torchvision's resnet18 for 32 x 32 images: a 3 x 3 stem and no pooling behind it."""
    network: nn.Module = torchvision.models.resnet18(num_classes=10)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def pointwise() -> nn.Module:
    """1 x 1 convolutions with batch norm on 8 x 8 images."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((256, 512), (512, 512), (512, 512)):
        layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


NETWORKS = {
    MLP: Network(mlp, (1024,)),
    RESNET: Network(resnet18_at_32, (3, 32, 32)),
    POINTWISE: Network(pointwise, (256, 8, 8)),
}


def build(name: str) -> nn.Module:
    """A network of the table in eval mode, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return NETWORKS[name].build().eval()


def inputs(name: str, batch: int, seed: int = SEED) -> torch.Tensor:
    """Normal noise [B, ...]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *NETWORKS[name].sample, generator=generator)


def random_tickets(name: str, model: nn.Module, count: int = TICKETS) -> rtl.TicketSet:
    """Random masks over what is prunable by default, each with norm statistics of its own."""
    generator = torch.Generator().manual_seed(SEED)
    x = inputs(name, CALIBRATION, seed=1)
    tickets = []
    for k in range(count):
        masks = {
            n: torch.rand(p.shape, generator=generator) < DENSITY
            for n, p in select_prunable(model).items()
        }
        ticket = rtl.Ticket(f"t{k}", masks)
        tickets.append(rtl.Ticket(ticket.name, masks, _statistics(model, ticket, x)))
    return rtl.TicketSet(tickets)


def _statistics(model: nn.Module, ticket: rtl.Ticket, x: torch.Tensor) -> dict[str, torch.Tensor]:
    alone = plain_copy(model, ticket)
    for module in alone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all that is seen
    with torch.no_grad():
        alone.train()(x)
    return {n: value.clone() for n, value in persistent_buffers(alone).items()}


def converted(tickets: rtl.TicketSet, device: str, dtype: torch.dtype) -> rtl.TicketSet:
    """The tickets with their own state where the network is and in its dtype."""
    found = []
    for ticket in tickets.values():
        state = {
            n: v.to(device, dtype if v.is_floating_point() else v.dtype)
            for n, v in ticket.state.items()
        }
        found.append(rtl.Ticket(ticket.name, ticket.masks, state))
    return rtl.TicketSet(found)


def plain_copy(model: nn.Module, ticket: rtl.Ticket) -> nn.Module:
    """One ticket as a network of its own; nothing of rtl_plugin computes here."""
    plain = copy.deepcopy(model).eval()
    tensors = dict(plain.named_parameters()) | dict(plain.named_buffers())
    with torch.no_grad():
        for name, value in ticket.state.items():
            tensors[name].copy_(value)
        for name, mask in ticket.masks.items():
            tensors[name].mul_(mask.to(tensors[name].device))
    return plain


def routing(batch: int, tickets: int, exponent: float) -> torch.Tensor:
    """Tickets of a batch, long [B], shares 1 / rank ** exponent, without a random number.

    Shares are rounded to whole samples by largest remainder; an exponent of 0 is uniform. The
    samples of a ticket do not stand together: positions are visited in steps of about 0.618 B.
    """
    shares = torch.arange(1, tickets + 1, dtype=torch.float64) ** -exponent
    exact = shares / shares.sum() * batch
    counts = exact.floor().long()
    for k in (exact - counts).argsort(descending=True, stable=True)[: batch - int(counts.sum())]:
        counts[k] += 1
    step = next(s for s in range(max(1, round(0.618 * batch)), 2 * batch) if math.gcd(s, batch) < 2)
    mixed = torch.empty(batch, dtype=torch.long)
    mixed[torch.arange(batch) * step % batch] = torch.arange(tickets).repeat_interleave(counts)
    return mixed


class Sorted(NamedTuple):
    """A batch's rows by ticket: long [B], and (ticket, start, stop) on the host."""

    order: torch.Tensor
    spans: list[tuple[int, int, int]]


def sort_rows(indices: torch.Tensor) -> Sorted:
    """What a careful user does with a mixed batch first; on a GPU it waits for the device."""
    spans, start = [], 0
    for ticket, rows in enumerate(indices.bincount().tolist()):
        if rows:
            spans.append((ticket, start, start + rows))
        start += rows
    return Sorted(indices.argsort(stable=True), spans)


def loop(
    run: Callable[[int, torch.Tensor], torch.Tensor], x: torch.Tensor, rows: Sorted
) -> torch.Tensor:
    """One pass a ticket over its rows, and the rows put back."""
    by_ticket = x.index_select(0, rows.order)
    found = torch.cat([run(ticket, by_ticket[a:b]) for ticket, a, b in rows.spans])
    return torch.empty_like(found).index_copy_(0, rows.order, found)


def loop_of_copies(copies: Sequence[nn.Module], x: torch.Tensor, rows: Sorted) -> torch.Tensor:
    """The rival that keeps K masked copies."""
    return loop(lambda ticket, part: copies[ticket](part), x, rows)


class RemaskedNetwork:
    """The rival that keeps one network and K masks, with ``torch.nn.utils.prune``.

    Its hooks multiply weight and mask at every forward; between passes only references change.

    Args:
        model: a network without buffers; copied.
        tickets: whose masks are served.
        dtype: of the masks; that module's own methods make them in the weights' dtype, which takes
            as many bytes as K copies, and keep others as they are given.
    """

    def __init__(self, model: nn.Module, tickets: rtl.TicketSet, dtype: torch.dtype) -> None:
        if any(ticket.state for ticket in tickets.values()):
            raise rtl.errors.InvalidArgument(
                "a re-masked network swaps masks alone, and these tickets have state of their own"
            )
        self._network = copy.deepcopy(model).eval()
        self._masks: list[list[tuple[nn.Module, str, torch.Tensor]]] = []
        for ticket in tickets.values():
            places = []
            for name, mask in ticket.masks.items():
                path, _, local = name.rpartition(".")
                module = self._network.get_submodule(path)
                if not hasattr(module, f"{local}_mask"):
                    prune.custom_from_mask(module, local, torch.ones_like(mask, dtype=dtype))
                places.append((module, f"{local}_mask", mask.to(dtype)))
            self._masks.append(places)

    def run(self, x: torch.Tensor, rows: Sorted) -> torch.Tensor:
        """A mixed batch, one pass a ticket."""

        def under(ticket: int, part: torch.Tensor) -> torch.Tensor:
            for module, name, mask in self._masks[ticket]:
                setattr(module, name, mask)
            found: torch.Tensor = self._network(part)
            return found

        return loop(under, x, rows)
