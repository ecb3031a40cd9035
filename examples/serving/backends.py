"""The two ways to serve K groups that the load test compares: one mixture, or K networks."""

from pathlib import Path
from typing import NamedTuple, Protocol

import safetensors.torch
import torch

import rtl_plugin as rtl
from examples.serving.digits_model import SIDE, network, read_recipe


class Request(NamedTuple):
    """A group's name and an image [1, 28, 28] in [0, 1]."""

    group: str
    image: torch.Tensor


class Backend(Protocol):
    """Runs batches of requests of any groups."""

    groups: tuple[str, ...]

    def check_group(self, group: str) -> None:
        """Raise UnknownTicket for a group that is not served."""
        ...

    def run(self, requests: list[Request]) -> list[list[float]]:
        """Ten scores a request."""
        ...


class MixtureBackend:
    """One network and its tickets; a mixed batch is one call.

    Args:
        folder: what ``digits_model`` wrote.
        strategy: of ``rtl_plugin.MixtureOfMasks``.
        budget: of the same: bytes of masked weights that may be kept; None for all of them.
    """

    def __init__(self, folder: Path, strategy: str = "auto", budget: int | None = None) -> None:
        model = network(read_recipe(folder)["hidden"])
        path = folder / "mixture.safetensors"
        self._mixture = rtl.MixtureOfMasks.load(path, model, strategy=strategy, budget=budget)
        self.groups = self._mixture.tickets.names

    def check_group(self, group: str) -> None:
        """Raise UnknownTicket for a group that has no ticket."""
        self._mixture.tickets[group]

    def run(self, requests: list[Request]) -> list[list[float]]:
        """Ten scores a request."""
        images = torch.stack([request.image for request in requests])
        with torch.inference_mode():
            scores = self._mixture(images, tickets=[request.group for request in requests])
        return [list(row) for row in scores.tolist()]


class SeparateBackend:
    """K ordinary networks, exported from the same tickets; a mixed batch is a loop over them.

    Args:
        folder: what ``digits_model`` wrote.
    """

    def __init__(self, folder: Path) -> None:
        recipe = read_recipe(folder)
        self.groups = tuple(recipe["groups"])
        self._networks = {}
        for position, group in enumerate(self.groups):
            plain = network(recipe["hidden"])
            weights = safetensors.torch.load_file(folder / f"plain-{position}.safetensors")
            plain.load_state_dict(weights, assign=True)
            self._networks[group] = plain.eval()

    def check_group(self, group: str) -> None:
        """Raise UnknownTicket for a group that has no network."""
        if group not in self._networks:
            known = ", ".join(map(repr, self.groups))
            raise rtl.errors.UnknownTicket(f"unknown ticket {group!r}; this set has {known}")

    def run(self, requests: list[Request]) -> list[list[float]]:
        """Ten scores a request."""
        images = torch.stack([request.image for request in requests])
        rows: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            rows.setdefault(request.group, []).append(row)
        scores = torch.empty(len(requests), 10)
        with torch.inference_mode():
            for group, chosen in rows.items():
                scores[chosen] = self._networks[group](images[chosen])
        return [list(row) for row in scores.tolist()]


def image_tensor(pixels: list[list[int]]) -> torch.Tensor:
    """A request's image as the networks take it.

    Args:
        pixels: 28 rows of 28 integers in 0..255.

    Returns:
        float32 [1, 28, 28] in [0, 1].

    Raises:
        ValueError: another shape.
    """
    lengths = {len(row) for row in pixels}
    if len(pixels) != SIDE or lengths != {SIDE}:
        raise ValueError(
            f"image must have {SIDE} rows of {SIDE} pixels, got {len(pixels)} rows of "
            f"{' or '.join(map(str, sorted(lengths))) or 'no'} pixels"
        )
    return torch.tensor(pixels, dtype=torch.uint8).float().div(255)[None]
