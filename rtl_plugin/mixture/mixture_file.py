"""The mixture file: tickets, the weights they share and the router, in one ticket file."""

import copy
import os
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from rtl_plugin import ticket_file
from rtl_plugin.errors import DamagedFile, InvalidArgument, StructureMismatch
from rtl_plugin.mixture.router_checks import check_router
from rtl_plugin.routing.router_codec import decode_router, encode_router
from rtl_plugin.structure import install_state, persistent_buffers
from rtl_plugin.tickets import TicketSet

_KIND = "mixture"
# No parameter or buffer can be called so: torch allows no dot in a name and no empty name, so no
# path of names begins with one.
_ROUTER = ".router"
_ROUTER_TENSOR = ".router."


def save_mixture(
    path: str | os.PathLike[str], model: nn.Module, tickets: TicketSet, router: Any = None
) -> None:
    """Write shared weights, tickets and, where one is given, the router, without pickle.

    Args:
        path: the file; written atomically.
        model: its parameters and persistent buffers are saved.
        tickets: its tickets.
        router: one of our routers, or None for a file without.

    Raises:
        InvalidArgument: the network keeps state that is no tensor, the router is no router of
            ours, or it holds what only pickle could keep (an
            estimator, a function). Nothing was written then.
        OSError: the folder cannot be written.
    """
    _check_all_is_tensors(model)
    weights = {name: value.detach() for name, value in _saved(model).items()}
    if router is not None:
        tensors: dict[str, torch.Tensor] = {}
        text = encode_router(router, tensors, _ROUTER_TENSOR)
        weights[_ROUTER] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        weights |= tensors
    ticket_file.save(path, tickets.to_file(weights), kind=_KIND)


def load_mixture(
    path: str | os.PathLike[str], model: nn.Module, router: Any | Literal[False] | None = None
) -> tuple[nn.Module, TicketSet, Any]:
    """Read a file of :func:`save_mixture` into a copy of a model.

    Args:
        path: the file.
        model: a network of the same structure, with any weights; left as it is.
        router: None takes the file's router, if it has one; False leaves it out. A router is used
            as it is where the file has none; else it must be of the saved one's kind, and copies
            of its modules (classifier, feature space) are given the saved weights.

    Returns:
        The copy with the file's weights, the tickets, and the router or None.

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: it is damaged, foreign, or of an unknown version.
        StructureMismatch: it, or its router, belongs to a network of another structure.
        InvalidArgument: the model is on the meta device, the saved router has a module and no
            router is given to copy it from, or the given one is of another kind.
    """
    if any(tensor.is_meta for tensor in _saved(model).values()):
        raise InvalidArgument(
            "the model is on the meta device, which holds no values to load into: build it on a "
            'real device, or give model.to_empty(device="cpu")'
        )
    content = ticket_file.load(path, kind=_KIND)
    weights, text, tensors = _parted(path, content.weights)
    tickets = TicketSet.from_file(content, packed=True)
    try:
        tickets.check_fits(model)
    except StructureMismatch as error:
        raise StructureMismatch(f"{path}: {error}") from error
    _check_weights(path, weights, _saved(model))
    if router is False:
        router = None
    elif text is not None:
        router = _decoded_router(path, text, tensors, router, tickets)
    served = copy.deepcopy(model)
    install_state(served, weights)
    return served, tickets, router


def _parted(
    path: str | os.PathLike[str], weights: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], str | None, dict[str, torch.Tensor]]:
    """The network's weights, the router's text if there is one, and the router's tensors."""
    own = {name: value for name, value in weights.items() if not name.startswith(_ROUTER)}
    tensors = {n: value for n, value in weights.items() if n.startswith(_ROUTER_TENSOR)}
    described = weights.get(_ROUTER)
    if len(own) + len(tensors) + (described is not None) != len(weights):
        raise DamagedFile(f"{path}: it holds tensors beside {_ROUTER!r} that nobody knows")
    if described is None:
        if tensors:
            raise DamagedFile(f"{path}: it holds tensors of a router and no router")
        return own, None, {}
    if described.dtype != torch.uint8 or described.dim() != 1:
        raise DamagedFile(f"{path}: the saved router is {described.dtype}, expected bytes")
    try:
        return own, described.numpy().tobytes().decode(), tensors
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{path}: the saved router is not text: {error}") from error


def _decoded_router(
    path: str | os.PathLike[str],
    text: str,
    tensors: Mapping[str, torch.Tensor],
    skeleton: Any,
    tickets: TicketSet,
) -> Any:
    try:
        router = decode_router(text, tensors, skeleton)
    except (DamagedFile, StructureMismatch, InvalidArgument) as error:
        raise type(error)(f"{path}: {error}") from error
    try:
        check_router(router, tickets)
    except InvalidArgument as error:
        raise DamagedFile(f"{path}: {error}") from error
    return router


def _check_all_is_tensors(model: nn.Module) -> None:
    extra = [key for key in model.state_dict() if key.rpartition(".")[2] == "_extra_state"]
    if extra:
        raise InvalidArgument(
            f"the network keeps {extra[0]!r} beside its tensors (get_extra_state), which the file "
            "cannot hold and a loaded network would lack: keep such values in buffers"
        )


def _saved(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **persistent_buffers(model)}


def _check_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
) -> None:
    for name in sorted(own.keys() ^ weights.keys()):
        place = "the model has none" if name in weights else "the file has none"
        raise StructureMismatch(
            f"{path}: file and model must hold the same tensors, but of {name!r} {place}: build "
            "the model as it was built for the saved mixture"
        )
    for name, value in weights.items():
        if own[name].dtype != value.dtype:
            raise StructureMismatch(
                f"{path}: {name!r} is {value.dtype} in the file and {own[name].dtype} in the "
                "model: load into a model of the file's dtype, and convert the mixture afterwards"
            )
        if own[name].shape != value.shape:
            raise StructureMismatch(
                f"{path}: {name!r} has shape {tuple(value.shape)} in the file and "
                f"{tuple(own[name].shape)} in the model: build the model as it was built for the "
                "saved mixture"
            )
