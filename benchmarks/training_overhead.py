"""What does a joint retraining step cost beside an ordinary one? Goal: at most 1.15 times.

    python benchmarks/training_overhead.py --json benchmarks/results/training_overhead.cpu.json

A ResNet-20 for 32 x 32 images, batch 64, AdamW, one thread. Thread CPU time between two batch
fetches of the real training loops, interleaved rounds, ratio of minima. The ordinary loop is
measured twice in every round; where it differs from itself by more than half the margin, the goal
counts as not measured.
"""

import argparse
import datetime
import itertools
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import rtl_plugin as rtl

GOAL = 1.15
TICKETS = ("a", "b", "c", "d", "e")
Batch = tuple[torch.Tensor, torch.Tensor]


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block."""
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + self.shortcut(x)).relu()


def resnet20() -> nn.Module:
    """A ResNet-20: 0.27 M parameters."""
    torch.manual_seed(0)
    blocks = [Block(16, 16, 1) for _ in range(3)]
    blocks += [Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1)]
    blocks += [Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *blocks, *head)


class TimedBatches:
    """Gives one batch again and again and notes the thread's CPU time at every fetch."""

    def __init__(self, batch: Batch, count: int, clock: list[float]) -> None:
        self.batch, self.count, self.clock = batch, count, clock

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.count):
            self.clock.append(time.thread_time())
            yield self.batch


def loss(model: Any, batch: Batch) -> torch.Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def adamw(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    """AdamW with weight decay."""
    return torch.optim.AdamW(params, lr=1e-3, weight_decay=0.01)


def ordinary(batch: Batch, steps: int) -> list[float]:
    """Seconds of each step of an ordinary training loop."""
    model, clock = resnet20().train(), list[float]()
    optimizer = adamw(list(model.parameters()))
    for current in TimedBatches(batch, steps, clock):
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, current)
        value.backward()
        optimizer.step()
        value.item()  # a loop that logs its loss, as retrain does
    return _gaps(clock)


def joint(batch: Batch, steps: int) -> list[float]:
    """Seconds of each step of ``rtl.retrain`` with five tickets at 75 % sparsity."""
    model, clock = resnet20(), list[float]()
    generator = torch.Generator().manual_seed(0)
    shapes = {n: p.shape for n, p in model.named_parameters() if p.dim() == 4}
    tickets = rtl.TicketSet(
        [
            rtl.Ticket(
                name, {n: torch.rand(s, generator=generator) < 0.25 for n, s in shapes.items()}
            )
            for name in TICKETS
        ]
    )
    per_ticket = -(-steps // len(TICKETS))
    groups = rtl.DataGroups.from_loaders(
        {name: TimedBatches(batch, per_ticket, clock) for name in TICKETS}
    )
    rtl.retrain(model, tickets, groups, loss, epochs=1, optimizer=adamw, progress=False)
    return _gaps(clock)


def _gaps(clock: list[float]) -> list[float]:
    # The first steps fill caches and optimizer state in both loops.
    return [after - before for before, after in itertools.pairwise(clock[2:])]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 20")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = (torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,)))
    rounds, steps = (5, 10) if arguments.quick else (20, 10)
    rows = [
        {
            "round": number,
            "ordinary": min(ordinary(batch, steps)),
            "joint": min(joint(batch, steps)),
            "ordinary again": min(ordinary(batch, steps)),
        }
        for number in range(rounds)
    ]
    best = {key: min(row[key] for row in rows) for key in ("ordinary", "joint", "ordinary again")}
    ratio = best["joint"] / min(best["ordinary"], best["ordinary again"])
    noise = abs(best["ordinary"] / best["ordinary again"] - 1)
    met = None if noise > (GOAL - 1) / 2 else ratio <= GOAL
    table = [(key, f"{1000 * seconds:.2f}") for key, seconds in best.items()]
    print(tabulate(table, headers=("loop", "ms a step (minimum)")))
    print(f"joint / ordinary {ratio:.3f}, goal <= {GOAL}: {met}; ordinary vs itself {noise:.3f}")
    if arguments.json:
        content = report(rows, ratio, noise, met)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def report(
    rows: list[dict[str, float]], ratio: float, noise: float, met: bool | None
) -> dict[str, Any]:
    """The benchmark's JSON."""
    goal = {"name": "joint retraining step / ordinary step", "value": ratio, "target": GOAL}
    return {
        "benchmark": "training_overhead",
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, 1 thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "setting": "ResNet-20, 32 x 32, batch 64, AdamW, 5 tickets, thread CPU seconds a step",
        "rows": rows,
        "ordinary_against_itself": noise,
        "goals": [{**goal, "better": "lower", "met": met}],
    }


if __name__ == "__main__":
    main()
