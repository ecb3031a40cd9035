"""One copy of the network with one dependency graph, which takes on the shape of any ticket."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch_pruning import ops

from rtl_plugin.integration_api import (
    ChannelPlan,
    IndexMap,
    InvalidArgument,
    InvalidTicket,
    PruningFailed,
    is_plain,
    tensor_places,
)
from rtl_torch_pruning.probes import Probe, whole_kernel_weights

Tensors = Mapping[str, torch.Tensor]
# Widths that the graph itself remembers of concatenations, splits, slices and outputs.
_WIDTH_FIELDS = ("offsets", "concat_sizes", "split_sizes", "start", "end", "shape")
_ABSENT = object()
_HOST_TABLES = ("num_heads", "in_channel_groups", "out_channel_groups", "_scope_initial_channels")


@dataclass(frozen=True)
class Shape:
    """Everything that tells one ticket's small network and its graph from the dense one's.

    Args:
        maps: parameter or buffer name -> which entries of the shared tensor are left.
        attributes: module name -> attribute -> value, where it differs from the dense network's.
        shared_attributes: the same attributes' values in the dense network.
        widths: what the graph's operations remember, in the graph's order.
        mappings: the graph's index mappings, one pair a dependency.
        tables: the host's tables of head and group counts.
    """

    maps: Mapping[str, IndexMap] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shared_attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    widths: tuple[dict[str, Any], ...] = ()
    mappings: tuple[tuple[Any, ...], ...] = ()
    tables: Mapping[str, dict[Any, Any]] = field(default_factory=dict)

    @property
    def plan(self) -> ChannelPlan | None:
        """The channel plan, or None while nothing is cut."""
        if not self.maps:
            return None
        return ChannelPlan(self.maps, self.attributes, (), self.shared_attributes)


class WorkingNetwork:
    """Holds the values of one ticket while the host ranks, and index probes while it cuts.

    What survives in a probe, a tensor that holds its own flat positions, is the map from the small
    network to the shared one, for any layer that the host can cut.

    Args:
        model: the user's network, copied.

    Raises:
        InvalidArgument: the model cannot be copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self.network = _twin(model)
        self._parameters = tensor_places(self.network, "_parameters")
        self._buffers = tensor_places(self.network, "_buffers")
        self._modules: dict[str, nn.Module] = dict(self.network.named_modules())
        self._held: dict[str, torch.Tensor] = {}
        self._shape = Shape()

    def attach(self, host: tp.pruner.BasePruner) -> Shape:
        """Take over a host pruner that was built on the network.

        Args:
            host: just built.

        Returns:
            The dense shape, where every ticket starts.
        """
        self._host = host
        # Not before the trace: a forward may keep what it saw as an attribute.
        self._dense = {name: _plain_attributes(m) for name, m in self._modules.items()}
        nodes = list(host.DG.module2node.values())
        self._operations = [n.module for n in nodes if type(n.module).__module__ == ops.__name__]
        self._dependencies = [dep for node in nodes for dep in node.dependencies]
        by_kernel = whole_kernel_weights(self.network, host.DG.CUSTOMIZED_PRUNERS)
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        self._probes = {
            name: Probe(tuple(tensor.shape), tensor.device, name in by_kernel)
            for name, tensor in tensors.items()
        }
        self._shape = self._read({})
        return self._shape

    def take_on(self, shape: Shape, values: Tensors) -> None:
        """Become the small network of a ticket.

        Args:
            shape: of the ticket.
            values: its parameters and buffers by name, in the small network's shapes.
        """
        for name, module in self._modules.items():
            module.__dict__.update(self._dense[name])
        for name, attributes in shape.attributes.items():
            self._modules[name].__dict__.update(attributes)
        for operation, widths in zip(self._operations, shape.widths, strict=True):
            vars(operation).update(_copied(widths))
        for dependency, mapping in zip(self._dependencies, shape.mappings, strict=True):
            dependency.index_mapping = list(mapping)
        for table, content in shape.tables.items():
            setattr(self._host, table, dict(content))
        self._host.DG._pruning_history = []  # in numbers of networks that come and go
        self._shape = shape
        self._hold(values)

    def set_gradients(self, gradients: Tensors) -> None:
        """Give the network's parameters gradients, for importances that read them.

        Args:
            gradients: parameter name -> gradient.
        """
        for name, gradient in gradients.items():
            for table, local in self._parameters[name]:
                table[local].grad = gradient

    def hold_probes(self) -> None:
        """Put index probes in the place of the values, before the host cuts."""
        vectors: dict[tuple[int, int], torch.Tensor] = {}
        held = {}
        for name, probe in self._probes.items():
            index_map = self._shape.maps.get(name)
            if len(probe.shape) != 1:
                held[name] = probe.positions(index_map)
                continue
            key = (probe.shape[0], id(index_map))
            if key not in vectors:
                vectors[key] = probe.positions(index_map)
            held[name] = vectors[key]
        self._hold(held)

    def cut_shape(self, look_closely: bool) -> Shape:
        """Read off what the host has cut.

        Args:
            look_closely: also check tensors that the host left alone, which somebody may have
                written to.

        Returns:
            The ticket's new shape.

        Raises:
            PruningFailed: the probes were written to, tied parameters were cut differently, or
                modules were replaced.
        """
        maps: dict[str, IndexMap] = {}
        # Norms and biases of one group are cut alike, and small: they share one map.
        vectors: dict[tuple[int, bytes], IndexMap | None] = {}
        for name in self._probes:
            index_map = self._traced(name, vectors, look_closely)
            if index_map is not None:
                maps[name] = index_map
        if dict(self.network.named_modules()) != self._modules:
            raise PruningFailed(
                "a customized pruner replaced modules of the network: change widths in place"
            )
        return self._read(maps)

    def fix(self, fix_attributes: Callable[[nn.Module], Any]) -> None:
        """Let the user set attributes of the cut network.

        Args:
            fix_attributes: the user's function.

        Raises:
            InvalidArgument: it fails, or sets what a ticket cannot hold.
        """
        before = {name: dict(vars(module)) for name, module in self._modules.items()}
        try:
            fix_attributes(self.network)
        except Exception as error:
            raise InvalidArgument(
                f"fix_attributes failed on the cut network ({type(error).__name__}: {error})"
            ) from error
        for name, module in self._modules.items():
            for attribute, value in list(vars(module).items()):
                if before[name].get(attribute, _ABSENT) is value:
                    continue
                if attribute not in self._dense[name] or not is_plain(value):
                    vars(module).pop(attribute)
                    vars(module).update(before[name])
                    raise InvalidArgument(
                        f"fix_attributes set {attribute!r} of {name!r} to {value!r}: it may change "
                        "attributes that the network has, to numbers, strings or tuples of them"
                    )

    def dense_attribute(self, module: str, attribute: str) -> Any:
        """An attribute's value in the dense network."""
        return self._dense[module].get(attribute)

    def _traced(
        self, name: str, vectors: dict[tuple[int, bytes], IndexMap | None], look_closely: bool
    ) -> IndexMap | None:
        tensors = [table[local] for table, local in self._all_places(name)]
        untouched = all(t.data_ptr() == self._held[name].data_ptr() for t in tensors)
        if untouched and not look_closely:
            return self._shape.maps.get(name)
        if any(not torch.equal(tensor, tensors[0]) for tensor in tensors[1:]):
            raise PruningFailed(
                f"{name!r} is tied to another parameter, and the two were cut differently: untie "
                "them, or add their layers to ignored_layers"
            )
        try:
            probe = self._probes[name]
            if len(probe.shape) != 1:
                return probe.read(tensors[0], look_closely)
            key = (probe.shape[0], tensors[0].detach().cpu().numpy().tobytes())
            if key not in vectors:
                vectors[key] = probe.read(tensors[0])
            return vectors[key]
        except InvalidTicket as error:
            raise PruningFailed(
                f"{name!r} does not hold its positions any more ({error}): between the groups of "
                "step(interactive=True) cut with group.prune() only, and write to no weight"
            ) from error

    def _read(self, maps: Mapping[str, IndexMap]) -> Shape:
        attributes, shared = {}, {}
        for name, dense in self._dense.items():
            now = self._modules[name].__dict__
            changed = {k: now[k] for k, v in dense.items() if now[k] is not v and now[k] != v}
            if changed:
                attributes[name] = changed
                shared[name] = {key: dense[key] for key in changed}
        return Shape(
            maps=maps,
            attributes=attributes,
            shared_attributes=shared,
            widths=tuple(_widths(operation) for operation in self._operations),
            mappings=tuple(tuple(dep.index_mapping) for dep in self._dependencies),
            tables={table: dict(getattr(self._host, table)) for table in _HOST_TABLES},
        )

    def _hold(self, values: Tensors) -> None:
        for name, value in values.items():
            for table, local in self._parameters.get(name, ()):
                # The graph knows parameters by identity, so they stay and their data changes.
                table[local].grad = None
                table[local].data = value
            for table, local in self._buffers.get(name, ()):
                table[local] = value
        self._held = dict(values)

    def _all_places(self, name: str) -> Iterator[tuple[dict[str, Any], str]]:
        yield from self._parameters.get(name, ())
        yield from self._buffers.get(name, ())


def _twin(model: nn.Module) -> nn.Module:
    """A copy with parameters of its own over the model's memory, until they are given values."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        # The host finds layers by their gradients and leaves frozen ones out in silence.
        trainable = parameter.is_floating_point()
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=trainable)
    try:
        twin: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise InvalidArgument(
            f"{type(model).__name__} cannot be deep-copied ({type(error).__name__}: {error}): "
            "keep only parameters, buffers and plain values as attributes"
        ) from error
    return twin


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name != "training" and is_plain(value) and not name.startswith("_version")
    }


def _widths(operation: nn.Module) -> dict[str, Any]:
    return _copied({k: v for k, v in vars(operation).items() if k in _WIDTH_FIELDS})


def _copied(widths: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, list) else v for k, v in widths.items()}
