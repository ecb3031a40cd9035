"""The rivals, routings and checks of the serving benchmark are what they say."""

import math

import pytest
import torch
from torch import nn

import rtl_plugin as rtl
from benchmarks import serving_cases, serving_gpu, serving_networks, serving_timing
from benchmarks.serving_networks import MLP, RESNET, routing
from benchmarks.serving_timing import Program, Setting, check, check_apart, far, in_turns
from rtl_plugin.mixture import kernels
from tests.benchmarks_serving.small import stand_in


@pytest.mark.parametrize("batch", [1, 7, 10, 64, 256, 640])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_a_routing_has_its_shares(batch: int, exponent: float) -> None:
    indices = routing(batch, 10, exponent)
    assert torch.equal(indices, routing(batch, 10, exponent))
    counts = indices.bincount(minlength=10).tolist()
    total = math.fsum(1 / k**exponent for k in range(1, 11))
    for k, count in enumerate(counts, 1):
        assert abs(count - batch / k**exponent / total) < 1
    assert sum(counts) == batch


def test_the_samples_of_a_ticket_do_not_stand_together() -> None:
    for exponent in (0.0, 1.0):
        indices = routing(64, 10, exponent)
        assert int((indices.diff() == 0).sum()) < 16
    assert routing(64, 10, 1.0).bincount().tolist() == [22, 11, 7, 6, 4, 4, 3, 3, 2, 2]


