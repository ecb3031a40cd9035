"""Sizes are exact, and a gain in speed is only claimed where the timings carry it."""

import json

import pytest
import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_torch_pruning import LatencyComparison, compare_latency, measure_networks

X = torch.zeros(4, 1, 8, 8)


class FakeClock:
    """Stands still, except while a network made by :meth:`network` runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def network(self, *seconds: float, log: list[str] | None = None) -> nn.Module:
        return Timed(self, seconds, log)


class Timed(nn.Module):
    """Takes the given seconds, one run after the other and again from the first."""

    def __init__(self, clock: FakeClock, seconds: tuple[float, ...], log: list[str] | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(seconds)))
        self.clock, self.seconds, self.runs, self.log = clock, seconds, 0, log

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The first three runs warm up, so that the timed ones begin with the first entry.
        self.clock.now += self.seconds[(self.runs - 3) % len(self.seconds)]
        self.runs += 1
        if self.log is not None:
            self.log.append(f"{len(self.seconds)}")
        return x


def conv_net(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.Flatten(),
        nn.Linear(36 * width, 2),
    )


def test_a_network_that_is_only_slightly_faster_is_within_noise() -> None:
    clock = FakeClock()
    # Every other round goes backwards, so the first run takes 1.00 always and the second 1.04.
    dense = clock.network(1.00, 1.04, 1.04, 1.00)
    small = {
        "even": clock.network(1.0),
        "slightly": clock.network(0.93),
        "half": clock.network(0.5),
    }
    report = measure_networks(dense, small, X, rounds=6, clock=clock)
    rows = {row.name: row.within_noise for row in report.rows}
    assert rows == {"dense": False, "even": True, "slightly": True, "half": False}
    assert report["half"].latency_ratio == pytest.approx(0.5, rel=0.05)
    shown = str(report)
    assert "warning: 'even' is not clearly faster" in shown
    assert "warning: 'slightly'" in shown
    assert "'half'" not in shown
    assert "warning: 'dense'" not in shown


@pytest.mark.parametrize(
    ("ratio", "control", "within"),
    [(0.90, 1.0, False), (0.90, 1.04, False), (0.90, 0.96, False), (0.90, 1.06, True),
     (0.90, 0.94, True), (1.00, 1.0, True), (1.20, 1.0, True), (0.999, 1.0, False)],
)  # fmt: skip
def test_the_rule_without_spread(ratio: float, control: float, within: bool) -> None:
    runs = LatencyComparison([1.0] * 9, [control] * 9, {"a": [ratio] * 9})
    assert runs.within_noise("a") is within
    assert runs.noise("a") == pytest.approx(abs(control - 1))


def test_spread_of_the_timings_counts_as_noise() -> None:
    steady = LatencyComparison([1.0] * 20, [1.0] * 20, {"a": [0.8] * 20})
    wild = LatencyComparison([1.0] * 20, [1.0] * 20, {"a": [0.4, 1.2] * 10})
    assert steady.ratio("a") == wild.ratio("a") == pytest.approx(0.8)
    assert not steady.within_noise("a")
    assert wild.within_noise("a")
    assert wild.noise("a") == wild.noise("a")  # the bootstrap has its own seed


def test_spread_that_all_networks_share_does_not() -> None:
    """A machine that slows down for whole rounds slows all networks alike."""
    slow = [1.0, 3.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    runs = LatencyComparison(slow, slow, {"a": [0.8 * s for s in slow]})
    assert runs.noise("a") == pytest.approx(0.0, abs=1e-9)
    assert not runs.within_noise("a")


def test_rounds_are_interleaved_and_turn_around() -> None:
    clock, log = FakeClock(), []
    dense = clock.network(1.0, log=log)
    small = clock.network(1.0, 1.0, log=log)  # named by the number of its entries
    runs = compare_latency(dense, {"a": small}, X, rounds=5, clock=clock)
    assert log[:6] == ["1"] * 3 + ["2"] * 3
    assert "".join(log[6:]) == "112" + "211" + "112" + "211" + "112"
    assert len(runs.dense) == len(runs.control) == len(runs.small["a"]) == 5


def test_parameters_macs_and_bytes_are_exact() -> None:
    report = measure_networks(conv_net(8), {"a": conv_net(2)}, X, rounds=5, asked=0.75)
    row = report["a"]
    assert row.parameters == 2 * 9 + 2 * 2 + 2 * 36 * 2 + 2
    assert row.bytes == 4 * (row.parameters + 2 * 2) + 8  # two statistics and a counter
    # Multiply-accumulates of one sample: convolution, batch norm, linear (whose bias the host
    # counts once a batch).
    assert row.macs == round(36 * 2 * 9 + 2 * 36 * 2 + 72 * 2 + 2 / 4)
    assert (row.asked, report["dense"].asked) == (0.75, 0.0)
    assert report["dense"].latency_ratio == 1


def test_inputs_as_tensor_tuple_and_mapping() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            return self.linear(x + shift)

    x, networks = torch.zeros(5, 3), {"a": Two()}
    by_tuple = measure_networks(Two(), networks, (x, x), rounds=5)
    by_list = measure_networks(Two(), networks, [x, x], rounds=5)
    by_name = measure_networks(Two(), networks, {"shift": x, "x": x}, rounds=5)
    assert by_tuple["a"].macs == by_list["a"].macs == by_name["a"].macs == 6


def test_a_layer_that_the_host_cannot_count_leaves_macs_open() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(input=x)

    report = measure_networks(ByKeyword(), {"a": ByKeyword()}, torch.zeros(1, 3), rounds=5)
    assert report["a"].macs is None
    assert "not counted" in str(report)


def test_measuring_leaves_networks_threads_and_randomness_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dense, small = conv_net(4).train(), conv_net(2).eval()
    dense[0].eval()
    dense.append(nn.Dropout())
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    measure_networks(dense, {"a": small}, {"input": X}, rounds=5, threads=2)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert [m.training for m in dense] == [False, True, True, True, True]
    assert not small.training
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert not any(module._forward_hooks for module in dense.modules())
    assert capsys.readouterr().out == ""


def test_the_report_is_plain_data_and_one_table() -> None:
    clock = FakeClock()
    networks = {"street": clock.network(1.0), "indoor": clock.network(0.25)}
    report = measure_networks(
        clock.network(0.5), networks, X, asked={"indoor": 0.5}, rounds=5, threads=1, clock=clock
    )
    data = json.loads(json.dumps(report.to_json()))
    assert set(data) == {"device", "versions", "rounds", "rows"}
    assert data["device"].endswith("CPU, 1 thread")
    assert {"torch", "torch_pruning"} <= set(data["versions"])
    assert [row["name"] for row in data["rows"]] == ["dense", "street", "indoor"]
    assert data["rows"][1] == {
        "name": "street", "asked": None, "parameters": 1, "macs": 0, "bytes": 4,
        "latency_ms": 1000.0, "latency_ratio": 2.0, "within_noise": True, "noise": 0.0,
    }  # fmt: skip
    lines = str(report).splitlines()
    columns = ["network", "channels asked", "parameters", "MACs", "bytes", "latency ms", "of dense"]
    assert lines[0].split("  ")[0] == "network"
    assert all(column in lines[0] for column in columns)
    assert lines[4].split() == ["indoor", "50.0%", "removed", "1", "0", "4", "250.000", "0.500"]
    with pytest.raises(InvalidArgument, match=r"no network 'roof' .* dense, street, indoor"):
        report["roof"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": {}}, "at least one name"),
        ({"networks": [nn.Linear(1, 1)]}, "networks must map .* got list"),
        ({"networks": {"dense": conv_net(2)}}, "none of them named 'dense'"),
        ({"rounds": 4}, "rounds must be a whole number of at least 5, got 4"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"networks": {"a": conv_net(2).to("meta")}}, "meta device"),
        ({"networks": {"a": nn.Linear(3, 3)}}, "'a' does not accept example_inputs"),
        ({"example_inputs": None}, "must hold a tensor"),
        ({"asked": {"b": 0.5}}, "asked names 'b', which is not in networks: a"),
        ({"asked": 1.0}, r"asked must be the fraction .* in \[0, 1\), got 1.0"),
        ({"asked": True}, "got True for 'a'"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {"networks": {"a": conv_net(2)}, "example_inputs": X, **change}
    with pytest.raises(InvalidArgument, match=message):
        measure_networks(conv_net(4), **arguments)


@pytest.mark.gpu
def test_networks_on_different_devices_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'a' on cuda"):
        compare_latency(conv_net(4), {"a": conv_net(2).cuda()}, X)
