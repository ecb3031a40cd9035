"""Renewing a ticket's normalisation statistics on its own data."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rtl_plugin.compact_network import compact, write_back
from rtl_plugin.errors import InvalidArgument, InvalidGroups, TrainingDiverged
from rtl_plugin.masked_forward import MaskedModel, TensorSlots, mask_parameters
from rtl_plugin.nested import to_device
from rtl_plugin.structure import device_of, install_state
from rtl_plugin.tickets import Ticket, TicketSet


def call_on_input(model: Any, batch: Any) -> Any:
    """Run a model on a batch: on its first element if it is a tuple or list, else on the batch.

    Args:
        model: anything callable.
        batch: as a loader gives it.

    Returns:
        The model's output.

    Example:
        >>> call_on_input(lambda x: x + 1, (1, "label"))
        2
    """
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def recalibrate(
    model: nn.Module,
    ticket: Ticket,
    loader: Iterable[Any],
    *,
    forward: Callable[[Any, Any], Any] = call_on_input,
) -> None:
    """Renew a ticket's running statistics: plain averages over one pass of its data.

    Weights, masks and the model's own buffers stay as they are; dropout is off.

    Args:
        model: the network.
        ticket: its state is updated in place.
        loader: batches of the ticket's group.
        forward: ``forward(model, batch)`` runs the model; by default on ``batch[0]`` of a tuple.

    Raises:
        StructureMismatch: the ticket does not fit the model.
        InvalidArgument: the model has no batch normalisation with running statistics.
        InvalidGroups: the loader is empty.
        TrainingDiverged: the new statistics are not finite; the ticket keeps its old ones.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        >>> ticket = Ticket("a", {"0.weight": torch.ones(1, 1, dtype=torch.bool)})
        >>> recalibrate(model, ticket, [torch.randn(8, 1)])
        >>> int(ticket.state["1.num_batches_tracked"])
        1

    Source:
        Yu et al., Slimmable Neural Networks, arXiv 1812.08928 (statistics per subnetwork).
    """
    TicketSet([ticket]).check_fits(model)
    device = device_of(model)
    if not any(map(_is_norm, model.modules())):
        raise InvalidArgument(
            f"{type(model).__name__} has no batch normalisation with running statistics: there is "
            "nothing to recalibrate"
        )
    renew = _renewed_small if ticket.channels is not None else _renewed_masked
    with torch.no_grad():
        renewed, seen = renew(model, ticket, lambda view: _one_pass(view, loader, device, forward))
    if not seen:
        raise InvalidGroups(f"the loader given for ticket {ticket.name!r} is empty")
    if not all(bool(torch.isfinite(value).all()) for value in renewed.values()):
        raise TrainingDiverged(
            f"recalibrating ticket {ticket.name!r} gave statistics that are not finite: look at "
            "the loader's inputs; the old ones are kept"
        )
    ticket.state.update(renewed)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def _one_pass(
    view: Any, loader: Iterable[Any], device: torch.device, forward: Callable[[Any, Any], Any]
) -> int:
    seen = 0
    for batch in loader:
        forward(view, to_device(batch, device))
        seen += 1
    return seen


def _renewed_masked(
    model: nn.Module, ticket: Ticket, run: Callable[[Any], int]
) -> tuple[dict[str, torch.Tensor], int]:
    """New statistics by name from a pass through the masked network, and its number of batches."""
    device = device_of(model)
    state = {name: value.to(device) for name, value in ticket.state.items()}
    parameters = {n: state.get(n, p.detach()) for n, p in model.named_parameters()}
    buffers = {n: state.get(n, b).detach().clone() for n, b in model.named_buffers()}
    masks = {name: mask.to(device) for name, mask in ticket.masks.items()}
    view = MaskedModel(model, TensorSlots(model), mask_parameters(parameters, masks), buffers)
    norms = [module for module in model.modules() if _is_norm(module)]
    names = _statistics(model, norms, buffers)
    with _Averaging(model, norms):
        seen = run(view)
    return {name: buffers[name] for name in names}, seen


def _renewed_small(
    model: nn.Module, ticket: Ticket, run: Callable[[Any], int]
) -> tuple[dict[str, torch.Tensor], int]:
    """The same from the small network, written to the size of the shared one."""
    small = compact(model, ticket)
    norms = [module for module in small.modules() if _is_norm(module)]
    own = dict(small.named_buffers())
    names = _statistics(small, norms, own)
    install_state(small, {name: own[name] for name in names})
    with _Averaging(small, norms):
        seen = run(small)
    shared, own = dict(model.named_buffers()), dict(small.named_buffers())
    renewed = {n: ticket.state.get(n, shared[n]).detach().to(own[n]).clone() for n in names}
    for name, value in renewed.items():
        write_back(ticket.channels, name, own[name], value)
    return renewed, seen


def _statistics(model: nn.Module, norms: list[Any], buffers: dict[str, torch.Tensor]) -> list[str]:
    """Reset the norms' statistics and name them."""
    places = {id(module): name for name, module in model.named_modules()}
    names = []
    for norm in norms:
        prefix = f"{places[id(norm)]}." if places[id(norm)] else ""
        for local in ("running_mean", "running_var", "num_batches_tracked"):
            name = f"{prefix}{local}"
            buffers[name] = torch.full_like(buffers[name], 1 if local == "running_var" else 0)
            names.append(name)
    return names


class _Averaging:
    """Everything in eval mode but the norms, which average all batches alike."""

    def __init__(self, model: nn.Module, norms: list[Any]) -> None:
        self._flags = [(module, module.training) for module in model.modules()]
        self._momenta = [(norm, norm.momentum) for norm in norms]

    def __enter__(self) -> None:
        for module, _ in self._flags:
            module.training = False
        for norm, _ in self._momenta:
            norm.training = True
            norm.momentum = None

    def __exit__(self, *_: object) -> None:
        for module, flag in self._flags:
            module.training = flag
        for norm, momentum in self._momenta:
            norm.momentum = momentum
