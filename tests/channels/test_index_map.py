"""Index maps against plain indexing: what is gathered, what is written, what is refused."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidTicket
from rtl_plugin.index_map import IndexMap

SHAPES = [(), (5,), (4, 3), (3, 1, 4), (3, 2, 4, 2)]


def some(size: int, generator: torch.Generator) -> torch.Tensor:
    count = int(torch.randint(1, size + 1, (), generator=generator))
    return torch.randperm(size, generator=generator)[:count].sort().values


def random_maps(shape: tuple[int, ...], seed: int = 0) -> list[IndexMap]:
    """One map for every set of dimensions that may be cut, and some by single entries."""
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for cut in itertools.product([False, True], repeat=len(shape)):
        axes = [some(n, generator) if c else None for n, c in zip(shape, cut, strict=True)]
        maps.append(IndexMap(shape, tuple(axes)))
    numel = torch.Size(shape).numel()
    for small in {(), (1,), (min(numel, 6),), (min(numel, 6) // 2 or 1, 2 if numel > 5 else 1)}:
        count = torch.Size(small).numel()
        entries = torch.randperm(numel, generator=generator)[:count].reshape(small)
        maps.append(IndexMap(shape, entries=entries))
    return maps


ALL = [index_map for shape in SHAPES for seed in (0, 1) for index_map in random_maps(shape, seed)]


def ids(index_map: IndexMap) -> str:
    cut = "".join("-" if kept is None else str(kept.numel()) for kept in index_map.axes)
    return f"{index_map.shape}{cut}{'' if index_map.entries is None else 'entries'}"


@pytest.fixture(params=ALL, ids=ids)
def index_map(request: pytest.FixtureRequest) -> IndexMap:
    return request.param


def plain(index_map: IndexMap, shared: torch.Tensor) -> torch.Tensor:
    """What is kept, by numpy's indexing."""
    array = shared.detach().contiguous().numpy()
    if index_map.entries is not None:
        return torch.as_tensor(array.reshape(-1).take(index_map.entries.numpy()))
    for dim, kept in enumerate(index_map.axes):
        if kept is not None:
            array = array.take(kept.numpy(), axis=dim)
    return torch.from_numpy(array.copy()).reshape(index_map.small_shape)


