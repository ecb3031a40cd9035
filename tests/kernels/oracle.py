"""What every kernel is held to: one sample after the other, plainly masked weights, float64."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.nn import functional

# Of sums kept in float32 and rounded once to the output's dtype.
TOLERANCES = {
    torch.float32: {"atol": 2e-5, "rtol": 1e-5},
    torch.float16: {"atol": 2e-3, "rtol": 1e-3},
    # The interpreter truncates to bfloat16 where a GPU rounds.
    torch.bfloat16: {"atol": 8e-3, "rtol": 8e-3},
}


def close(actual: torch.Tensor, expected: torch.Tensor, of: torch.dtype, terms: int = 1) -> None:
    """``terms`` is how many products a sum has: rounding grows with them."""
    assert actual.dtype == of
    allowed = TOLERANCES[of]
    atol = allowed["atol"] * max(1, terms / 64)
    torch.testing.assert_close(
        actual.double().cpu(), expected.cpu(), atol=atol, rtol=allowed["rtol"]
    )


def offsets_of(counts: Sequence[int], device: str = "cpu") -> torch.Tensor:
    return torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=device)


def tickets_of(counts: Sequence[int]) -> list[int]:
    return [ticket for ticket, count in enumerate(counts) for _ in range(count)]


class Drawn:
    """Random operands of one dtype, always the same ones."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype, self.device = dtype, device

    def numbers(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers inside a larger tensor of NaN, so that reading past an end shows."""
        # 16 more, so that rows of a multiple of 16 stay as far apart.
        wider = torch.full((*shape[:-1], shape[-1] + 16), float("nan"), dtype=torch.float64)
        wider[..., : shape[-1]] = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return wider.to(dtype or self.dtype).to(self.device)[..., : shape[-1]]

    def masks(self, *shape: int, keep: float = 0.4) -> torch.Tensor:
        return (torch.rand(shape, generator=self.generator) < keep).to(self.device)

    def epilogue(self, tickets: int, outputs: int, per_ticket: bool) -> dict[str, torch.Tensor]:
        bias = (tickets, outputs) if per_ticket else (outputs,)
        one = {"bias": self.numbers(*bias).contiguous()}
        if not per_ticket:
            return one
        # float32 tables beside 16-bit weights, as folded norms are.
        return {
            **one,
            "scale": self.numbers(tickets, outputs, dtype=torch.float32),
            "shift": self.numbers(tickets, outputs, dtype=torch.float32),
        }


def finished(total: torch.Tensor, ticket: int, epilogue: dict[str, torch.Tensor]) -> torch.Tensor:
    """Bias, scale and shift of one sample's output [N] or [N, H, W]."""
    last = (...,) + (None,) * (total.dim() - 1)
    for name, table in epilogue.items():
        row = (table if table.dim() == 1 else table[ticket]).double()[last]
        total = total * row if name == "scale" else total + row
    return total


def linear(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    tickets: Sequence[int],
    epilogue: dict[str, torch.Tensor],
) -> torch.Tensor:
    rows = [
        finished(weights[t].double() @ x[i].double(), t, epilogue) for i, t in enumerate(tickets)
    ]
    empty = torch.zeros(0, weights[0].shape[0], dtype=torch.float64, device=x.device)
    return torch.stack(rows) if rows else empty


def convolution(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    tickets: Sequence[int],
    epilogue: dict[str, torch.Tensor],
    window: dict[str, tuple[int, int]],
    groups: int = 1,
) -> torch.Tensor:
    images = []
    for i, t in enumerate(tickets):
        y = functional.conv2d(x[i : i + 1].double(), weights[t].double(), groups=groups, **window)
        images.append(finished(y[0], t, epilogue))
    return torch.stack(images)


def masked(weight: torch.Tensor, masks: torch.Tensor) -> list[torch.Tensor]:
    return [torch.where(mask, weight, torch.zeros_like(weight)) for mask in masks]
