"""Batch norms of all tickets as one multiplication and addition, with a table row a sample."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from rtl_plugin.mixture.masked_pass import UnitCall
from rtl_plugin.mixture.runner import Runner
from rtl_plugin.mixture.way import NOT_ITS_KIND, Way, axis_0_layout, only_input


def _why_not(runner: Runner, names: tuple[str, ...], call: UnitCall) -> str | None:
    module, x = runner.workspace.module(call.path), only_input(call)
    if not isinstance(module, _BatchNorm) or type(module).forward is not _BatchNorm.forward:
        return NOT_ITS_KIND
    if x is None or module.running_mean is None:
        return "it has no running statistics, or other inputs"
    if x.dtype not in (torch.float32, torch.float64) or module.running_mean.dtype != x.dtype:
        return f"tables would lose precision in {x.dtype}"
    return None if axis_0_layout(call) is not None else "the batch is not first"


def _run(runner: Runner, names: tuple[str, ...], call: UnitCall) -> torch.Tensor:
    x: torch.Tensor = call.args[0]
    scale, shift = runner.tensors.derived(
        call.path, runner.workspace.generation, lambda: _tables(runner, names, call.path)
    )
    rows = call.dispatch.ticket_of_row(x.device, x.shape[0] // call.dispatch.size)
    shape = (x.shape[0], x.shape[1], *(1,) * (x.dim() - 2))
    return torch.addcmul(shift[rows].view(shape), x, scale[rows].view(shape))


def _tables(runner: Runner, names: tuple[str, ...], path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of every ticket, [T, C] each, computed in float64."""
    module = runner.workspace.module(path)
    own = runner.workspace.names_in(path)
    local = {name: name.rpartition(".")[2] for name in own}
    scales, shifts = [], []
    for ticket in names:
        values = dict(vars(module)["_parameters"]) | dict(vars(module)["_buffers"])
        values |= {local[n]: v for n, v in zip(own, runner.tensors.take(ticket, own), strict=True)}
        mean, var = values["running_mean"].double(), values["running_var"].double()
        scale = (var + module.eps).rsqrt()
        if values.get("weight") is not None:
            scale = scale * values["weight"].detach().double()
        shift = -mean * scale
        if values.get("bias") is not None:
            shift = shift + values["bias"].detach().double()
        scales.append(scale.to(values["running_mean"].dtype))
        shifts.append(shift.to(values["running_mean"].dtype))
    return torch.stack(scales), torch.stack(shifts)


TABLE = Way("table", _why_not, _run)
