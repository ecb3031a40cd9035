"""The checkpoint after a retraining epoch: weights, optimizer, scheduler, each ticket's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin.checkpoint import read_file, write_file
from rtl_plugin.errors import StructureMismatch
from rtl_plugin.joint_training.shared_training import SharedTraining
from rtl_plugin.run_folder import RunFolder
from rtl_plugin.state_codec import decode_state, encode_state
from rtl_plugin.structure import install_state

_KIND = "retraining checkpoint"


def save_epoch(
    folder: RunFolder,
    model: nn.Module,
    training: SharedTraining,
    epoch: int,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write the state after an epoch.

    Args:
        folder: of the retraining.
        model: its parameters are saved.
        training: its state is saved.
        epoch: the last finished one.
        rows: of all finished epochs.

    Raises:
        InvalidArgument: optimizer or scheduler state that a checkpoint cannot hold.
        OSError: the folder cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    header = {
        "epoch": epoch,
        "rows": list(rows),
        "weights": encode_state(weights, tensors, "w."),
        "training": encode_state(training.state(), tensors, "s."),
    }
    write_file(folder.checkpoint, _KIND, header, tensors)


def load_epoch(
    folder: RunFolder, model: nn.Module, training: SharedTraining
) -> tuple[int, list[dict[str, Any]]]:
    """Continue from the state after an epoch.

    Args:
        folder: of the retraining.
        model: receives the weights.
        training: receives its state.

    Returns:
        The last finished epoch, and the rows of all finished ones.

    Raises:
        DamagedFile: the checkpoint is damaged or foreign.
        StructureMismatch: it holds another network's weights.
    """
    header, tensors = read_file(folder.checkpoint, _KIND)
    weights = decode_state(header["weights"], tensors)
    present = {name: parameter.shape for name, parameter in model.named_parameters()}
    if {name: value.shape for name, value in weights.items()} != present:
        raise StructureMismatch(
            f"{folder.checkpoint} holds the weights of another network: delete it to start again"
        )
    training.load_state(decode_state(header["training"], tensors))
    install_state(model, weights)
    return header["epoch"], header["rows"]
