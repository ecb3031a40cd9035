"""Leave a user's model as it was, whatever NNI, a trainer or a crash did to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import RewindFailed, RewindPoint, bit_equal

_HOOKS = tuple(
    name
    for name, table in vars(nn.Module()).items()
    if "_hooks" in name and isinstance(table, dict)
)
_OWN = {
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training", *_HOOKS,
}  # fmt: skip
_ABSENT = object()


@dataclass(frozen=True)
class _Tables:
    """What one module holds, by reference."""

    parameters: dict[str, nn.Parameter | None]
    buffers: dict[str, torch.Tensor | None]
    modules: dict[str, nn.Module | None]
    not_saved: set[str]
    hooks: dict[str, dict[int, Any]]
    attributes: dict[str, Any]
    training: bool

    @staticmethod
    def of(module: nn.Module) -> "_Tables":
        return _Tables(
            dict(module._parameters),
            dict(module._buffers),
            dict(module._modules),
            set(module._non_persistent_buffers_set),
            {name: dict(getattr(module, name)) for name in _HOOKS},
            {name: value for name, value in vars(module).items() if name not in _OWN},
            module.training,
        )

    def put_back(self, module: nn.Module) -> None:
        """The same objects in the same order: NNI's unwrapping makes other parameters."""
        tables = (
            (module._parameters, self.parameters),
            (module._buffers, self.buffers),
            (module._modules, self.modules),
            *((getattr(module, name), hooks) for name, hooks in self.hooks.items()),
        )
        for table, content in tables:
            table.clear()
            table.update(content)
        module._non_persistent_buffers_set.clear()
        module._non_persistent_buffers_set.update(self.not_saved)
        module.training = self.training
        self._put_methods_back(module)

    def _put_methods_back(self, module: nn.Module) -> None:
        """A wrapper's forward, a trainer's training_step: replaced on the object."""
        for name, value in list(vars(module).items()):
            if name in _OWN:
                continue
            before = self.attributes.get(name, _ABSENT)
            if before is _ABSENT and callable(getattr(type(module), name, None)):
                delattr(module, name)
            elif before is not value and callable(before):
                vars(module)[name] = before


class BareModel:
    """Holds a block to leaving a model unwrapped: the same tensors, values, modes and gradients.

    Args:
        model: the user's network, unwrapped.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> weight, value = model.weight, model.weight.item()
        >>> with BareModel(model) as bare:
        ...     model.weight = nn.Parameter(torch.zeros(1, 1))
        >>> model.weight is weight, model.weight.item() == value
        (True, True)
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tables = {module: _Tables.of(module) for module in model.modules()}
        self._start = RewindPoint.capture(model)
        self._flags = {name: p.requires_grad for name, p in model.named_parameters()}
        self._gradients = {name: p.grad for name, p in model.named_parameters()}

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._model

    @property
    def start(self) -> RewindPoint:
        """The model's parameters and buffers when this was made."""
        return self._start

    def rewind(self, point: RewindPoint, where: object) -> None:
        """Unwrap the model and give it a rewind point's values, without gradients, to train.

        Args:
            point: parameters and buffers.
            where: for the message.

        Raises:
            RewindFailed: it does not hold them bit for bit afterwards.
        """
        self._unwrap(point)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._flags[name])
            parameter.grad = None
        self._model.train()
        present = _tensors(self._model)
        for name, value in {**point.parameters, **point.buffers}.items():
            if name not in present or not bit_equal(present[name], value):
                raise RewindFailed(f"{where}: {name!r} differs from the rewind point")

    def _unwrap(self, point: RewindPoint) -> None:
        for module, tables in self._tables.items():
            tables.put_back(module)
        own = _tensors(self._model)
        with torch.no_grad():
            for name, value in {**point.parameters, **point.buffers}.items():
                if (own[name].device, own[name].dtype) != (value.device, value.dtype):
                    own[name].data = value.clone()  # a trainer moved or converted the model
                elif not bit_equal(own[name], value):
                    own[name].detach().copy_(value)

    def __enter__(self) -> "BareModel":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._unwrap(self._start)
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._flags[name])
            parameter.grad = self._gradients[name]


def _tensors(model: nn.Module) -> Mapping[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
