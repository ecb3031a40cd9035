"""Run a network under a ticket without ever writing to its parameters."""

import inspect
from collections.abc import (
    Callable,
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument, UnmaskedAccess
from rtl_plugin.structure import tensor_places

Tensors = Mapping[str, torch.Tensor]


def mask_parameters(parameters: Tensors, masks: Tensors) -> dict[str, torch.Tensor]:
    """``weight * mask`` for masked parameters, the parameter itself for the others.

    Args:
        parameters: parameter name -> tensor.
        masks: parameter name -> bool tensor of the same shape, on the same device.

    Returns:
        Parameter name -> tensor; gradients flow back to the kept entries only.

    Example:
        >>> mask_parameters({"w": torch.ones(2)}, {"w": torch.tensor([True, False])})["w"]
        tensor([1., 0.])
    """
    return {
        name: value * masks[name] if name in masks else value for name, value in parameters.items()
    }


class TensorSlots:
    """Every place in a model's module tree where a parameter or buffer is kept.

    Args:
        model: the network; a tied tensor has one name (the first) and several places.

    Raises:
        InvalidArgument: the network is or holds a TorchScript module.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with TensorSlots(model).holding({"weight": torch.ones(1, 2)}, {}):
        ...     model(torch.ones(1, 2))
        tensor([[2.]])
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
            raise InvalidArgument(
                f"{type(model).__name__} is or holds a TorchScript module, whose weights cannot be "
                "masked from outside: pass the module it was scripted from"
            )
        self._parameters = tensor_places(model, "_parameters")
        self._buffers = tensor_places(model, "_buffers")
        self._tables: list[dict[str, Any]] = [m._parameters for m in modules]
        self._tables += [m._buffers for m in modules]
        self._recurrent = [m for m in modules if isinstance(m, nn.RNNBase)]

    @contextmanager
    def holding(
        self, parameters: Tensors, buffers: MutableMapping[str, torch.Tensor]
    ) -> Iterator[None]:
        """Put tensors into the model for a block and take them out again.

        Whatever the block does to the model's tensors, the model has its own back afterwards.

        Args:
            parameters: parameter name -> tensor to compute with.
            buffers: buffer name -> tensor; entries that the block replaces are replaced here.
        """
        tables = [(table, dict(table)) for table in self._tables]
        # Recurrent layers compute from a second list, which they renew in forward by themselves.
        flat = [(r, list(r._flat_weights), list(r._flat_weight_refs)) for r in self._recurrent]
        try:
            for places, tensors in ((self._parameters, parameters), (self._buffers, buffers)):
                for name, tensor in tensors.items():
                    for table, local in places[name]:
                        table[local] = tensor
            yield
        finally:
            replaced = self._replaced(buffers)
            for table, originals in tables:
                table.clear()
                table.update(originals)
            for recurrent, weights, references in flat:
                recurrent._flat_weights, recurrent._flat_weight_refs = weights, references
            buffers.update(replaced)

    def _replaced(self, buffers: Tensors) -> dict[str, torch.Tensor]:
        """The buffers that a forward pass put in the place of those it was given."""
        replaced = {}
        for name, given in buffers.items():
            for table, local in self._buffers.get(name, ()):
                now = table.get(local)
                if now is not None and now is not given:
                    replaced[name] = now.detach()
        return replaced


# What a penalty in a loss reads of a module; torch's own versions compute nothing with weights.
_READERS = frozenset(
    "parameters named_parameters buffers named_buffers get_buffer state_dict "
    "get_submodule modules named_modules children named_children keys values items".split()
)


class _MaskedView:
    """A module seen through a ticket: its attributes, items and masked tensors, read only."""

    __slots__ = ("_holding_", "_module_", "_path_")

    def __init__(
        self, module: nn.Module, holding: Callable[[], AbstractContextManager[None]], path: str
    ) -> None:
        object.__setattr__(self, "_module_", module)
        object.__setattr__(self, "_holding_", holding)
        object.__setattr__(self, "_path_", path)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # A loss that asks isinstance(layer, nn.Linear) must not skip the layer in silence.
        return type(self._module_)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise UnmaskedAccess(_remedy(self._path_))

    def __getattr__(self, name: str) -> Any:
        if name in _MaskedView.__slots__:  # asked before __init__ ran, as copy does
            raise AttributeError(name)
        with self._holding_():  # a property that computes on weights sees them masked
            value = getattr(self._module_, name)
            return self._shown(value, f"{self._path_}.{name}" if self._path_ else name)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and isinstance(self._module_, nn.ParameterList):
            # torch makes new parameters for a slice, which are no part of the graph.
            return [self[k] for k in range(*index.indices(len(self)))]
        with self._holding_():
            return self._shown(self._module_[index], f"{self._path_}[{index!r}]")

    def __iter__(self) -> Iterator[Any]:
        with self._holding_():
            items = enumerate(iter(self._module_))
            return iter([self._shown(item, f"{self._path_}[{k}]") for k, item in items])

    def __len__(self) -> int:
        return len(self._module_)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: Any) -> bool:
        return item in self._module_

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnmaskedAccess(f"a loss may not set {name!r} on the model: keep it elsewhere")

    def __delattr__(self, name: str) -> None:
        raise UnmaskedAccess(f"a loss may not delete {name!r} from the model")

    def __repr__(self) -> str:
        return f"{type(self).__name__.lstrip('_')}({self._module_!r})"

    def _shown(self, value: Any, path: str) -> Any:
        if isinstance(value, nn.Module):
            return _MaskedView(value, self._holding_, path)
        if inspect.ismethod(value) and isinstance(value.__self__, nn.Module):
            return self._method(value, path)
        # A container is passed as it is, so that a loss may append to it, unless it would hand out
        # a bare module.
        if type(value) in (list, tuple) and any(isinstance(v, nn.Module) for v in value):
            return type(value)(self._shown(v, f"{path}[{k}]") for k, v in enumerate(value))
        if type(value) is dict and any(isinstance(v, nn.Module) for v in value.values()):
            return {k: self._shown(v, f"{path}[{k!r}]") for k, v in value.items()}
        return value

    def _method(self, method: Callable[..., Any], path: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if method.__name__ not in _READERS:
                raise UnmaskedAccess(_remedy(path))
            with self._holding_():
                value = method(*args, **kwargs)
                if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)):
                    return iter([self._shown_item(item, path) for item in value])
                return self._shown(value, path)

        return call

    def _shown_item(self, item: Any, path: str) -> Any:
        if isinstance(item, tuple):  # a name and what it names
            return tuple(self._shown(part, f"{path}: {item[0]}") for part in item)
        return self._shown(item, path)


class MaskedModel(_MaskedView):
    """What a loss receives: calls run the network under a ticket, parameters appear masked.

    Args:
        model: the user's network.
        slots: its :class:`TensorSlots`.
        parameters: parameter name -> tensor to compute with, see :func:`mask_parameters`.
        buffers: buffer name -> the ticket's own buffer; a forward pass in train mode updates them.

    Raises:
        UnmaskedAccess: on use, when a method is called that would run unmasked weights.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> masked = MaskedModel(model, TensorSlots(model), {"weight": torch.zeros(1, 2)}, {})
        >>> masked(torch.ones(1, 2)), masked.weight, masked.in_features
        (tensor([[0.]]), tensor([[0., 0.]]), 2)
    """

    __slots__ = ()

    def __init__(
        self,
        model: nn.Module,
        slots: TensorSlots,
        parameters: Tensors,
        buffers: MutableMapping[str, torch.Tensor],
    ) -> None:
        super().__init__(model, lambda: slots.holding(parameters, buffers), "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network's forward under the ticket, with any arguments and any output."""
        with self._holding_():
            return self._module_(*args, **kwargs)

    forward = __call__


def masked_backward(view: MaskedModel, loss: torch.Tensor) -> None:
    """Backward pass of a loss that a masked model computed.

    Gradient checkpointing runs parts of the forward pass again, and they must find the ticket's
    tensors in the model: a plain ``loss.backward()`` would then give wrong gradients silently.

    Args:
        view: what the loss was given.
        loss: a scalar that depends on it.

    Example:
        >>> model, leaf = nn.Linear(2, 1, bias=False), torch.ones(1, 2, requires_grad=True)
        >>> masks = {"weight": torch.tensor([[True, False]])}
        >>> masked = mask_parameters({"weight": leaf}, masks)
        >>> view = MaskedModel(model, TensorSlots(model), masked, {})
        >>> masked_backward(view, view(torch.ones(1, 2)).sum()); leaf.grad
        tensor([[1., 0.]])
    """
    with view._holding_():
        loss.backward()


def _remedy(what: str) -> str:
    return (
        f"the loss called {what!r}, which would run weights without their masks: call the model "
        "itself, and have its forward do (or dispatch to) what you need; for a penalty on weights "
        "read attributes, parameters() or named_parameters()"
    )
