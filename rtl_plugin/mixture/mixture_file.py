"""The mixture file: tickets and the weights they share, in one ticket file."""

import copy
import os
from collections.abc import Mapping

import torch
from torch import nn

from rtl_plugin import ticket_file
from rtl_plugin.errors import StructureMismatch
from rtl_plugin.structure import install_state, persistent_buffers
from rtl_plugin.tickets import TicketSet

_KIND = "mixture"


def save_mixture(path: str | os.PathLike[str], model: nn.Module, tickets: TicketSet) -> None:
    """Write shared weights and tickets, without pickle.

    Args:
        path: the file; written atomically.
        model: its parameters and persistent buffers are saved.
        tickets: its tickets.

    Raises:
        OSError: the folder cannot be written.
    """
    weights = {name: value.detach() for name, value in _saved(model).items()}
    ticket_file.save(path, tickets.to_file(weights), kind=_KIND)


def load_mixture(path: str | os.PathLike[str], model: nn.Module) -> tuple[nn.Module, TicketSet]:
    """Read a file of :func:`save_mixture` into a copy of a model.

    Args:
        path: the file.
        model: a network of the same structure, with any weights; left as it is.

    Returns:
        The copy with the file's weights, and the tickets.

    Raises:
        MissingFile: there is no such file, or the path is a folder.
        DamagedFile: it is damaged, foreign, or of an unknown version.
        StructureMismatch: it belongs to a network of another structure.
    """
    content = ticket_file.load(path, kind=_KIND)
    tickets = TicketSet.from_file(content)
    try:
        tickets.check_fits(model)
    except StructureMismatch as error:
        raise StructureMismatch(f"{path}: {error}") from error
    _check_weights(path, content.weights, _saved(model))
    served = copy.deepcopy(model)
    install_state(served, content.weights)
    return served, tickets


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
        if own[name].shape != value.shape:
            raise StructureMismatch(
                f"{path}: {name!r} has shape {tuple(value.shape)} in the file and "
                f"{tuple(own[name].shape)} in the model: build the model as it was built for the "
                "saved mixture"
            )
