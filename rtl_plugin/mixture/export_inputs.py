"""Example inputs of an export, capturing a network with them, and comparing outputs."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import ExportFailed, InvalidArgument
from rtl_plugin.mixture.rows import take_rows
from rtl_plugin.nested import map_tensors, tensors_in
from rtl_plugin.routing.contract import batch_size

# Largest difference that is still the same network, as a share of the output's largest value.
_TOLERANCES = {
    **{torch.float64: 1e-10, torch.complex128: 1e-10, torch.float32: 1e-4, torch.complex64: 1e-4},
    **{torch.float16: 2e-2, torch.bfloat16: 2e-2},
}
_SMALLEST_SCALE = 1e-2  # an output that is zero but for rounding has no scale of its own


@dataclass(frozen=True)
class ExportInputs:
    """Example inputs as a forward takes them, and their batch size where it may vary.

    Args:
        args: positional inputs.
        kwargs: inputs by name.
        size: rows of the batch, or None where it is fixed.

    Example:
        >>> given = ExportInputs((torch.zeros(2, 3),), {}, 2)
        >>> [len(each.tensors()[0]) for each in given.sizes()]
        [2, 1, 3]
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int | None

    def with_rows(self, rows: int) -> "ExportInputs":
        """The same samples over and over, up to a number of rows.

        Args:
            rows: 1 or more.
        """
        assert self.size is not None  # noqa: S101 - asked of a dynamic batch only
        chosen = torch.arange(rows) % self.size
        args, kwargs = take_rows((self.args, self.kwargs), chosen, self.size)
        return ExportInputs(args, kwargs, rows)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor of the inputs, in order."""
        return list(tensors_in((self.args, self.kwargs)))

    def sizes(self) -> "list[ExportInputs]":
        """These inputs and, where the batch may vary, one row and one row more."""
        if self.size is None:
            return [self]
        return [self, self.with_rows(1), self.with_rows(self.size + 1)]

    @property
    def rows(self) -> int:
        """Rows of the first tensor."""
        shape = self.tensors()[0].shape
        return shape[0] if shape else 1

    @property
    def described(self) -> str:
        """The batch size for a message, or nothing where it is fixed."""
        return "" if self.size is None else f" on a batch of {self.size}"


def checked_inputs(example_inputs: Any, dynamic_batch: bool) -> ExportInputs:
    """Example inputs in one form, with two rows where one was given.

    Args:
        example_inputs: a tensor, a tuple or list of positional inputs, or a dict by name.
        dynamic_batch: whether the batch size may vary.

    Returns:
        Copies of them.

    Raises:
        InvalidArgument: another type, or the batch cannot be told.

    Example:
        >>> checked_inputs(torch.zeros(1, 3), dynamic_batch=True).size
        2
    """
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(example_inputs, torch.Tensor):
        args = (example_inputs,)
    elif isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif type(example_inputs) in (tuple, list):
        args = tuple(example_inputs)
    else:
        raise InvalidArgument(
            "example_inputs= takes a tensor, a tuple or list of positional inputs, or a dict of "
            f"inputs by name, got {type(example_inputs).__name__}"
        )
    # A copy each: the capture tells tensors apart by identity, and needs no gradients.
    args, kwargs = map_tensors(lambda tensor: tensor.detach().clone(), (args, kwargs))
    if next(tensors_in((args, kwargs)), None) is None:
        raise InvalidArgument("example_inputs= holds no tensor: give one batch of the network's")
    if not dynamic_batch:
        return ExportInputs(args, kwargs, None)
    inputs = ExportInputs(args, kwargs, batch_size((args, kwargs)))
    tensors = inputs.tensors()
    if inputs.size == 0:
        raise InvalidArgument("example_inputs= has no rows: give two or more")
    if inputs.size == 1 and len(tensors) > 1:
        raise InvalidArgument(
            "example_inputs= has one row, of which a table of one row cannot be told: give two or "
            "more rows, or dynamic_batch=False"
        )
    # torch takes a size of one for a constant.
    return inputs.with_rows(2) if inputs.size == 1 else inputs


def captured(plain: nn.Module, inputs: ExportInputs) -> torch.export.ExportedProgram:
    """Capture a network with ``torch.export``.

    Args:
        plain: a module that nobody else uses meanwhile, for tracing puts other tensors into it.
        inputs: of its forward.

    Returns:
        The program, not compared with the module yet.

    Raises:
        ExportFailed: torch cannot capture it.

    Example:
        >>> inputs = checked_inputs(torch.zeros(2, 3), dynamic_batch=True)
        >>> len(captured(nn.Linear(3, 1), inputs).range_constraints)
        1
    """
    shapes = None
    if inputs.size is not None:
        shapes, batch = torch.export.ShapesCollection(), torch.export.Dim("batch")
        for tensor in inputs.tensors():
            if tensor.dim() > 0 and tensor.shape[0] == inputs.size:
                shapes[tensor] = {0: batch}
    try:
        with known_warnings():
            return torch.export.export(
                plain, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:
        remedy = ", or export one batch size with dynamic_batch=False" if shapes else ""
        raise ExportFailed(
            f"torch.export cannot capture {type(plain).__name__} ({type(error).__name__}: "
            f"{first_lines(error)}): write its forward without branches on values and without "
            f"fixed batch sizes, returning tensors{remedy}"
        ) from error


@contextmanager
def known_warnings() -> Iterator[None]:
    """Leave out two warnings that torch gives of its own recurrent layers, and no other.

    Example:
        >>> with known_warnings():
        ...     warnings.warn("_check_is_size will be removed", FutureWarning)
    """
    weights = r"self(\.\w+)*\._flat_weights\[\d+\]"
    attributes = rf"The tensor attributes? {weights}(, {weights})* (was|were) assigned during"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", attributes, UserWarning)
        warnings.filterwarnings("ignore", "_check_is_size will be removed", FutureWarning)
        yield


def outputs_of(module: Any, given: ExportInputs) -> list[torch.Tensor]:
    """Every tensor that a network returns, on the CPU.

    Args:
        module: the network.
        given: its inputs, left as they are.

    Returns:
        The tensors, in order.

    Example:
        >>> given = ExportInputs((torch.zeros(2, 3),), {}, 2)
        >>> outputs_of(nn.Linear(3, 1), given)[0].shape
        torch.Size([2, 1])
    """
    # Copies, for a module may write to its inputs.
    args, kwargs = map_tensors(torch.clone, (given.args, given.kwargs))
    with torch.no_grad():
        return [output.detach().cpu() for output in tensors_in(module(*args, **kwargs))]


def expected_outputs(module: Any, given: ExportInputs) -> list[torch.Tensor]:
    """What an export is to give.

    Args:
        module: the network.
        given: its inputs, left as they are.

    Returns:
        The tensors of its output, in order.

    Raises:
        ExportFailed: the network itself does not run on these inputs.

    Example:
        >>> given = ExportInputs((torch.zeros(2, 3),), {}, 2)
        >>> expected_outputs(nn.Linear(3, 1), given)[0].shape
        torch.Size([2, 1])
    """
    try:
        return outputs_of(module, given)
    except Exception as error:
        raise ExportFailed(
            f"the network itself fails{given.described} ({first_lines(error)}): give inputs that "
            "it takes, or dynamic_batch=False"
        ) from error


def check_same(
    expected: Sequence[torch.Tensor], seen: Sequence[torch.Tensor], given: ExportInputs, what: str
) -> float:
    """The largest difference, as a share of the largest value of the output that it is in.

    Args:
        expected: the module's output tensors.
        seen: those of what was made from it.
        given: what both were computed from.
        what: was made, for the message.

    Returns:
        The difference.

    Raises:
        ExportFailed: shapes or dtypes differ, or values by more than the dtype's tolerance.

    Example:
        >>> given = ExportInputs((torch.ones(1),), {}, None)
        >>> check_same([torch.ones(1)], [torch.ones(1)], given, "the copy")
        0.0
    """
    ours, theirs = ([_kind(tensor) for tensor in tensors] for tensors in (expected, seen))
    if ours != theirs:
        raise ExportFailed(
            f"{what} gives {theirs}{given.described}, the module {ours}: write its forward "
            "without numbers that depend on the example"
        )
    largest = 0.0
    for position, (own, other) in enumerate(zip(expected, seen, strict=True)):
        difference, allowed = relative_difference(own, other), _TOLERANCES.get(own.dtype, 0.0)
        if not difference <= allowed:
            raise ExportFailed(
                f"output {position} of {what} differs from the module's by {difference:.3g} of its "
                f"largest value{given.described}, allowed are {allowed:g}: "
                "it was not kept; does the network draw random numbers in eval mode, or keep "
                "Python values that change from call to call?"
            )
        largest = max(largest, difference)
    return largest


def relative_difference(expected: torch.Tensor, seen: torch.Tensor) -> float:
    """The largest difference of two tensors, as a share of the first one's largest value.

    Args:
        expected: any dtype, any shape.
        seen: of the same shape.

    Returns:
        0 where both are equal (also NaN or infinite in the same places), infinity where one is
        NaN or infinite alone, or where integers or bools differ.

    Example:
        >>> relative_difference(torch.tensor([4.0, 1.0]), torch.tensor([4.0, 3.0]))
        0.5
    """
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(expected, seen) else float("inf")
    wide = torch.complex128 if expected.is_complex() else torch.float64
    ours, theirs = expected.to(wide), seen.to(wide)
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    if same.all():
        return 0.0
    if not (ours.isfinite() & theirs.isfinite() | same).all():
        return float("inf")
    scale = ours[ours.isfinite()].abs().max().clamp(min=_SMALLEST_SCALE)
    return float((ours - theirs)[~same].abs().max() / scale)


def _kind(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.")


def first_lines(error: BaseException) -> str:
    r"""The beginning of a message that may go on for pages.

    Args:
        error: somebody else's.

    Returns:
        At most 300 characters, without line breaks.

    Example:
        >>> first_lines(ValueError("one\n\ntwo\nthree"))
        'one two'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]
