"""Masks that are expanded a block of output rows at a time, for all tickets while it is at hand."""

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.way import NOT_ITS_KIND, Way, axis_0_layout, only_input, stock_forward

BLOCK_BYTES = 1 << 20  # about what stays in a core's second-level cache while K tickets use it
_ROWS = 8  # a block begins at a whole byte of the mask


def _why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    module, x = runner.workspace.module(call.path), only_input(call)
    if not (stock_forward(module, nn.Linear) or _is_plain_conv(module)):
        return NOT_ITS_KIND
    if x is None or axis_0_layout(call) is None:
        return "the batch is not first"
    if x.device.type != "cpu":
        return "for CPUs"
    if x.requires_grad and torch.is_grad_enabled():
        return "gradients are wanted"
    weight = runner.workspace.name_of(call.path, "weight")
    if weight is None or runner.workspace.names_in(call.path) != [weight]:
        return "more than its weight differs between tickets"
    if weight not in runner.tensors.masked or runner.tensors.is_private(weight):
        return "its weight is private"
    if runner.tensors.keeps([weight], [names[span.ticket] for span in call.dispatch.spans]):
        return "masked copies are kept"
    return None


def _is_plain_conv(module: nn.Module) -> bool:
    if not isinstance(module, _ConvNd) or isinstance(module, _ConvTransposeNd):
        return False
    own = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return module.groups == 1 and any(stock_forward(module, kind) for kind in own)


def _run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    x: torch.Tensor = call.args[0]
    module, layout = runner.workspace.module(call.path), axis_0_layout(call)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None and layout is not None  # noqa: S101, PT018 - _why_not has looked
    bias = module.bias if isinstance(module.bias, torch.Tensor) else None
    shape = runner.tensors.shared(weight).shape
    channels = 1 if isinstance(module, _ConvNd) else x.dim() - 1
    out: torch.Tensor | None = None
    for start, stop in blocks(shape[0], shape[1:].numel() * x.element_size()):
        part = None if bias is None else bias[start:stop]
        for ticket, first, last in call.dispatch.spans:
            rows = runner.tensors.masked_rows(names[ticket], weight, start, stop)
            done = _applied(module, layout.take(x, first, last), rows, part)
            if out is None:
                sizes = list(done.shape)
                sizes[0], sizes[channels] = x.shape[0], shape[0]
                out = done.new_empty(sizes)
            layout.take(out, first, last).narrow(channels, start, stop - start).copy_(done)
    assert out is not None  # noqa: S101 - a batch of no samples never comes here
    return out


def _applied(
    module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    if isinstance(module, _ConvNd):
        out: torch.Tensor = module._conv_forward(x, weight, bias)
        return out
    return nn.functional.linear(x, weight, bias)


def blocks(rows: int, row_bytes: int) -> list[tuple[int, int]]:
    """Cut the output rows of a weight into blocks of about a megabyte.

    Args:
        rows: their number.
        row_bytes: bytes of one.

    Returns:
        (start, stop) pairs; starts are multiples of 8.

    Example:
        >>> blocks(20, 1 << 17)
        [(0, 8), (8, 16), (16, 20)]
    """
    size = max(_ROWS, BLOCK_BYTES // max(row_bytes, 1) // _ROWS * _ROWS)
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


BLOCKS = Way("blocks", _why_not, _run)