def layouts(shape: tuple[int, ...]) -> list[torch.Tensor]:
    """The same values, contiguous and not."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = [values]
    if len(shape) > 1:
        turned = torch.empty(shape[::-1], dtype=torch.float64).permute(*range(len(shape))[::-1])
        found.append(turned.copy_(values))
    if shape:
        spaced = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=torch.float64)[..., ::2]
        found.append(spaced.copy_(values))
    if len(shape) == 4:
        found.append(values.contiguous(memory_format=torch.channels_last))
    return found


def test_gather_is_plain_indexing_and_a_copy(index_map: IndexMap) -> None:
    for shared in layouts(index_map.shape):
        before = shared.clone()
        small = index_map.gather(shared)
        assert torch.equal(small, plain(index_map, shared))
        assert tuple(small.shape) == index_map.small_shape
        small.add_(1)
        assert torch.equal(shared, before), "the small tensor shares memory with the shared one"


def test_gradients_land_on_exactly_the_kept_entries(index_map: IndexMap) -> None:
    for shared in layouts(index_map.shape):
        leaf = shared.detach().requires_grad_()
        small = index_map.gather(leaf)
        upstream = torch.arange(1.0, small.numel() + 1, dtype=torch.float64).reshape(small.shape)
        small.backward(upstream)
        assert leaf.grad is not None
        assert torch.equal(leaf.grad != 0, index_map.mask())
        assert torch.equal(plain(index_map, leaf.grad), upstream)


def test_scatter_writes_the_kept_entries_and_leaves_the_rest(index_map: IndexMap) -> None:
    for shared in layouts(index_map.shape):
        before, places = shared.clone(), (shared.data_ptr(), shared.stride())
        small = torch.randn(index_map.small_shape, dtype=torch.float64)
        index_map.scatter(small, shared)
        assert torch.equal(plain(index_map, shared), small)
        outside = ~index_map.mask()
        assert torch.equal(shared[outside], before[outside])
        assert (shared.data_ptr(), shared.stride()) == places
        index_map.scatter(plain(index_map, before), shared)
        assert torch.equal(shared, before)


def test_scatter_reaches_no_neighbouring_memory() -> None:
    storage = torch.zeros(4, 6)
    index_map = IndexMap((4, 3), entries=torch.tensor([[0, 11], [4, 8]]))
    index_map.scatter(torch.ones(2, 2), storage[:, ::2])
    assert not storage[:, 1::2].any()
    assert storage[:, ::2].flatten().nonzero().flatten().tolist() == [0, 4, 8, 11]


def test_scatter_into_a_leaf_and_from_a_graph_is_outside_autograd() -> None:
    leaf = torch.zeros(3, 2, requires_grad=True)
    small = (torch.ones(2, 2, requires_grad=True) * 2).reshape(2, 2)
    for index_map in (
        IndexMap((3, 2), (torch.tensor([0, 2]), None)),
        IndexMap((3, 2), entries=torch.tensor([[0, 1], [4, 5]])),
    ):
        index_map.scatter(small, leaf)
        assert leaf.is_leaf
        assert leaf.detach()[:, 0].tolist() == [2, 0, 2]


def test_the_mask_is_true_where_something_is_kept(index_map: IndexMap) -> None:
    numel = torch.Size(index_map.shape).numel()
    kept = set(plain(index_map, torch.arange(numel).reshape(index_map.shape)).flatten().tolist())
    mask = index_map.mask()
    assert mask.dtype == torch.bool
    assert tuple(mask.shape) == index_map.shape
    assert set(mask.flatten().nonzero().flatten().tolist()) == kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_any_dtype(dtype: torch.dtype) -> None:
    for index_map in random_maps((4, 3)):
        shared = (torch.arange(12).reshape(4, 3) % 2).to(dtype)
        small = index_map.gather(shared)
        assert small.dtype == dtype
        into = torch.zeros(4, 3, dtype=dtype)
        index_map.scatter(small, into)
        assert torch.equal(into, shared * index_map.mask())


def test_copies_and_moves_keep_the_map(index_map: IndexMap) -> None:
    shared = layouts(index_map.shape)[0]
    for other in (
        index_map.to("cpu"),
        copy.copy(index_map),
        copy.deepcopy(index_map),
        pickle.loads(pickle.dumps(index_map)),
    ):
        assert other.shape == index_map.shape
        assert torch.equal(other.gather(shared), index_map.gather(shared))


A = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": (A,)}, r"shape \(4, 3\) needs 2 lists of positions, got 1"),
        ({"axes": ()}, "needs 2 lists of positions, got 0"),
        ({"axes": (A, None), "entries": A}, "by dimension or by entry, not both"),
        ({"axes": (A.int(), None)}, "must be an int64 tensor, got torch.int32"),
        ({"axes": (A.double(), None)}, "must be an int64 tensor, got torch.float64"),
        ({"axes": (A > 0, None)}, "must be an int64 tensor, got torch.bool"),
        ({"axes": ([0, 2], None)}, "must be an int64 tensor, got list"),
        ({"axes": (None, 1)}, "must be an int64 tensor, got int"),
        ({"axes": (A[:0], None)}, "keeps nothing of a dimension of size 4"),
        ({"axes": (A + 2, None)}, r"positions must lie in 0\.\.3"),
        ({"axes": (None, A - 1)}, r"positions must lie in 0\.\.2"),
        ({"axes": (A.flip(0), None)}, "must be one ascending list"),
        ({"axes": (A * 0, None)}, "must be one ascending list"),
        ({"axes": (A.reshape(2, 1), None)}, "must be one ascending list"),
        ({"axes": (A[0], None)}, "must be one ascending list"),
        ({"entries": A.int()}, "must be an int64 tensor, got torch.int32"),
        ({"entries": A[:0]}, "keeps nothing of an entry"),
        ({"entries": A + 10}, r"positions must lie in 0\.\.11"),
        ({"entries": A - 1}, r"positions must lie in 0\.\.11"),
        ({"entries": A * 0}, "names an entry twice"),
        ({"entries": torch.tensor([[1, 2], [3, 1]])}, "names an entry twice"),
    ],
)
def test_malformed_maps(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTicket, match=message):
        IndexMap((4, 3), **arguments)
