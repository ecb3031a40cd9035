"""Linear layers and 1 x 1 convolutions of all tickets in one grouped matrix product."""

import torch
from torch import nn

from rtl_plugin.mixture import kernels
from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.stacked_weights import Stacked, stacked, why_not_stacked
from rtl_plugin.mixture.way import NOT_ITS_KIND, Way, axis_0_layout, only_input, stock_forward


def matrix_why_not(runner: Runner, call: UnitCall) -> str | None:
    """Why a call is no product of rows with one matrix a ticket.

    Args:
        runner: has the module.
        call: of a unit.

    Returns:
        The reason in words, or None where it is one.
    """
    module, x = runner.workspace.module(call.path), only_input(call)
    if not (stock_forward(module, nn.Linear) or is_pointwise(module)):
        return NOT_ITS_KIND
    if x is None or axis_0_layout(call) is None:
        return "the batch is not first"
    if x.requires_grad and torch.is_grad_enabled():
        return "gradients are wanted"
    if x.dtype != runner.workspace.dtype_of(call.path) or torch.is_autocast_enabled(x.device.type):
        return "input and weights have different dtypes"
    return None


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a convolution that looks at single pixels."""
    if not isinstance(module, nn.Conv2d) or not stock_forward(module, nn.Conv2d):
        return False
    plain = module.kernel_size == module.stride == (1, 1) and module.groups == 1
    return plain and module.padding in ((0, 0), "valid", "same")


def rows_and_shape(x: torch.Tensor, module: nn.Module) -> tuple[torch.Tensor, torch.Size]:
    """The rows that a matrix is applied to, and the shape that they have channels-last.

    Args:
        x: a layer's input.
        module: a linear layer or a 1 x 1 convolution.

    Returns:
        [M, K], without a copy where x lies so already, and the shape [..., K] before flattening.
    """
    last = x.permute(0, 2, 3, 1) if isinstance(module, nn.Conv2d) else x
    return last.reshape(-1, last.shape[-1]).contiguous(), last.shape


def shaped_back(rows: torch.Tensor, shape: torch.Size, module: nn.Module) -> torch.Tensor:
    """Undo :func:`rows_and_shape` for a layer's output [M, N]."""
    out = rows.view(*shape[:-1], rows.shape[-1])
    return out.permute(0, 3, 1, 2) if isinstance(module, nn.Conv2d) else out


def bias_of(runner: Runner, path: str, copies: Stacked | None = None) -> torch.Tensor | None:
    """A layer's bias: [N] shared, [T, N] (or one a copy) where tickets have their own, or None."""
    module = runner.workspace.module(path)
    name = runner.workspace.name_of(path, "bias")
    if name is None:
        return module.bias if isinstance(module.bias, torch.Tensor) else None
    table = runner.tensors.table(name, runner.workspace.generation)
    return table if copies is None else copies.table(table)


def _torch_why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    reason = matrix_why_not(runner, call)
    if reason is not None:
        return reason
    weight = runner.workspace.name_of(call.path, "weight")
    reason = why_not_stacked(runner, weight)
    if reason is not None or weight is None:
        return reason
    x: torch.Tensor = call.args[0]
    if not hasattr(nn.functional, "grouped_mm"):
        return "this torch has no grouped_mm"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"grouped_mm does not take {x.dtype}"
    if x.device.type == "cuda" and (
        x.dtype == torch.float32 or torch.cuda.get_device_capability(x.device) < (9, 0)
    ):
        return "on a GPU grouped_mm is fast for 16-bit numbers and compute capability 9.0 or more"
    outputs, inputs = runner.tensors.shared(weight).shape[:2]
    if outputs * x.element_size() % 16 or inputs * x.element_size() % 16:
        return "grouped_mm needs rows of whole 16 bytes"
    return None


def _torch_run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _torch_why_not has looked
    copies = stacked(runner, call, weight)
    rows, shape = rows_and_shape(call.args[0], module)
    per_sample = rows.shape[0] // call.dispatch.size
    ends = copies.offsets[1:] * per_sample
    out = nn.functional.grouped_mm(rows, copies.weights.flatten(2).transpose(-2, -1), offs=ends)
    bias = bias_of(runner, call.path)
    if bias is not None and bias.dim() == 1:
        out = out.add_(bias)
    elif bias is not None:
        out = out.add_(bias[call.dispatch.ticket_of_row(out.device, per_sample)])
    return shaped_back(out, shape, module)


def _kernel_why_not(runner: Runner, call: UnitCall) -> str | None:
    reason = matrix_why_not(runner, call)
    if reason is not None:
        return reason
    if call.args[0].dtype == torch.float64:
        return "the kernels take at most 32 bits"
    return kernels.why_not(call.args[0].device)


def _triton_why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    reason = _kernel_why_not(runner, call)
    if reason is not None:
        return reason
    return why_not_stacked(runner, runner.workspace.name_of(call.path, "weight"))


def _triton_run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _triton_why_not has looked
    copies = stacked(runner, call, weight)
    rows, shape = rows_and_shape(call.args[0], module)
    offsets = copies.offsets * (rows.shape[0] // call.dispatch.size)
    bias = bias_of(runner, call.path, copies)
    out = kernels.grouped_linear(rows, copies.weights.flatten(2), offsets, bias)
    return shaped_back(out, shape, module)


def _bitmask_why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    reason = _kernel_why_not(runner, call)
    weight = runner.workspace.name_of(call.path, "weight")
    if reason is None and (weight is None or weight not in runner.tensors.masked):
        reason = "its weight has no mask"
    if reason is None and weight is not None and runner.tensors.is_private(weight):
        reason = "its weight is private"
    return reason


def _bitmask_run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _bitmask_why_not has looked
    rows, shape = rows_and_shape(call.args[0], module)
    words = runner.tensors.words(weight)
    base = runner.tensors.shared(weight).detach().flatten(1)
    offsets = call.dispatch.offsets_on(rows.device) * (rows.shape[0] // call.dispatch.size)
    active = len(call.dispatch.spans) if call.dispatch.on_host else len(names)
    out = kernels.bitmask_linear(
        rows,
        base,
        words,
        offsets,
        bias_of(runner, call.path),
        rows_per_ticket_hint=max(1, rows.shape[0] // active),
    )
    return shaped_back(out, shape, module)


GROUPED_MM = Way("grouped_mm", _torch_why_not, _torch_run)
TRITON = Way("triton", _triton_why_not, _triton_run)
BITMASK = Way("bitmask", _bitmask_why_not, _bitmask_run)
