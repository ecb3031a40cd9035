"""The host's dependency graph and cuts, repaired where they fail on a network that is in order."""

import itertools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch_pruning._helpers import _HybridIndex
from torch_pruning.dependency import Group, index_mapping
from torch_pruning.ops import OPTYPE

from rtl_plugin.integration_api import IndexMap, PruningFailed
from rtl_torch_pruning.probes import Probe
from rtl_torch_pruning.working_network import WorkingNetwork

_HUGE = 2**22  # entries: reading and writing a probe of more takes longer than all the rest
_ROOTS = (tp.ops.TORCH_CONV, tp.ops.TORCH_LINEAR, tp.ops.TORCH_LSTM, tp.ops.TORCH_EMBED)


class HostGraph(tp.DependencyGraph):  # type: ignore[misc]
    """Torch-Pruning's graph, which also follows ``torch.chunk`` and channel shuffles.

    The host reads chunk sizes under names that torch no longer uses, takes a chunk's readers in the
    order of its search, and sizes a shuffle's views as if they flattened.
    """

    def _build_dependency(self, module2node: dict[Any, Any]) -> None:
        for node in module2node.values():
            if node.type == OPTYPE.SPLIT:
                _order_chunks(node)
        super()._build_dependency(module2node)
        for node in module2node.values():
            if node.type == OPTYPE.RESHAPE:
                _follow_shuffle(node)
        for node in (n for n in module2node.values() if n.type == OPTYPE.RESHAPE):
            try:
                index_mapping.update_reshape_index_mapping(self, node)
            except ZeroDivisionError:
                # As if channels passed in order; where they do not, comparing outputs shows it.
                node.type = OPTYPE.ELEMENTWISE


class GraphHost:
    """What a working network asks of a host's pruner, without one that ranks.

    Args:
        network: the working network.
        inputs: the example inputs.
        trace: runs the network on them.
    """

    def __init__(
        self, network: nn.Module, inputs: Any, trace: Callable[[nn.Module, Any], Any]
    ) -> None:
        self.num_heads: dict[Any, int] = {}
        self.init_num_heads: dict[Any, int] = {}
        self.in_channel_groups: dict[Any, int] = {}
        self.out_channel_groups: dict[Any, int] = {}
        self._scope_initial_channels: dict[Any, int] = {}
        # Not verbose: it would warn of parameters outside of layers, which the caller names.
        self.DG = HostGraph().build_dependency(network, inputs, forward_fn=trace, verbose=False)

    def named_groups(self) -> dict[str, Group]:
        """Every group with all its channels, by the name of the layer that stands for it."""
        groups = self.DG.get_all_groups(root_module_types=_ROOTS)
        return {self.DG._module2name[group[0].dep.target.module]: group for group in groups}


class _Blank(Probe):
    """A probe of which only what is left is ever written."""

    def positions(self, index_map: IndexMap | None) -> torch.Tensor:
        return torch.zeros((), device=self.device).expand(self.shape)

    def read(self, probe: torch.Tensor, look_closely: bool = True) -> IndexMap | None:
        return None if tuple(probe.shape) == self.shape else super().read(probe, look_closely)


class CutNetwork(WorkingNetwork):
    """A working network that is cut and never ranked, so that huge layers need no whole probe."""

    def blank_huge_weights(self) -> set[nn.Module]:
        """Hold nothing for the weights of huge linear layers, which the caller then cuts.

        Returns:
            The layers.
        """
        found: set[nn.Module] = set()
        for name, layer in self._modules.items():
            weight = f"{name}.weight" if name else "weight"
            alone = len(self._parameters.get(weight, ())) == 1
            if type(layer) is nn.Linear and alone and layer.weight.numel() > _HUGE:
                shape = (layer.out_features, layer.in_features)
                self._probes[weight] = _Blank(shape, layer.weight.device)
                found.add(layer)
        return found


