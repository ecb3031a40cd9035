"""Linear layers of all tickets in one call of torch's grouped matrix product."""

import torch
from torch import nn

from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.way import Way, axis_0_layout, only_input, rows_of, stock_forward


def _why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    module, x = runner.workspace.module(call.path), only_input(call)
    if not stock_forward(module, nn.Linear) or not isinstance(module, nn.Linear):
        return "not a linear layer"
    if x is None or axis_0_layout(call) is None:
        return "the batch is not first"
    if not hasattr(nn.functional, "grouped_mm"):
        return "this torch has no grouped_mm"
    if x.dtype != module.weight.dtype or torch.is_autocast_enabled(x.device.type):
        return "grouped_mm takes one dtype, without autocast"
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"grouped_mm does not take {x.dtype}"
    if x.device.type == "cuda" and x.dtype == torch.float32:
        return "on a GPU grouped_mm takes 16-bit numbers"
    item = x.element_size()
    if module.in_features * item % 16 or module.out_features * item % 16:
        return "grouped_mm needs rows of whole 16 bytes"
    if x.requires_grad and torch.is_grad_enabled():
        return "gradients are wanted"
    weight = runner.workspace.name_of(call.path, "weight")
    if weight is None:
        return "its weight is the same in all tickets"
    if not runner.tensors.has_room_for_stack(weight):
        return "the budget has no room for all tickets' copies"
    return None


def _run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    x: torch.Tensor = call.args[0]
    module = runner.workspace.module(call.path)
    weight = runner.workspace.name_of(call.path, "weight")
    assert weight is not None  # noqa: S101 - _why_not has looked
    stack = runner.tensors.stack(weight)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    ends = call.dispatch.offsets[1:].to(x.device) * (rows.shape[0] // call.dispatch.size)
    out = nn.functional.grouped_mm(rows, stack.transpose(-2, -1), offs=ends)
    return _with_bias(out.view(*x.shape[:-1], stack.shape[1]), module, runner, call)


def _with_bias(
    out: torch.Tensor, module: nn.Module, runner: Runner, call: UnitCall
) -> torch.Tensor:
    bias, layout = module.bias, call.layouts.inputs[0]
    if not isinstance(bias, torch.Tensor) or layout is None:
        return out
    name = runner.workspace.name_of(call.path, "bias")
    if name is None:
        return out.add_(bias.detach())
    biases = runner.tensors.stack(name)
    tickets = rows_of(layout, call.dispatch.ticket_of_row().to(out.device))
    return out.add_(biases[tickets].view(out.shape[0], *(1,) * (out.dim() - 2), -1))


GROUPED_MM = Way("grouped_mm", _why_not, _run)
