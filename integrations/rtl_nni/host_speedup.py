"""NNI's own ``ModelSpeedup``, kept running on today's torch without patching it for good."""

import contextlib
import copy
import dis
import functools
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from types import MethodDescriptorType, SimpleNamespace
from typing import Any

import torch
from torch import fx, nn

from rtl_nni.config_check import refuse_wrapped
from rtl_nni.host import imported, quiet
from rtl_nni.masked_comparison import folded_values
from rtl_plugin.integration_api import (
    PruningFailed,
    RtlError,
    derived_seed,
    forked,
    read_nni_masks,
    tensors_in,
    write_nni_masks,
)

_TRACER = "nni.common.concrete_trace_utils.concrete_tracer"
_PROXY = "nni.common.concrete_trace_utils.concrete_proxy"
_SEED = derived_seed("model_speedup")
_UNTRACEABLE = (
    fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError,
    AssertionError, NotImplementedError,
)  # fmt: skip


def model_speedup(
    model: nn.Module, masks: Any, dummy_input: Any, graph_module: fx.GraphModule | None = None
) -> nn.Module:
    """NNI's ``ModelSpeedup`` on a copy of the model.

    For those who rely on how it cuts; :func:`rtl_nni.speedup` is exact and faster. This one does
    not complete the masks, so batch norms behind dead channels change the outputs, and it takes
    masked outputs of the network away where it can. Masked weights are zero in the copy (NNI alone
    cuts dense weights, and what it cannot cut comes back to life). NNI infers masks with random
    numbers: without dependency ids it may fail for some of them, and here their seed is fixed.

    Args:
        model: the network, unwrapped; left as it is.
        masks: one NNI mask dictionary.
        dummy_input: a tensor, a tuple or list of arguments, or a dict of keyword arguments.
        graph_module: a trace of the model to use; else ``torch.fx`` traces it, or, where a forward
            depends on values, NNI's tracer under :func:`traceable`.

    Returns:
        The smaller network, in eval mode.

    Raises:
        InvalidArgument: the model is still wrapped.
        RtlError: masks do not fit the model.
        PruningFailed: NNI fails, or its network's outputs have other shapes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> keep = torch.tensor([1.0, 0.0, 1.0, 0.0])
        >>> masks = {"0": {"weight": keep.reshape(4, 1, 1, 1), "bias": keep}}
        >>> model_speedup(net, masks, torch.rand(8, 1, 3, 3))[0].out_channels
        2
    """
    refuse_wrapped(model)
    kept = read_nni_masks("the masks", masks, model)
    twin = copy.deepcopy(model).eval()
    folded = folded_values(model, kept)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(folded[name])
    before = _shapes(twin, dummy_input)
    try:
        with quiet(), forked(_SEED), _silenced():
            graph = _graph(twin, dummy_input, graph_module)
            host = imported("nni.compression.speedup")
            inputs = tuple(dummy_input) if isinstance(dummy_input, list) else dummy_input
            small: nn.Module = host.ModelSpeedup(
                twin, inputs, write_nni_masks(kept), graph_module=graph
            ).speedup_model()
        after = _shapes(small.eval(), dummy_input)
    except RtlError:
        raise
    except Exception as error:
        raise PruningFailed(
            f"NNI's ModelSpeedup failed on {type(model).__name__} ({type(error).__name__}: "
            f"{error}): use rtl_nni.speedup, or pass a graph_module that torch.fx made"
        ) from error
    if after != before:
        raise PruningFailed(
            f"NNI's ModelSpeedup changed the outputs from shapes {before} to {after}: leave the "
            "layers that give the network's outputs out of the config list"
        )
    return small


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """Let NNI's ``concrete_trace`` run on today's torch and Python, for a block.

    Five things broke: torch renamed the class of some builtins, ``Node.is_impure`` has a new
    argument, annotations like ``list[int]`` are evaluated while builtins are wrapped, since Python
    3.11 there are cache entries between bytecode instructions, and since 3.12 ``type`` cannot be
    wrapped as functions are. Everything is put back afterwards, also after an error. Not for
    several threads at once.

    Example:
        >>> with traceable():
        ...     pass
    """
    tracer, proxy = imported(_TRACER), imported(_PROXY)
    table = "default_autowrap_leaf_function"
    jumps = tuple(code for name, code in dis.opmap.items() if "JUMP" in name and "IF" in name)
    with contextlib.ExitStack() as stack:
        replace = _Replacements(stack)
        replace(tracer.ConcreteTracer, table, _known_leaves(getattr(tracer.ConcreteTracer, table)))
        impure = tracer.node_is_impure_wrapper
        replace(tracer, "node_is_impure_wrapper", lambda node, impure_random=True: impure(node))
        for name in ("_create_wrapped_leaf_class", "_create_wrapped_leaf_iterable_class"):
            replace(tracer, name, _subscriptable(getattr(tracer, name)))
        replace(tracer, "functools", _without_type_parameters())
        replace(proxy, "dis", _with_caches())
        replace(proxy.ConcreteProxy, "jump_opcodes", jumps)
        yield


