"""Whether small networks are faster than the dense one, or only seem so."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rtl_plugin.integration_api import (
    InvalidArgument,
    derived_seed,
    device_of,
    forked,
    tensors_in,
    to_device,
    whole_number,
)
from rtl_torch_pruning.example_run import call_network

LEAST_ROUNDS = 5
_WARM_UP = 3
_RESAMPLES = 1000


@dataclass(frozen=True)
class LatencyComparison:
    """Seconds of interleaved runs: the dense network twice in every round, each small one once.

    Args:
        dense: seconds, one a round.
        control: of the dense network's second run, one a round.
        small: network name -> seconds, one a round.

    Example:
        >>> runs = LatencyComparison([4.0] * 5, [4.0] * 5, {"a": [3.0] * 5, "b": [4.0] * 5})
        >>> runs.ratio("a"), runs.noise("a"), runs.within_noise("a"), runs.within_noise("b")
        (0.75, 0.0, False, True)
    """

    dense: Sequence[float]
    control: Sequence[float]
    small: Mapping[str, Sequence[float]]

    def ratio(self, name: str) -> float:
        """Median of a small network's seconds over the median of the dense one's.

        Args:
            name: of the small network.
        """
        return _median(self.small[name]) / _median(self.dense)

    @property
    def control_ratio(self) -> float:
        """The same ratio for the dense network's second runs; 1 on a machine without noise."""
        return _median(self.control) / _median(self.dense)

    def noise(self, name: str) -> float:
        """How far a ratio can be from the truth, by what was seen.

        The largest of three: ``|control ratio - 1|``, and for the small network and for the
        control half the width of the 95 % interval of its ratio, divided by the ratio. The
        interval is between the quantiles .025 and .975 of 1,000 bootstrap samples: rounds drawn
        with replacement, the same rounds for both networks, always by the same seed.

        Args:
            name: of the small network.

        Returns:
            A fraction of the dense network's latency.
        """
        spreads = (_half_width(runs, self.dense) for runs in (self.small[name], self.control))
        return max(abs(self.control_ratio - 1), *spreads)

    def within_noise(self, name: str) -> bool:
        """Whether a small network is not clearly faster: its gain is below twice the noise.

        Args:
            name: of the small network.

        Returns:
            ``1 - ratio <= 2 * noise``; so True for every network that is not faster.
        """
        return 1 - self.ratio(name) <= 2 * self.noise(name)


def compare_latency(
    dense: nn.Module,
    networks: Mapping[str, nn.Module],
    example_inputs: Any,
    *,
    rounds: int = 30,
    threads: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyComparison:
    """Time networks against a dense one, in eval mode and without gradients.

    After three runs of each to warm up, a round runs the dense network, the dense network again,
    and each small one; every other round goes backwards. On a CUDA device every run is waited for
    (that path was not measured on a GPU).

    Args:
        dense: what the others are compared to.
        networks: name -> network, on the same device.
        example_inputs: a tensor, a tuple or list of arguments, or a mapping of keyword arguments.
        rounds: at least 5.
        threads: torch's number of CPU threads while measuring; None leaves it.
        clock: seconds, for tests.

    Returns:
        The seconds of every run.

    Raises:
        InvalidArgument: no networks, too few rounds, no tensor in the inputs, networks on several
            devices, or one that does not accept the inputs.

    Example:
        >>> runs = compare_latency(nn.Linear(9, 9), {"a": nn.Linear(9, 1)}, torch.zeros(1, 9))
        >>> len(runs.dense), len(runs.small["a"])
        (30, 30)
    """
    device = _checked_device(dense, networks, example_inputs, rounds, threads)
    inputs = to_device(example_inputs, device)
    seconds: list[list[float]] = [[] for _ in range(len(networks) + 2)]
    runs = list(zip((dense, dense, *networks.values()), seconds, strict=True))
    with (
        _eval_mode([dense, *networks.values()]),
        _threads(threads),
        torch.no_grad(),
        forked(derived_seed("latency")),
    ):
        _warm_up({"dense": dense, **networks}, inputs)
        for number in range(rounds):
            for network, noted in runs if number % 2 == 0 else reversed(runs):
                _wait(device)
                began = clock()
                call_network(network, inputs)
                _wait(device)
                noted.append(clock() - began)
    return LatencyComparison(seconds[0], seconds[1], dict(zip(networks, seconds[2:], strict=True)))


def _checked_device(
    dense: nn.Module,
    networks: Mapping[str, nn.Module],
    inputs: Any,
    rounds: int,
    threads: int | None,
) -> torch.device:
    whole_number("rounds", rounds, LEAST_ROUNDS)
    if threads is not None:
        whole_number("threads", threads, 1)
    if not isinstance(networks, Mapping) or not networks or "dense" in networks:
        came = list(networks) if isinstance(networks, Mapping) else type(networks).__name__
        raise InvalidArgument(
            "networks must map at least one name to a network, none of them named 'dense', got "
            f"{came}: pass {{name: pruner.compact(name) for name in groups}}"
        )
    if next(tensors_in(inputs), None) is None:
        raise InvalidArgument(
            f"example_inputs must hold a tensor that the networks accept, got {inputs!r}"
        )
    device = device_of(dense)
    for name, network in networks.items():
        if device_of(network) != device:
            raise InvalidArgument(
                f"the dense network is on {device} and {name!r} on {device_of(network)}: times "
                "are compared on one device, move them with network.to(device)"
            )
    return device


def _warm_up(networks: Mapping[str, nn.Module], inputs: Any) -> None:
    for name, network in networks.items():
        try:
            for _ in range(_WARM_UP):
                call_network(network, inputs)
        except Exception as error:
            raise InvalidArgument(
                f"the network {name!r} does not accept example_inputs ({type(error).__name__}: "
                f"{error}): pass a batch as its forward takes it, a tuple of arguments, or a dict "
                "of keyword arguments"
            ) from error


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _eval_mode(networks: Sequence[nn.Module]) -> Iterator[None]:
    flags = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if count is None else count)
        yield
    finally:
        torch.set_num_threads(before)


def _median(seconds: Sequence[float]) -> float:
    return float(torch.tensor(seconds, dtype=torch.float64).quantile(0.5))


def _half_width(small: Sequence[float], dense: Sequence[float]) -> float:
    """Of the interval of a ratio of medians, relative to the ratio."""
    times = torch.tensor([list(small), list(dense)], dtype=torch.float64)
    generator = torch.Generator().manual_seed(derived_seed("bootstrap"))
    drawn = torch.randint(times.shape[1], (_RESAMPLES, times.shape[1]), generator=generator)
    medians = times[:, drawn].quantile(0.5, dim=2)
    ratios = medians[0] / medians[1]
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float((high - low) / 2 / (_median(small) / _median(dense)))