@pytest.mark.parametrize("name", [MLP, RESNET])
def test_the_loops_give_every_sample_its_ticket(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    made = serving_cases.served(Setting("case", name, 20, 4))
    indices = made.zipf.where(made.zipf != 1, 0)  # nothing for one ticket,
    indices[indices == 3] = 2
    indices[3] = 3  # and one sample for another
    assert indices.bincount().tolist()[1::2] == [0, 1]
    rows = serving_networks.sort_rows(indices)
    alone = [made.copies[k](made.x[i : i + 1]) for i, k in enumerate(indices.tolist())]
    right = torch.cat(alone)
    with torch.no_grad():
        check("copies", serving_networks.loop_of_copies(made.copies, made.x, rows), right)
        check("expected", made.expected(indices), right)
        if name == MLP:
            for dtype in (torch.float32, torch.bool):
                remasked = serving_networks.RemaskedNetwork(made.model, made.tickets, dtype)
                check("re-masked", remasked.run(made.x, rows), right)
                masks = [b for n, b in remasked._network.named_buffers() if n.endswith("_mask")]
                assert [mask.dtype for mask in masks] == [dtype] * 2


def test_a_copy_has_the_tickets_masks_and_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    made = serving_cases.served(Setting("case", RESNET, 8, 3))
    for ticket, plain in zip(made.tickets.values(), made.copies, strict=True):
        tensors = dict(plain.named_parameters())
        for name, mask in ticket.masks.items():
            assert 0.2 < float(mask.float().mean()) < 0.4
            assert torch.equal(tensors[name] != 0, mask)
        assert set(ticket.state) == {n for n, _ in plain.named_buffers()}
    first, second = (made.tickets[n].state["1.running_mean"] for n in ("t0", "t1"))
    assert not torch.equal(first, second)


def test_a_remasked_network_refuses_state(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    model = serving_networks.build(RESNET)
    tickets = serving_networks.random_tickets(RESNET, model, 2)
    with pytest.raises(rtl.errors.InvalidArgument, match="state of their own"):
        serving_networks.RemaskedNetwork(model, tickets, torch.float32)


def test_building_draws_from_no_generator_of_the_user() -> None:
    before = torch.random.get_rng_state()
    one, two = (serving_networks.build(MLP) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_wrong_program_is_found_before_it_is_timed() -> None:
    setting, right = Setting("case", "net", 2, 1), torch.ones(2, 3)
    wrong = right.clone()
    wrong[1, 2] += 2e-3
    with pytest.raises(AssertionError, match="net, ours: 1 of 2 rows differ"):
        serving_timing.measured(setting, {"ours": Program(lambda: wrong, right)}, 1)
    with pytest.raises(AssertionError, match="shape"):
        check("ours", right[:1], right)
    check("ours", right + 1e-3, right)


def test_tolerances_of_sixteen_bits_are_of_the_largest_output() -> None:
    right = torch.tensor([[1000.0, 0.0]], dtype=torch.bfloat16)
    assert not far(right + torch.tensor([[0.0, 10.0]], dtype=torch.bfloat16), right).any()
    assert far(right + torch.tensor([[0.0, 30.0]], dtype=torch.bfloat16), right).all()
    small = right / 1000
    assert not far(small + torch.tensor([[0.0, 0.01]], dtype=torch.bfloat16), small).any()
    assert far(small / 1000 + 0.01, small / 1000).all()


def test_a_comparison_that_cannot_see_a_wrong_ticket_is_refused() -> None:
    one = torch.arange(6.0).view(3, 2)
    other = one + 1
    check_apart(one, other)
    other[1] = one[1]
    with pytest.raises(AssertionError, match="1 samples come out alike"):
        check_apart(one, other)


def test_programs_run_in_turns_in_changing_order() -> None:
    ran: list[str] = []
    runs = {n: (lambda n=n: ran.append(n) or torch.zeros(1)) for n in "abc"}
    clocks = iter(range(100))

    def clock(run: serving_timing.Run) -> float:
        run()
        return float(next(clocks))

    taken = in_turns(runs, 6, clock)
    rounds = [tuple(ran[i : i + 3]) for i in range(0, 18, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 2
    for name, seconds in taken.items():
        assert [ran[int(s)] for s in seconds] == [name] * 6


def test_minima_are_reported() -> None:
    rows = serving_timing.measured(
        Setting("case", "net", 1, 1), {"ours": Program(lambda: torch.zeros(1))}, 5, fraction=0.5
    )
    assert rows[0]["best"] == min(rows[0]["seconds"])
    assert (len(rows[0]["seconds"]), rows[0]["fraction"]) == (5, 0.5)


def test_what_a_gpu_runs_runs_in_small_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    rows = serving_cases.gpu_mixed(Setting("case", RESNET, 20, 4), 1)
    assert {row["program"] for row in rows} >= {"auto, copies kept", "cached", "loop over copies"}
    assert all(row["best"] > 0 for row in rows)


def test_a_replay_with_another_routing_is_held_to_what_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch)
    made = serving_cases.served(Setting("case", MLP, 20, 4))
    indices, skewed = made.uniform.clone(), made.expected(made.zipf)
    follows = serving_gpu._rerouted(lambda: made.expected(indices), made, indices, skewed)
    assert torch.equal(follows(), made.expected(made.uniform))
    assert torch.equal(indices, made.uniform)
    frozen = made.expected(made.uniform)
    stuck = serving_gpu._rerouted(lambda: frozen, made, indices, skewed)
    with pytest.raises(AssertionError, match="another routing"):
        stuck()


def test_half_the_channels_is_a_quarter_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    rows = serving_cases.compact(Setting("case", RESNET, 4, 2), 1)
    assert all(0.2 < row["fraction"] < 0.55 for row in rows)


@pytest.mark.gpu
def test_the_questions_of_a_gpu_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = kernels.why_not(torch.device("cuda"))
    if reason is not None:
        pytest.skip(reason)
    stand_in(monkeypatch)
    setting = Setting("case", RESNET, 20, 4, "cuda", torch.bfloat16)
    rows = serving_cases.gpu_mixed(setting, 1) + serving_cases.one_ticket(setting, 1)
    rows += serving_cases.compact(setting, 1) + serving_gpu.synchronisations(setting)
    rows += serving_gpu.few_rows(setting, 256, 5, 1) + serving_gpu.in_graphs(setting, 1)
    assert [row["error"] for row in rows if "error" in row] == []
    assert [row["count"] for row in rows if "count" in row] == [0]


def test_networks_are_those_of_the_study() -> None:
    sizes = {
        name: sum(p.numel() for p in serving_networks.NETWORKS[name].build().parameters())
        for name in (MLP, RESNET)
    }
    assert sizes == {MLP: 6_316_042, RESNET: 11_173_962}
    resnet = serving_networks.build(RESNET)
    assert isinstance(resnet.get_submodule("maxpool"), nn.Identity)
