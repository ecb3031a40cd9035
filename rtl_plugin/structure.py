"""Whether masks and state fit a model, and putting state into one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, StructureMismatch
from rtl_plugin.fingerprint import model_structure

Shapes = Mapping[str, tuple[int, ...]]


def check_structure(
    model: nn.Module,
    masks: Shapes,
    states: Mapping[str, Mapping[str, torch.Tensor]],
    fingerprint: str | None,
) -> None:
    """Refuse a model that masks or ticket state do not fit.

    Args:
        model: the network.
        masks: masked parameter name -> shape.
        states: ticket name -> its own state.
        fingerprint: the structure the tickets were found on, where known.

    Raises:
        StructureMismatch: an entry is unknown or of another shape, or the structures differ.

    Example:
        >>> check_structure(nn.Linear(2, 1), {"weight": (1, 2)}, {}, None)
    """
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, shape in masks.items():
        _check_entry("masked parameter", name, shape, parameters)
    known = parameters | {name: tuple(b.shape) for name, b in model.named_buffers()}
    for ticket, state in states.items():
        for name, value in state.items():
            _check_entry(f"state of ticket {ticket!r}:", name, tuple(value.shape), known)
    if fingerprint is not None and fingerprint != model_structure(model):
        raise StructureMismatch(
            f"the tickets were found on a network of another structure than this "
            f"{type(model).__name__} (parameter names or shapes outside the masks differ): "
            "build the model as it was built for discover"
        )


def _check_entry(what: str, name: str, shape: tuple[int, ...], known: Shapes) -> None:
    if name not in known:
        raise StructureMismatch(f"{what} {name!r} is not in the model; it has {list(known)[:6]}")
    if known[name] != shape:
        raise StructureMismatch(
            f"{what} {name!r} has shape {shape}, in the model it is {known[name]}"
        )


def install_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy named values into a model's parameters and buffers, in place.

    Args:
        model: a model that owns every name, see :func:`check_structure`.
        state: parameter or buffer name -> value.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> install_state(norm, {"running_mean": torch.tensor([3.0])})
        >>> norm.running_mean
        tensor([3.])
    """
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def persistent_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The buffers that a model's ``state_dict`` holds: what a ticket owns by default.

    Args:
        model: any module.

    Returns:
        Buffer name -> the buffer itself, not a copy.

    Example:
        >>> list(persistent_buffers(nn.BatchNorm1d(1)))
        ['running_mean', 'running_var', 'num_batches_tracked']
    """
    saved = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in saved}


def parameters_of(model: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a state that are parameters of a model.

    Args:
        model: any module.
        state: parameter and buffer names -> values.

    Returns:
        The same mapping without buffers and foreign names.

    Example:
        >>> list(parameters_of(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "x": torch.ones(1)}))
        ['weight']
    """
    names = {name for name, _ in model.named_parameters()}
    return {name: value for name, value in state.items() if name in names}


def tensor_places(model: nn.Module, table_name: str) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Every place in a model's module tree where a parameter or buffer is kept.

    Args:
        model: any module.
        table_name: ``"_parameters"`` or ``"_buffers"``.

    Returns:
        Tensor name -> (table of a module, key in it); a tied tensor has one name, the first, and
        several places.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> tied = nn.Sequential(layer, layer, nn.ReLU())
        >>> {name: len(places) for name, places in tensor_places(tied, "_parameters").items()}
        {'0.weight': 1, '0.bias': 1}
    """
    first_names: dict[int, str] = {}
    places: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for prefix, module in model.named_modules():
        table = getattr(module, table_name)
        for local, tensor in table.items():
            if tensor is not None:
                name = first_names.setdefault(id(tensor), f"{prefix}.{local}" if prefix else local)
                places.setdefault(name, []).append((table, local))
    return places


def device_of(model: nn.Module) -> torch.device:
    """The one device a model lives on.

    Args:
        model: a module with at least one parameter or buffer.

    Returns:
        Its device.

    Raises:
        InvalidArgument: the model lies on several devices, on ``meta``, or has no tensors.

    Example:
        >>> device_of(nn.Linear(1, 1))
        device(type='cpu')
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    devices = sorted({str(tensor.device) for _, tensor in tensors})
    if len(devices) != 1:
        raise InvalidArgument(
            f"the model must live on one device, {type(model).__name__} lies on "
            f"{', '.join(devices) or 'none (it has no tensors)'}: move it with model.to(device)"
        )
    if devices[0] == "meta":
        raise InvalidArgument(
            "the model is on the meta device and has no values: build it on a real device, or "
            "model.to_empty(device=...) and initialise it"
        )
    return torch.device(devices[0])
