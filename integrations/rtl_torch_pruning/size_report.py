"""What small networks save: channels asked for, parameters, MACs, bytes and measured latency."""

import contextlib
import io
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
import torch_pruning as tp
from tabulate import tabulate
from torch import nn

from rtl_plugin.integration_api import InvalidArgument, device_of, tensors_in, to_device
from rtl_torch_pruning.latency import LatencyComparison, compare_latency

# What Torch-Pruning's counter raises on layers that are called in a way it does not expect.
_COUNTER_ERRORS = (
    AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class NetworkSize:
    """One network's size and speed.

    Args:
        name: ``"dense"``, or the small network's.
        asked: fraction of channels that was to be removed, None where nobody said.
        parameters: number of parameters.
        macs: multiply-accumulates a sample, by Torch-Pruning's counter; None where that fails.
        bytes: of parameters and buffers.
        latency_ms: median milliseconds of a call with the example inputs.
        latency_ratio: ``latency_ms`` over the dense network's.
        within_noise: the network is not clearly faster than the dense one; see
            :meth:`LatencyComparison.within_noise`. False for the dense network.
        noise: of the ratio, see :meth:`LatencyComparison.noise`; for the dense network how far it
            differs from itself.

    Example:
        >>> NetworkSize("a", 0.5, 1200, 30000, 4800, 1.5, 0.5, False, 0.01).latency_ratio
        0.5
    """

    name: str
    asked: float | None
    parameters: int
    macs: int | None
    bytes: int
    latency_ms: float
    latency_ratio: float
    within_noise: bool
    noise: float


@dataclass(frozen=True)
class SizeReport:
    """Sizes and speeds of a dense network and small ones; prints as a table.

    Args:
        rows: the dense network's, then one a small network.
        device: what ran them, in words.
        rounds: number of timings behind every median.
        versions: of torch, torch-pruning and Python.

    Example:
        >>> dense = NetworkSize("dense", 0.0, 4000, 60000, 16000, 3.0, 1.0, False, 0.01)
        >>> small = NetworkSize("a", 0.5, 1200, 30000, 4800, 2.97, 0.99, True, 0.01)
        >>> print(SizeReport((dense, small), "x86_64 CPU, 1 thread", 30, {}))
        network    channels asked    parameters    MACs    bytes    latency ms    of dense
        ---------  ----------------  ------------  ------  -------  ------------  ----------
        dense      0.0% removed             4,000  60,000   16,000         3.000       1.000
        a          50.0% removed            1,200  30,000    4,800         2.970       0.990
        latency: median of 30 interleaved runs on x86_64 CPU, 1 thread
        warning: 'a' is not clearly faster than the dense network: its latency is 0.990 of it,
        and a gain counts from twice the noise on, 2 x 0.010
    """

    rows: tuple[NetworkSize, ...]
    device: str
    rounds: int
    versions: Mapping[str, str]

    def __getitem__(self, name: str) -> NetworkSize:
        for row in self.rows:
            if row.name == name:
                return row
        known = ", ".join(row.name for row in self.rows)
        raise InvalidArgument(f"there is no network {name!r} in this report: it has {known}")

    def __str__(self) -> str:
        headers = "network", "channels asked", "parameters", "MACs", "bytes", "latency ms"
        cells = [
            [
                row.name,
                "" if row.asked is None else f"{row.asked:.1%} removed",
                f"{row.parameters:,}",
                "not counted" if row.macs is None else f"{row.macs:,}",
                f"{row.bytes:,}",
                f"{row.latency_ms:.3f}",
                f"{row.latency_ratio:.3f}",
            ]
            for row in self.rows
        ]
        align = ["left", "left", *["right"] * 5]
        table = tabulate(
            cells, headers=[*headers, "of dense"], colalign=align, disable_numparse=True
        )
        lines = [table, f"latency: median of {self.rounds} interleaved runs on {self.device}"]
        return "\n".join([*lines, *map(_warning, filter(_warned, self.rows))])

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able data.

        Returns:
            ``device``, ``versions``, ``rounds`` and ``rows``.
        """
        rows = [asdict(row) for row in self.rows]
        fields = {"device": self.device, "versions": dict(self.versions), "rounds": self.rounds}
        return {**fields, "rows": rows}


def measure_networks(
    dense: nn.Module,
    networks: Mapping[str, nn.Module],
    example_inputs: Any,
    *,
    asked: float | Mapping[str, float] | None = None,
    rounds: int = 30,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> SizeReport:
    """Size and measured speed of small networks beside the dense one.

    Fewer channels are not always faster: narrow layers may run no quicker than wide ones. So a
    network whose gain lies within the noise of this measurement is named, by the rule of
    :meth:`LatencyComparison.within_noise`: a gain ``1 - ratio`` counts only above twice the
    largest of how far the dense network differs from itself and the relative half-widths of the
    95 % bootstrap intervals.

    Args:
        dense: the network that was cut; its mode, weights and hooks are left as they are.
        networks: name -> small network, on the same device.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        asked: fraction of channels that was to be removed, of all networks or by name.
        rounds: timings of every network, at least 5.
        threads: torch's number of CPU threads while measuring; None leaves it.
        clock: seconds, for tests.

    Returns:
        One row a network, the dense one first.

    Raises:
        InvalidArgument: no networks, too few rounds, no tensor in the inputs, networks on several
            devices, one that does not accept the inputs, or ``asked`` out of range or for a
            network that is not there.

    Example:
        >>> dense, small = nn.Linear(512, 512), nn.Linear(512, 8)
        >>> report = measure_networks(dense, {"a": small}, torch.zeros(64, 512), rounds=5)
        >>> report["dense"].parameters, report["a"].parameters, report["a"].bytes
        (262656, 4104, 16416)
    """
    wanted = _asked(asked, networks)
    runs = compare_latency(
        dense, networks, example_inputs, rounds=rounds, threads=threads, clock=clock
    )
    inputs = to_device(example_inputs, device_of(dense))
    rows = [_row("dense", dense, inputs, 0.0, runs)]
    rows += [_row(name, net, inputs, wanted.get(name), runs) for name, net in networks.items()]
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_pruning": version("torch-pruning"),
    }
    return SizeReport(tuple(rows), _device_words(device_of(dense), threads), rounds, versions)


def _asked(
    asked: float | Mapping[str, float] | None, networks: Mapping[str, nn.Module]
) -> Mapping[str, float]:
    if asked is None or not isinstance(networks, Mapping):
        return {}
    wanted = asked if isinstance(asked, Mapping) else dict.fromkeys(networks, asked)
    for name, ratio in wanted.items():
        if name not in networks:
            raise InvalidArgument(
                f"asked names {name!r}, which is not in networks: {', '.join(networks)}"
            )
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
            raise InvalidArgument(
                f"asked must be the fraction of channels to remove, in [0, 1), got {ratio!r} for "
                f"{name!r}"
            )
    return wanted


def _row(
    name: str, network: nn.Module, inputs: Any, asked: float | None, runs: LatencyComparison
) -> NetworkSize:
    is_dense = name == "dense"
    seconds = torch.tensor(runs.dense if is_dense else runs.small[name], dtype=torch.float64)
    return NetworkSize(
        name=name,
        asked=asked,
        parameters=sum(p.numel() for p in network.parameters()),
        macs=_macs(network, inputs),
        bytes=sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())),
        latency_ms=1000 * float(seconds.quantile(0.5)),
        latency_ratio=1.0 if is_dense else runs.ratio(name),
        within_noise=not is_dense and runs.within_noise(name),
        noise=abs(runs.control_ratio - 1) if is_dense else runs.noise(name),
    )


def _macs(network: nn.Module, inputs: Any) -> int | None:
    """By the host's counter, which works on a copy of its own."""
    by_keyword = isinstance(inputs, Mapping)
    given = dict(inputs) if by_keyword else inputs
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints warnings
            total = float(tp.utils.count_ops_and_params(network, given)[0])
    except _COUNTER_ERRORS:
        return None
    # Of keyword arguments it cannot tell the number of samples.
    return round(total / len(next(tensors_in(inputs))) if by_keyword else total)


def _device_words(device: torch.device, threads: int | None) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads() if threads is None else threads
    return f"{platform.machine()} {device.type.upper()}, {count} thread{'s' * (count > 1)}"


def _warned(row: NetworkSize) -> bool:
    return row.within_noise


def _warning(row: NetworkSize) -> str:
    return (
        f"warning: {row.name!r} is not clearly faster than the dense network: its latency is "
        f"{row.latency_ratio:.3f} of it, and a gain counts from twice the noise on, "
        f"2 x {row.noise:.3f}"
    )
