"""The questions of the serving benchmark that a CPU and a GPU answer alike."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

import rtl_plugin as rtl
from benchmarks.serving_networks import (
    ZIPF_EXPONENT,
    RemaskedNetwork,
    build,
    converted,
    inputs,
    loop_of_copies,
    plain_copy,
    random_tickets,
    routing,
    sort_rows,
)
from benchmarks.serving_timing import (
    Program,
    Setting,
    check_apart,
    measured,
    twice,
)
from rtl_torch_pruning import RTLPruner

Rows = list[dict[str, Any]]
COPIES, REMASKED = "loop over copies", "one network re-masked"
DENSE = "dense network, whole batch"
AUTO, LEAN, CACHED, KEPT = "auto", "auto, budget 0", "cached", "auto, copies kept"
ZIPF, DIRECT, BY_NAME, BY_INDEX = "auto, Zipf", "masked copy", "one name", "index tensor"
UNPRUNED, COMPACT = "unpruned", "compact"


@dataclass(frozen=True)
class Served:
    """A network, its tickets, the same as K masked copies, and a batch.

    Args:
        model: the network.
        tickets: K.
        copies: K networks.
        x: [B, ...].
        uniform: ticket of every sample, long [B] on the host.
        zipf: the same with Zipf shares.
    """

    model: nn.Module
    tickets: rtl.TicketSet
    copies: tuple[nn.Module, ...]
    x: torch.Tensor
    uniform: torch.Tensor
    zipf: torch.Tensor

    def expected(self, indices: torch.Tensor) -> torch.Tensor:
        """What the copies give, each for its rows."""
        with torch.inference_mode():
            parts = {int(k): self.copies[int(k)](self.x[indices == k]) for k in indices.unique()}
            first = next(iter(parts.values()))
            out = first.new_empty(len(indices), *first.shape[1:])
            for k, part in parts.items():
                out[indices == k] = part
        return out

    def mixture(
        self, strategy: str = "auto", budget: int | None = None
    ) -> Callable[[torch.Tensor], Callable[[], torch.Tensor]]:
        """A mixture; given a routing, a call of it."""
        mixture = rtl.MixtureOfMasks(self.model, self.tickets, strategy=strategy, budget=budget)

        def routed(indices: torch.Tensor) -> Callable[[], torch.Tensor]:
            return lambda: mixture(self.x, tickets=indices)

        return routed

    @functools.cached_property
    def masked_bytes(self) -> int:
        """Bytes of all tickets' masked weights: a budget that keeps them."""
        parameters = dict(self.model.named_parameters())
        return len(self.tickets) * sum(parameters[name].nbytes for name in self.tickets.shapes)


def served(setting: Setting) -> Served:
    """Everything that the programs of a setting need."""
    model = build(setting.net)
    tickets = random_tickets(setting.net, model, setting.tickets)
    tickets = converted(tickets, setting.device, setting.dtype)
    model.to(setting.device, setting.dtype)
    x = inputs(setting.net, setting.batch).to(setting.device, setting.dtype)
    if setting.device == "cuda" and x.dim() == 4:
        model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    made = Served(
        model,
        tickets,
        tuple(plain_copy(model, ticket) for ticket in tickets.values()),
        x,
        routing(setting.batch, setting.tickets, 0.0),
        routing(setting.batch, setting.tickets, ZIPF_EXPONENT),
    )
    wrong = (made.uniform + 1) % setting.tickets
    check_apart(made.expected(made.uniform), made.expected(wrong))
    return made


