"""A captured network as an ONNX model, run in onnxruntime against the module."""

import copy
import re
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import ConstantArgument

from rtl_plugin.errors import ExportFailed, InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.mixture.export_inputs import (
    ExportInputs,
    check_same,
    expected_outputs,
    first_lines,
    known_warnings,
)

_ONE_FILE = 2**31 - 1  # bytes: more than protobuf can hold in one message
_NO_RUN = "or write the file without running it with check=False"


def check_fits_one_file(plain: nn.Module) -> None:
    """Refuse weights that one ONNX file cannot hold.

    Args:
        plain: the module.

    Raises:
        InvalidArgument: they take more than 2 GiB.

    Example:
        >>> check_fits_one_file(nn.Linear(1, 1))
    """
    size = sum(t.numel() * t.element_size() for t in (*plain.parameters(), *plain.buffers()))
    if size > _ONE_FILE:
        raise InvalidArgument(
            f"the weights take {size:,} bytes and one ONNX file holds {_ONE_FILE:,}: export the "
            "module with export_program, or convert it to float16"
        )


def onnx_model(
    program: torch.export.ExportedProgram, opset: int | None, inputs: ExportInputs
) -> Any:
    """The program as an ONNX model that ONNX's own checker accepts.

    Args:
        program: of a captured network.
        opset: version of ONNX's operators; None is the exporter's own choice.
        inputs: what it was captured with.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        MissingExtra: onnx is not installed.
        ExportFailed: a step has no ONNX operators, or an output is no tensor.
    """
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, ConstantArgument) and spec.arg.value is not None:
            raise ExportFailed(
                f"the network returns {spec.arg.value!r} beside tensors, which ONNX cannot hold: "
                "return tensors only"
            )
    checker = require("onnx.checker", "onnx", "ONNX export")
    try:
        with known_warnings(), torch.no_grad():
            made = torch.onnx.export(program, (), dynamo=True, verbose=False, opset_version=opset)
        assert made is not None  # noqa: S101 - of dynamo=True without a file name
        proto = copy.deepcopy(made.model_proto)
        checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportFailed(
            f"the network cannot be written as ONNX ({type(error).__name__}: "
            f"{first_lines(error.__cause__ or error)}): try another opset=, or write the step "
            "that is named with other operators"
        ) from error
    _check_opset(opset, proto)
    if inputs.size is not None:
        _name_batch(proto, program)
    return proto


def opset_of(proto: Any) -> int:
    """The version of ONNX's own operators that a model uses.

    Args:
        proto: an ``onnx.ModelProto``.

    Returns:
        The version.
    """
    versions = (each.version for each in proto.opset_import if each.domain in ("", "ai.onnx"))
    return int(next(versions))


def _check_opset(asked: int | None, proto: Any) -> None:
    # The exporter keeps another version where it cannot convert, and only logs it.
    if asked is not None and asked != opset_of(proto):
        raise ExportFailed(
            f"asked for opset {asked}, the exporter wrote {opset_of(proto)} and cannot convert "
            "this network: ask for that one, or leave opset= out"
        )


def _name_batch(proto: Any, program: torch.export.ExportedProgram) -> None:
    """Call the dimension ``batch`` instead of a symbol that torch numbered."""
    symbols = {str(symbol) for symbol in program.range_constraints}
    if len(symbols) != 1:
        return
    pattern = re.compile(rf"\b{re.escape(symbols.pop())}\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = pattern.sub("batch", dimension.dim_param)


def run_and_compare(content: bytes, plain: nn.Module, inputs: ExportInputs) -> dict[int, float]:
    """Run an ONNX file in onnxruntime on the CPU and compare it with the module.

    Args:
        content: the file's bytes.
        plain: the module.
        inputs: what to run it with.

    Returns:
        Batch size -> the largest difference, see :func:`relative_difference`.

    Raises:
        MissingExtra: onnxruntime is not installed.
        ExportFailed: it cannot run the file, or computes something else.
    """
    runtime = require("onnxruntime", "onnx", "the check of an ONNX export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportFailed(
            f"onnxruntime cannot load the network on the CPU ({first_lines(error)}): export "
            f"it in float32, {_NO_RUN}"
        ) from error
    differences = {}
    for given in inputs.sizes():
        seen = _in_onnxruntime(session, given)
        differences[given.rows] = check_same(
            expected_outputs(plain, given), seen, given, "the ONNX file in onnxruntime"
        )
    return differences


def _in_onnxruntime(session: Any, given: ExportInputs) -> list[torch.Tensor]:
    names = [each.name for each in session.get_inputs()]
    tensors = given.tensors()
    if len(names) != len(tensors):
        raise ExportFailed(
            f"the file takes {len(names)} inputs for {len(tensors)} example tensors: leave inputs "
            f"that the network does not use out of example_inputs=, {_NO_RUN}"
        )
    try:
        feeds = {n: t.cpu().numpy() for n, t in zip(names, tensors, strict=True)}
        return [torch.as_tensor(output) for output in session.run(None, feeds)]
    except Exception as error:
        raise ExportFailed(
            f"onnxruntime cannot run the network{given.described} ({first_lines(error)}): {_NO_RUN}"
        ) from error
