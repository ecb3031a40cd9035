"""traced_map reads the map off a tensor that held its own positions before it was cut."""

import itertools

import pytest
import torch

from rtl_plugin.errors import InvalidTicket
from rtl_plugin.index_map import IndexMap, traced_map
from tests.channels.test_index_map import ALL, ids


def probe_of(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


@pytest.mark.parametrize("index_map", ALL, ids=ids)
def test_it_inverts_gather(index_map: IndexMap) -> None:
    shape = index_map.shape
    traced = traced_map(index_map.gather(probe_of(shape)), shape)
    if traced is None:
        assert index_map.small_shape == shape
        assert bool(index_map.mask().all())
        return
    assert traced.shape == shape
    assert traced.small_shape == index_map.small_shape
    shared = torch.randn(shape)
    assert torch.equal(traced.gather(shared), index_map.gather(shared))


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 1, 4), (3, 2, 4, 2)])
def test_cuts_by_dimensions_are_found_as_such(shape: tuple[int, ...]) -> None:
    """Also where the other dimensions have one entry, so that strides say little."""
    wide = [torch.arange(size) for size in shape]
    for cut in itertools.product([False, True], repeat=len(shape)):
        kept = [w[1::2] if c and len(w) > 2 else w for w, c in zip(wide, cut, strict=True)]
        probe = probe_of(shape)
        for dim, positions in enumerate(kept):
            probe = probe.index_select(dim, positions)
        traced = traced_map(probe, shape)
        if all(len(k) == len(w) for k, w in zip(kept, wide, strict=True)):
            assert traced is None
            continue
        assert traced is not None
        assert traced.entries is None
        for found, positions, whole in zip(traced.axes, kept, wide, strict=True):
            if len(positions) == len(whole):
                assert found is None
            else:
                assert found is not None
                assert torch.equal(found, positions)


def test_other_cuts_are_found_entry_by_entry() -> None:
    probe = probe_of((4, 3))
    for left in (
        probe.t(),
        probe.flip(0),
        probe[[0, 2, 1, 3]],
        probe.reshape(3, 4),
        probe.reshape(2, 6)[:, 1:4],
        torch.stack([probe[0, :2], probe[1, 1:]]),
        probe.flatten(),
        probe[0, 0],
    ):
        traced = traced_map(left, (4, 3))
        assert traced is not None
        assert traced.entries is not None
        assert torch.equal(traced.entries.double(), left)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, torch.int32])
def test_any_dtype_that_holds_the_positions(dtype: torch.dtype) -> None:
    traced = traced_map(probe_of((4, 3)).to(dtype)[1:], (4, 3))
    assert traced is not None
    assert traced.axes[0] is not None
    assert traced.axes[0].tolist() == [1, 2, 3]


def test_nothing_was_cut() -> None:
    for shape in [(), (1,), (5,), (4, 3), (1, 1), (3, 1, 4), (0, 3)]:
        assert traced_map(probe_of(shape), shape) is None


def test_positions_of_a_parameter_with_a_graph() -> None:
    traced = traced_map(torch.nn.Parameter(probe_of((4,)))[2:] * 1, (4,))
    assert traced is not None
    assert traced.axes[0] is not None
    assert traced.axes[0].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (torch.tensor([0.0, 0.0]), "names an entry twice"),
        (torch.tensor([[0.0, 1.0], [1.0, 2.0]]), "names an entry twice"),
        (torch.tensor([3.0, 12.0]), r"must lie in 0\.\.11"),
        (torch.tensor([-1.0, 3.0]), r"must lie in 0\.\.11"),
        (torch.tensor([float("nan"), 1.0]), "not positions"),
        (torch.tensor([float("inf"), 1.0]), "not positions|must lie in"),
        (torch.tensor([0.5, 1.7]), "not positions"),
        (torch.zeros(4, 3), "names an entry twice"),
        (torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), "not positions"),
        (torch.zeros(0, 3), r"nothing is left of a tensor of shape \(4, 3\)"),
        (torch.arange(2000.0, 2012.0).half().reshape(4, 3), "twice|must lie in"),
    ],
)
def test_what_is_no_probe(probe: torch.Tensor, message: str) -> None:
    with pytest.raises(InvalidTicket, match=message):
        traced_map(probe, (4, 3))