def cpu_mixed(setting: Setting, rounds: int, every_strategy: bool) -> Rows:
    """A mixed batch on a CPU: users' loops, our strategies, two budgets, two routings.

    Args:
        setting: network, batch, tickets.
        rounds: of all programs.
        every_strategy: also the re-masked network and strategies that repeat others where weights
            dominate less.
    """
    made = served(setting)
    x, uniform = made.x, made.uniform
    right, skewed = made.expected(uniform), made.expected(made.zipf)
    auto, cached = made.mixture(), made.mixture("cached")
    lean = made.mixture("auto", 0)
    programs = {
        DENSE: Program(lambda: made.model(x)),
        **twice(COPIES, Program(lambda: loop_of_copies(made.copies, x, sort_rows(uniform)), right)),
        **twice(CACHED, Program(cached(uniform), right)),
        **twice(AUTO, Program(auto(uniform), right)),
        LEAN: Program(lean(uniform), right),
        ZIPF: Program(auto(made.zipf), skewed),
    }
    if every_strategy:
        remasked = RemaskedNetwork(made.model, made.tickets, setting.dtype)
        lighter = RemaskedNetwork(made.model, made.tickets, torch.bool)
        programs |= twice(REMASKED, Program(lambda: remasked.run(x, sort_rows(uniform)), right))
        programs[f"{REMASKED}, bool masks"] = Program(
            lambda: lighter.run(x, sort_rows(uniform)), right
        )
        for name in ("slices", "grouped", "scratch"):
            programs[name] = Program(made.mixture(name)(uniform), right)
    return measured(setting, programs, rounds)


def gpu_mixed(setting: Setting, rounds: int) -> Rows:
    """A mixed batch on a GPU, launched one by one; rivals know the routing on the host."""
    made = served(setting)
    uniform, zipf = made.uniform.to(setting.device), made.zipf.to(setting.device)
    right, skewed = made.expected(made.uniform), made.expected(made.zipf)
    rows = sort_rows(made.uniform)
    rows = rows._replace(order=rows.order.to(setting.device))
    auto, kept = made.mixture(), made.mixture("auto", made.masked_bytes)
    programs = {
        **twice(DENSE, Program(lambda: made.model(made.x))),
        **twice(COPIES, Program(lambda: loop_of_copies(made.copies, made.x, rows), right)),
        **twice(CACHED, Program(made.mixture("cached")(uniform), right)),
        **twice(AUTO, Program(auto(uniform), right)),
        LEAN: Program(made.mixture("auto", 0)(uniform), right),
        KEPT: Program(kept(uniform), right),
        ZIPF: Program(auto(zipf), skewed),
    }
    return measured(setting, programs, rounds)


def one_ticket(setting: Setting, rounds: int) -> Rows:
    """A batch of one ticket, named once or a sample, against the ticket's masked copy."""
    made = served(setting)
    last = setting.tickets - 1
    indices = torch.full((setting.batch,), last, device=setting.device)
    right = made.expected(indices.cpu())
    mixture = rtl.MixtureOfMasks(made.model, made.tickets)
    name = made.tickets.names[last]
    programs = {
        **twice(DIRECT, Program(lambda: made.copies[last](made.x), right)),
        BY_NAME: Program(lambda: mixture(made.x, tickets=name), right),
        BY_INDEX: Program(lambda: mixture(made.x, tickets=indices), right),
    }
    return measured(setting, programs, rounds)


def compact(setting: Setting, rounds: int) -> Rows:
    """Tickets of half the channels, random ones, against the unpruned network."""
    model = build(setting.net).to(setting.device, setting.dtype)
    x = inputs(setting.net, setting.batch).to(setting.device, setting.dtype)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    names = [f"t{k}" for k in range(setting.tickets)]
    batches = [(x[:1], torch.zeros(1))]
    groups = rtl.DataGroups.from_loaders(dict.fromkeys(names, batches))
    pruner = RTLPruner(
        model, x[:1], tp.importance.RandomImportance(), groups=groups, steps=0,
        pruning_ratio=0.5, ignored_layers=[head], progress=False,
    )  # fmt: skip
    pruner.step()
    tickets, small = pruner.tickets, pruner.compact(names[0])
    counted = [tp.utils.count_ops_and_params(network, x[:1])[0] for network in (small, model)]
    mixture = rtl.MixtureOfMasks(model, tickets)
    reference = rtl.MixtureOfMasks(model, tickets, strategy="reference")
    with torch.inference_mode():
        right = reference(x, tickets=names[0])
        check_apart(right, reference(x, tickets=names[1]))
    model.eval()
    programs = {
        **twice(UNPRUNED, Program(lambda: model(x))),
        COMPACT: Program(lambda: mixture(x, tickets=names[0]), right),
        "small network alone": Program(lambda: small(x), right),
    }
    return measured(setting, programs, rounds, fraction=counted[0] / counted[1])
