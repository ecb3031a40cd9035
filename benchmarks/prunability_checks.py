"""Everything that must hold of two channel tickets of one architecture, checked one by one."""

import copy
import gc
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rtl_plugin as rtl
from benchmarks.prunability_host import (
    RATIO,
    Failed,
    LayerScores,
    host_alone,
    host_cut,
    output_shapes,
    quiet,
    require,
    shortened,
    train_step,
    without_keywords,
)
from benchmarks.prunability_recipes import Recipe, build, recipe_for
from rtl_plugin.integration_api import bit_equal, is_plain
from rtl_torch_pruning import RTLPruner

TICKETS = ("a", "b")
CHECKS = ("build and step", "compact", "train", "gather", "scatter back", "reload")


def check(architecture: str, plain: bool = True) -> dict[str, Any]:
    """Two tickets of an architecture, against the host.

    Args:
        architecture: a name of ``torchvision.models``.
        plain: also try the host without the recipe's keywords.

    Returns:
        A row: what was passed, what the host can do, ``checks`` (name -> True, False, or None
        where an earlier one failed), ``reason`` of the first failure, and what it took.
    """
    recipe, start = recipe_for(architecture), time.process_time()
    model = build(architecture, recipe, seed=0)
    batch = torch.rand(2, 3, recipe.size, recipe.size), torch.tensor([0, 1])
    constructor = ", ".join(f"{key}={value}" for key, value in recipe.network.items())
    row: dict[str, Any] = {
        "architecture": architecture,
        "parameters": sum(p.numel() for p in model.parameters()),
        "input": f"2 x 3 x {recipe.size} x {recipe.size}",
        "constructor": constructor,
        "keywords": recipe.shown,
        "checks": dict.fromkeys(CHECKS),
        "masked": None,
        "reason": "",
        "without_keywords": "",
    }
    if plain and recipe.shown:
        row["without_keywords"] = without_keywords(model, batch, recipe)
    row["host"], first_cut = host_alone(model, batch[0], recipe)
    Checks(architecture, model, batch, recipe, row, first_cut).run()
    row["seconds"] = round(time.process_time() - start, 1)
    row["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


class Checks:
    """Runs the checks one after the other and notes them in a row.

    Args:
        architecture: its name, to build it anew.
        model: the shared network.
        batch: images and labels.
        recipe: keywords and constructor arguments.
        row: receives the results.
        first_cut: the host's network for the first ticket, where it has one.
    """

    def __init__(
        self,
        architecture: str,
        model: nn.Module,
        batch: tuple[torch.Tensor, torch.Tensor],
        recipe: Recipe,
        row: dict[str, Any],
        first_cut: nn.Module | None,
    ) -> None:
        self.architecture, self.model, self.batch = architecture, model, batch
        self.recipe, self.row, self.first_cut = recipe, row, first_cut

    def run(self) -> None:
        """All checks, up to the first that cannot even be tried."""
        steps = (self.step, self.compact, self.train, self.gather, self.scatter, self.reload)
        for name, function in zip(CHECKS, steps, strict=True):
            try:
                function()
                self.row["checks"][name] = True
            except Exception as error:  # noqa: BLE001
                self.row["checks"][name] = False
                self.row["reason"] = self.row["reason"] or f"{name}: {shortened(error)}"
                if name in CHECKS[:2]:
                    return
            gc.collect()

    def step(self) -> None:
        with quiet():
            pruner = RTLPruner(
                self.model,
                self.batch[0],
                LayerScores(),
                groups=rtl.DataGroups.from_loaders({name: [self.batch] for name in TICKETS}),
                steps=0,
                pruning_ratio=RATIO,
                progress=False,
                **self.recipe.keywords(self.model),
            )
            rows = pruner.step()
        self.tickets = pruner.tickets
        reasons = self.tickets.compact_only
        self.row["masked"] = reasons[0] if reasons else "equal"
        self.row["left"] = [round(r.parameters / r.dense_parameters, 3) for r in rows.rows]
        self.row["channels"] = [round(1 - r.achieved, 3) for r in rows.rows]
        one, other = (self.tickets[name].channels for name in TICKETS)
        assert one is not None
        assert other is not None
        if all(torch.equal(one.maps[n].mask(), other.maps[n].mask()) for n in one.maps):
            raise Failed("both tickets are the same")

    def compact(self) -> None:
        expected = output_shapes(copy.deepcopy(self.model), self.batch[0])
        for name in TICKETS:
            small = rtl.compact(self.model, self.tickets[name])
            require(output_shapes(small, self.batch[0]) == expected, f"output shapes of {name}")

    def train(self) -> None:
        for name in TICKETS:
            small = rtl.compact(self.model, self.tickets[name])
            before = {n: p.detach().clone() for n, p in small.named_parameters()}
            train_step(small, self.batch)
            moved = sum(not bit_equal(p.detach(), before[n]) for n, p in small.named_parameters())
            require(moved > len(before) / 2, f"{moved} of {len(before)} parameters moved")

    def gather(self) -> None:
        for number, name in enumerate(TICKETS):
            cut, self.first_cut = self.first_cut, None
            if cut is None:
                cut = host_cut(self.model, self.batch[0], self.recipe, number)
            small = rtl.compact(self.model, self.tickets[name])
            same_tensors(tensors(small), tensors(cut), f"ticket {name} and the host's network")
            del cut, small

    def scatter(self) -> None:
        for name in TICKETS:
            model, tickets = copy.deepcopy(self.model), copy.deepcopy(self.tickets)
            rtl.scatter_back(rtl.compact(model, tickets[name]), model, tickets[name])
            same_tensors(tensors(model), tensors(self.model), f"{name} scattered back as it was")
            small = rtl.compact(model, tickets[name])
            train_step(small, self.batch)
            rtl.scatter_back(small, model, tickets[name])
            again = rtl.compact(model, tickets[name])
            same_tensors(tensors(again), tensors(small), f"{name} trained and scattered back")
            plan = tickets[name].channels
            assert plan is not None
            before = dict(self.model.named_parameters())
            for own, parameter in model.named_parameters():
                if own in plan.maps:
                    rest = ~plan.maps[own].mask()
                    whole = bit_equal(parameter.detach()[rest], before[own].detach()[rest])
                    require(whole, f"{own} outside of ticket {name} moved")

    def reload(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.tickets.save(Path(folder) / "tickets.rtl")
            tickets = rtl.TicketSet.load(Path(folder) / "tickets.rtl")
        fresh = build(self.architecture, self.recipe, seed=1)
        fresh.load_state_dict(self.model.state_dict())
        for name in TICKETS:
            small, again = (
                rtl.compact(self.model, self.tickets[name]),
                rtl.compact(fresh, tickets[name]),
            )
            same_tensors(dict(again.state_dict()), dict(small.state_dict()), f"{name} reloaded")
            require(attributes(again) == attributes(small), f"attributes of {name} reloaded")


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def same_tensors(
    came: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], what: str
) -> None:
    """Fail unless both have the same names and every bit agrees."""
    require(list(came) == list(expected), f"{what}: other names of tensors")
    for name, value in came.items():
        shapes = f"{tuple(value.shape)} and {tuple(expected[name].shape)}"
        require(bit_equal(value.detach(), expected[name].detach()), f"{what}: {name}, {shapes}")


def attributes(network: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in vars(module).items() if is_plain(value)}
        for name, module in network.named_modules()
    }
