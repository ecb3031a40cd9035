"""One ticket as a ``torch.export`` program, and as an ONNX file that was run before it is kept."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtl_plugin.checkpoint import write_atomically
from rtl_plugin.errors import ExportFailed, InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.mixture.export_inputs import (
    captured,
    check_same,
    checked_inputs,
    expected_outputs,
    first_lines,
    outputs_of,
)
from rtl_plugin.mixture.onnx_file import check_fits_one_file, onnx_model, opset_of, run_and_compare
from rtl_plugin.mixture.replica import storage_sharing_replica


@dataclass(frozen=True)
class OnnxReport:
    """What was written and how far it was checked.

    Args:
        path: the file.
        ticket: the ticket's name, or None for a plain module.
        opset: version of ONNX's operators.
        size: of the file, in bytes.
        inputs: names in the file, in the order of the network's tensors.
        outputs: names in the file, in the order of the output's tensors.
        dynamic_batch: whether the file takes any batch size.
        batch_sizes: those that were run in onnxruntime; empty where nothing was.
        difference: the largest difference seen from the module, as a share of the largest value
            of the output that it is in; None where nothing was run.

    Example:
        >>> report = OnnxReport(Path("a.onnx"), "a", 20, 10, ("x",), ("y",), True, (3, 1), 1e-7)
        >>> report.batch_sizes
        (3, 1)
    """

    path: Path
    ticket: str | None
    opset: int
    size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_batch: bool
    batch_sizes: tuple[int, ...]
    difference: float | None


def export_program(
    module: nn.Module, example_inputs: Any, dynamic_batch: bool = True
) -> torch.export.ExportedProgram:
    """A plain module as a program of ``torch.export``, in eval mode.

    Args:
        module: from ``mixture.export(name)``, or any other. It is left as it is; the program
            shares its tensors.
        example_inputs: one tensor; a tuple or list of positional inputs; or a dict of inputs by
            name. Each may be a tensor or tensors nested in dicts, lists and tuples; numbers,
            strings and None become constants. A dataclass must be known to
            ``torch.export.register_dataclass``.
        dynamic_batch: any batch size may be given to the program. The batch is the first dimension
            of the first tensor, and of every other tensor that has as many rows there.

    Returns:
        The program, after a comparison with the module on the examples (and on other batch sizes).

    Raises:
        InvalidArgument: not a module, or inputs of which the batch cannot be told.
        ExportFailed: the network cannot be captured, or the program computes something else.

    Example:
        >>> program = export_program(nn.Linear(2, 1), torch.ones(3, 2))
        >>> program.module()(torch.ones(5, 2)).shape
        torch.Size([5, 1])
    """
    plain = _replica(module)
    inputs = checked_inputs(example_inputs, dynamic_batch)
    program = captured(plain, inputs)
    run = program.module()
    for given in inputs.sizes():
        expected = expected_outputs(plain, given)
        try:
            seen = outputs_of(run, given)
        except Exception as error:
            raise ExportFailed(
                f"the exported program fails{given.described} ({first_lines(error)}): write the "
                "module's forward without fixed batch sizes, or use dynamic_batch=False"
            ) from error
        check_same(expected, seen, given, "the exported program")
    return program


def export_onnx(
    model: nn.Module,
    name: Any,
    path: str | os.PathLike[str],
    example_inputs: Any,
    *,
    dynamic_batch: bool = True,
    opset: int | None = None,
    check: bool = True,
) -> OnnxReport:
    """Write one ticket as an ONNX file, masks folded in, and run the file before keeping it.

    The file holds its weights (so at most 2 GiB) and the ticket's name as metadata. Where anything
    fails, no file is written and one that was there stays. None in inputs and outputs is left out.

    Args:
        model: a mixture, or a plain module.
        name: which ticket (name or position); None for a plain module.
        path: the file; written atomically.
        example_inputs: as for :func:`export_program`.
        dynamic_batch: as for :func:`export_program`; the dimension is called ``batch``.
        opset: version of ONNX's operators; None is the exporter's own choice.
        check: run the file in onnxruntime on the CPU and compare with the module, on the examples
            and, with a dynamic batch, on one row and on one row more. Differences up to 1e-4
            (float32) of an output's largest value pass.

    Returns:
        What was written and how far it was checked.

    Raises:
        MissingExtra: onnx or onnxscript is not installed, or onnxruntime with ``check=True``.
        UnknownTicket: there is no such ticket.
        InvalidArgument: as for :func:`export_program`, a name with a plain module, or weights of
            more than 2 GiB.
        ExportFailed: the network cannot be exported, or the file computes something else.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> report = export_onnx(nn.Linear(2, 1), None, f"{folder}/a.onnx", torch.ones(3, 2))
        >>> report.batch_sizes, report.path.exists()
        ((3, 1, 4), True)
    """
    for package in ("onnx", "onnxscript", *(("onnxruntime",) if check else ())):
        require(package, "onnx", "ONNX export")
    plain, ticket = _plain(model, name)
    check_fits_one_file(plain)
    inputs = checked_inputs(example_inputs, dynamic_batch)
    proto = onnx_model(captured(plain, inputs), opset, inputs)
    proto.metadata_props.add(key="producer", value="rtl-plugin")
    if ticket is not None:
        proto.metadata_props.add(key="ticket", value=ticket)
    content: bytes = proto.SerializeToString()
    differences = run_and_compare(content, plain, inputs) if check else {}
    write_atomically(Path(path), content)
    return OnnxReport(
        Path(path),
        ticket,
        opset_of(proto),
        len(content),
        tuple(each.name for each in proto.graph.input),
        tuple(each.name for each in proto.graph.output),
        dynamic_batch,
        tuple(differences),
        max(differences.values(), default=None),
    )


def _plain(model: Any, name: Any) -> tuple[nn.Module, str | None]:
    """The module to export and the name of its ticket."""
    from rtl_plugin.mixture.mixture_of_masks import MixtureOfMasks  # it offers these functions
    from rtl_plugin.mixture.ticket_choice import ticket_named

    if isinstance(model, MixtureOfMasks):
        if name is None:
            raise InvalidArgument(
                f"name= says which ticket of the mixture to export: one of {list(model.tickets)}"
            )
        chosen = ticket_named(model.tickets, name)
        return model.export(chosen), chosen
    if name is not None:
        raise InvalidArgument(
            f"name={name!r} asks for a ticket of a mixture, got a {type(model).__name__}: give a "
            "MixtureOfMasks, or name=None for a plain module"
        )
    return _replica(model), None


def _replica(module: Any) -> nn.Module:
    # Tracing puts other tensors into a module while it runs, so never into the user's.
    if not isinstance(module, nn.Module):
        raise InvalidArgument(
            f"export takes an nn.Module, such as mixture.export(name), got {type(module).__name__}"
        )
    replica = storage_sharing_replica(module)
    for part in replica.modules():
        for name, buffer in part._buffers.items():  # a forward may write to them
            part._buffers[name] = None if buffer is None else buffer.detach().clone()
    return replica