class _Replacements:
    """Sets attributes until a stack of contexts is left."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, owner: Any, name: str, value: Any) -> None:
        self._stack.callback(setattr, owner, name, vars(owner)[name])
        setattr(owner, name, value)


def _known_leaves(leaves: Mapping[Any, Any]) -> dict[Any, Any]:
    """Name the places of tensor methods that NNI looks for under their class's former name."""
    known = {}
    for function, (positions, force, to) in leaves.items():
        if getattr(function, "__qualname__", "").startswith("TensorBase."):
            if not isinstance(function, MethodDescriptorType):
                continue
            positions = [*positions, (torch.Tensor, function.__name__)]
        known[function] = (positions, force, to)
    return known


def _subscriptable(create: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Give the stand-ins of ``list`` and the like what annotations need of them."""

    def created(tracer: Any, real: Any) -> Any:
        wrapped = create(tracer, real)
        kind: Any = type(wrapped)
        kind.__getattr__ = lambda self, name: getattr(real, name)  # int.from_bytes in Python 3.12
        kind.__getitem__ = lambda self, key: real[key]
        kind.__or__ = lambda self, other: real | other
        kind.__ror__ = lambda self, other: other | real
        return wrapped

    return created


def _without_type_parameters() -> SimpleNamespace:
    """Since Python 3.12 ``functools.wraps(type)`` copies an attribute that no function takes."""
    own = {name: getattr(functools, name) for name in dir(functools) if not name.startswith("__")}
    names = ("__module__", "__name__", "__qualname__", "__doc__")
    own["wraps"] = functools.partial(functools.wraps, assigned=names)
    return SimpleNamespace(**own)


def _with_caches() -> SimpleNamespace:
    own = {name: getattr(dis, name) for name in dir(dis) if not name.startswith("__")}
    keywords = {"show_caches": True} if "show_caches" in _parameters(dis.get_instructions) else {}
    own["get_instructions"] = lambda code: dis.get_instructions(code, **keywords)
    return SimpleNamespace(**own)


def _parameters(function: Any) -> tuple[str, ...]:
    code = function.__code__
    return tuple(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


def _graph(
    model: nn.Module, dummy_input: Any, graph_module: fx.GraphModule | None
) -> fx.GraphModule:
    if graph_module is not None:
        # Over the copy's layers: NNI fills those of its graph with random numbers for a while.
        return fx.GraphModule(model, copy.deepcopy(graph_module.graph))
    try:
        return fx.symbolic_trace(model)
    except _UNTRACEABLE:
        inputs = dummy_input if isinstance(dummy_input, Mapping) else _arguments(dummy_input)
        with traceable():
            graph: fx.GraphModule = imported(_TRACER).concrete_trace(model, inputs)
            return graph


def _shapes(model: nn.Module, dummy_input: Any) -> list[tuple[int, ...]]:
    with torch.no_grad(), forked(_SEED):
        if isinstance(dummy_input, Mapping):
            output = model(**dummy_input)
        else:
            output = model(*_arguments(dummy_input))
    return [tuple(tensor.shape) for tensor in tensors_in(output)]


def _arguments(dummy_input: Any) -> tuple[Any, ...]:
    return tuple(dummy_input) if isinstance(dummy_input, (tuple, list)) else (dummy_input,)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without its stray prints, and without a line a layer on the user's terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