class _Shuffled:
    """Where a channel goes when ``rows`` groups of ``columns`` channels are transposed."""

    def __init__(self, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns

    def __call__(self, numbers: list[_HybridIndex]) -> list[_HybridIndex]:
        rows, columns = self._rows, self._columns
        return [
            _HybridIndex(idx=n.idx % columns * rows + n.idx // columns, root_idx=n.root_idx)
            for n in numbers
        ]


def _follow_shuffle(node: Any) -> None:
    """A view of (batch, columns, rows, ...) back to channels, after a transpose of the two."""
    sizes: Any = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    chain = [node]
    while len(chain[-1].inputs) == 1 and chain[-1].inputs[0].type == OPTYPE.ELEMENTWISE:
        chain.append(chain[-1].inputs[0])
    view = chain[-1].inputs[0] if len(chain[-1].inputs) == 1 else None
    dims = [
        {getattr(n.grad_fn, "_saved_dim0", None), getattr(n.grad_fn, "_saved_dim1", None)}
        for n in chain[1:]
    ]
    if len(sizes) < 4 or {1, 2} not in dims or view is None or view.type != OPTYPE.RESHAPE:
        return
    columns, rows = int(sizes[1]), int(sizes[2])
    node.type = view.type = OPTYPE.ELEMENTWISE
    before = node.inputs[0]
    for dep in before.dependencies:
        if dep.target is node:
            dep.index_mapping[0] = _Shuffled(rows, columns)
    for dep in node.dependencies:
        if dep.target is before:
            dep.index_mapping[0] = _Shuffled(columns, rows)


def _order_chunks(node: Any) -> None:
    """Put a chunk's readers in the order of its parts, and its sizes where the host looks."""
    size = getattr(node.grad_fn, "_saved_split_size", None)
    whole: Any = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    if not isinstance(size, int) or node.grad_fn._saved_dim != 1:
        return
    places = {
        id(reader): [n for made, n in reader.grad_fn.next_functions if made is node.grad_fn]
        for reader in node.outputs
    }
    offsets = [*range(0, int(whole[1]), size), int(whole[1])]
    sizes = [end - start for start, end in itertools.pairwise(offsets)]
    if sorted(place for each in places.values() for place in each) == list(range(len(sizes))):
        node.outputs.sort(key=lambda reader: places[id(reader)])
        node.grad_fn = SimpleNamespace(_saved_split_sizes=sizes, _saved_dim=1)


def is_grouped(layer: object) -> bool:
    """Whether a layer is a convolution in groups, but not one channel a group.

    Args:
        layer: any.

    Example:
        >>> is_grouped(nn.Conv1d(4, 4, 1, groups=2)), is_grouped(nn.Conv1d(4, 4, 1, groups=4))
        (True, False)
    """
    if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups == 1:
        return False
    return not layer.groups == layer.in_channels == layer.out_channels


def cut_blocks(name: str, conv: Any, outputs: Iterable[int], inputs: Iterable[int]) -> None:
    """Cut a grouped convolution in place; every group may lose other channels, but as many.

    The host takes the input channels that the first group keeps for those of all groups.

    Args:
        name: for the message.
        conv: the convolution.
        outputs: output channels to remove.
        inputs: input channels to remove.

    Raises:
        PruningFailed: groups would keep different numbers or nothing, or it is transposed.

    Example:
        >>> conv = nn.Conv1d(4, 4, 1, groups=2)
        >>> cut_blocks("conv", conv, [0, 3], [1, 2])
        >>> conv
        Conv1d(2, 2, kernel_size=(1,), stride=(1,), groups=2)
    """
    if not isinstance(conv, nn.modules.conv._ConvNd) or conv.transposed:
        raise PruningFailed(f"{name!r} is a transposed convolution in groups: leave it whole")
    rows = _kept(name, conv.out_channels, conv.groups, outputs)
    columns = _kept(name, conv.in_channels, conv.groups, inputs)
    per_row = columns.repeat_interleave(rows.shape[1], dim=0).to(conv.weight.device)
    first = torch.arange(conv.groups).unsqueeze(1) * (conv.out_channels // conv.groups)
    kept = (rows + first).flatten().to(conv.weight.device)
    weight = conv.weight.detach()[kept.unsqueeze(1), per_row]
    conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias.detach()[kept], requires_grad=conv.bias.requires_grad)
    conv.out_channels, conv.in_channels = rows.numel(), columns.numel()


def cut_rows_and_columns(
    name: str, linear: Any, outputs: Iterable[int], inputs: Iterable[int]
) -> None:
    """Give a linear layer the positions of what a cut leaves of its weight, and cut its bias.

    Args:
        name: for the message.
        linear: the layer.
        outputs: output channels to remove.
        inputs: input channels to remove.

    Raises:
        PruningFailed: nothing would be left.

    Example:
        >>> linear = nn.Linear(3, 2, bias=False)
        >>> cut_rows_and_columns("fc", linear, [0], [1])
        >>> linear.weight
        Parameter containing:
        tensor([[3., 5.]], dtype=torch.float64, requires_grad=True)
    """
    rows = _kept(name, linear.out_features, 1, outputs)[0]
    columns = _kept(name, linear.in_features, 1, inputs)[0]
    positions = rows.unsqueeze(1) * linear.in_features + columns
    linear.weight = nn.Parameter(positions.double().to(linear.weight.device))
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows.to(linear.bias.device)])
    linear.out_features, linear.in_features = rows.numel(), columns.numel()


def _kept(name: str, width: int, blocks: int, removed: Iterable[int]) -> torch.Tensor:
    """Kept positions within each block: int64 [blocks, kept a block]."""
    keep = torch.ones(width, dtype=torch.bool)
    keep[list(removed)] = False
    counts = keep.reshape(blocks, -1).sum(dim=1)
    if int(counts.min()) != int(counts.max()) or int(counts.min()) == 0:
        raise PruningFailed(
            f"the {blocks} groups of {name!r} would keep {sorted(set(counts.tolist()))} channels: "
            "they must all keep the same number, at least one"
        )
    return keep.reshape(blocks, -1).nonzero()[:, 1].reshape(blocks, -1)
