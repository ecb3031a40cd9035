"""Convolutions of all tickets in one launch: implicit matrix products, and depthwise look-ups."""

from typing import Any

import torch
from torch import nn

from rtl_plugin.mixture import kernels
from rtl_plugin.mixture.grouped_way import bias_of
from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.stacked_weights import stacked, why_not_stacked
from rtl_plugin.mixture.way import NOT_ITS_KIND, Way, axis_0_layout, only_input, stock_forward


def _plain_why_not(runner: Runner, call: UnitCall) -> str | None:
    module, x = runner.workspace.module(call.path), only_input(call)
    if not isinstance(module, nn.Conv2d) or not stock_forward(module, nn.Conv2d):
        return NOT_ITS_KIND
    layout = axis_0_layout(call)
    if x is None or x.dim() != 4 or layout is None:
        return "the batch is not first"
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return f"padding {module.padding!r} of mode {module.padding_mode!r} has no kernel"
    if x.dtype == torch.float64:
        return "the kernels take at most 32 bits"
    if x.requires_grad and torch.is_grad_enabled():
        return "gradients are wanted"
    if x.dtype != runner.workspace.dtype_of(call.path) or torch.is_autocast_enabled(x.device.type):
        return "input and weights have different dtypes"
    return kernels.why_not(x.device)


def _window(module: nn.Module) -> dict[str, Any]:
    return {name: getattr(module, name) for name in ("stride", "padding", "dilation")}


def _conv_why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    reason = _plain_why_not(runner, call)
    if reason is None and getattr(runner.workspace.module(call.path), "groups", 1) != 1:
        reason = "its channels are in groups"
    if reason is not None:
        return reason
    return why_not_stacked(runner, runner.workspace.name_of(call.path, "weight"))


def _conv_run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _conv_why_not has looked
    copies = stacked(runner, call, weight)
    x: torch.Tensor = call.args[0]
    offsets = copies.offsets * (x.shape[0] // call.dispatch.size)
    bias = bias_of(runner, call.path, copies)
    return kernels.grouped_conv2d(x, copies.weights, offsets, bias=bias, **_window(module))


def _depthwise_why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    reason = _plain_why_not(runner, call)
    if reason is not None:
        return reason
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    channels = call.args[0].shape[1]
    if (module.groups, module.out_channels) != (channels, channels):
        return NOT_ITS_KIND
    if weight is None or weight not in runner.tensors.masked:
        return "its weight has no mask"
    return "its weight is private" if runner.tensors.is_private(weight) else None


def _depthwise_run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _depthwise_why_not has looked
    x: torch.Tensor = call.args[0]
    tickets = call.dispatch.ticket_of_row(x.device, x.shape[0] // call.dispatch.size)
    return kernels.depthwise_conv2d(
        x,
        runner.tensors.shared(weight).detach(),
        tickets.to(torch.int32),
        runner.tensors.words(weight),
        bias=bias_of(runner, call.path),
        **_window(module),
    )


CONVOLUTION = Way("convolution", _conv_why_not, _conv_run)
DEPTHWISE = Way("depthwise", _depthwise_why_not, _depthwise_run)
