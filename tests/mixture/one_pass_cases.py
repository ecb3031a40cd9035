"""The networks of one_pass_nets.py with their inputs, and whether a batch passes them once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.mixture.one_pass_nets import (
    Attention,
    BatchMean,
    Convolutions,
    Encoder,
    FiniteOnly,
    Functional,
    MergedPositionMajor,
    MergedSampleMajor,
    NestedOutputs,
    Packed,
    Pair,
    PatchNet,
    Recurrent,
    Reordered,
    SharedTwice,
    Stashing,
    TimeFirst,
    Tokens,
    Windows,
    conv_1d,
    conv_3d,
    spectral_normed,
    weight_normed,
)


def vector(batch: int) -> tuple[Any, ...]:
    return (torch.randn(batch, 4),)


def sequence(batch: int) -> tuple[Any, ...]:
    return (torch.randn(batch, 5, 4),)


@dataclass(frozen=True)
class Case:
    """A network and its inputs.

    Args:
        name: in test ids.
        build: makes the network.
        inputs: makes positional arguments for a batch.
        prunable: what may be masked.
        one_pass: whether the batch must pass once, and not once a ticket.
        alone: False where batch mates matter, so that a loop over samples is another function.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Any, ...]]
    prunable: tuple[str, ...] | None = None
    one_pass: bool = True
    alone: bool = True

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("time first", TimeFirst, sequence),
    Case("merged, position-major", MergedPositionMajor, sequence),
    Case("merged, sample-major", MergedSampleMajor, sequence),
    Case("attention, batch first", lambda: Attention(True), sequence, ("attention.*weight",)),
    Case("attention, time first", lambda: Attention(False), sequence, ("attention.*weight",)),
    Case("encoder", lambda: Encoder(False), sequence, ("encoder.*weight",)),
    Case("encoder, norm first", lambda: Encoder(True), sequence, ("encoder.*weight",)),
    Case(
        "patches",
        PatchNet,
        lambda b: (torch.randn(b, 1, 6, 6),),
        ("patches.weight", "position", "token", "block.*weight"),
        one_pass=False,  # the network itself holds the position embedding
    ),
    Case(
        "patches, dense position",
        PatchNet,
        lambda b: (torch.randn(b, 1, 6, 6),),
        ("patches.weight", "block.linear*.weight"),
    ),
    Case(
        "windows",
        Windows,
        lambda b: (torch.randn(b, 4, 4, 3),),
        ("inside.weight", "attention.*weight", "head.weight"),
    ),
    Case(
        "lstm, batch first",
        lambda: Recurrent(nn.LSTM, True),
        sequence,
        ("layer.weight_*", "head.weight"),
    ),
    Case(
        "lstm, time first",
        lambda: Recurrent(nn.LSTM, False),
        sequence,
        ("layer.weight_*", "head.weight"),
    ),
    Case(
        "gru, batch first",
        lambda: Recurrent(nn.GRU, True),
        sequence,
        ("layer.weight_*", "head.weight"),
    ),
    Case("gru, time first", lambda: Recurrent(nn.GRU, False), sequence, ("layer.weight_*",)),
    Case(
        "packed",
        Packed,
        lambda b: (torch.randn(b, 5, 4), torch.arange(b) % 5 + 1),
        ("layer.weight_*",),
        one_pass=False,
    ),
    Case("convolutions", Convolutions, lambda b: (torch.randn(b, 2, 6, 6),), ("*.weight",)),
    Case("conv 1d", conv_1d, lambda b: (torch.randn(b, 2, 6),)),
    Case("conv 3d", conv_3d, lambda b: (torch.randn(b, 1, 3, 3, 3),)),
    Case("weight norm", weight_normed, vector, ("0.parametrizations.*", "2.weight")),
    Case(
        "spectral norm", spectral_normed, vector, ("0.parametrizations.weight.original", "2.weight")
    ),
    Case("functional", Functional, vector, one_pass=False),
    Case("shared twice", SharedTwice, sequence),
    Case("tokens", Tokens, lambda b: (torch.randint(7, (b, 5)),), ("embed.weight", "fc.weight")),
    Case("batch mean", BatchMean, vector, one_pass=False, alone=False),
    Case("reordered", Reordered, vector, one_pass=False),
    Case("raises on NaN", FiniteOnly, vector),
    Case("stashing", Stashing, vector),
    Case(
        "nested",
        NestedOutputs,
        lambda b: ({"pair": Pair(torch.randn(b, 4), torch.randn(b, 4)), "x": None},),
    ),
)
