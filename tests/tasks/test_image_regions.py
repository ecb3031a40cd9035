"""Regions of a photograph as groups: every pixel once, the network, the metric."""

import math
import sys

import pytest
import torch
from torch import nn

from rtl_plugin import GeometricSchedule, discover
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument, MissingExtra
from rtl_plugin.prunable import select_prunable
from rtl_plugin.tasks.image_regions import (
    PHOTOS,
    PRUNABLE,
    coordinate_network,
    find_regions,
    fourier_features,
    image_regions,
    load_photo,
    mean_squared_error,
    psnr,
)

SIZES = {
    "astronaut": (512, 512, 7),
    "chelsea": (300, 451, 4),
    "coffee": (400, 600, 9),
    "rocket": (427, 640, 3),
}


@pytest.fixture(scope="module")
def chelsea() -> DataGroups:
    return image_regions("chelsea", stride=6, batch_size=100)


@pytest.mark.parametrize("photo", PHOTOS)
def test_photographs_and_their_regions(photo: str) -> None:
    image = load_photo(photo)
    height, width, count = SIZES[photo]
    assert image.shape == (height, width, 3)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < 0.05 < 0.9 < image.max() <= 1
    assert not torch.equal(image[..., 0], image[..., 2]), "a colour photograph"
    regions = find_regions(image)
    assert regions.shape == (height, width)
    assert regions.dtype == torch.int64
    sizes = regions.reshape(-1).bincount()
    assert sizes.min() >= height * width // 30, "tiny regions were given to a neighbour"
    # The algorithm may change in a later scikit-image, by a region or so.
    assert abs(len(sizes) - count) <= 2


def test_every_pixel_is_in_one_region_and_in_both_splits(chelsea: DataGroups) -> None:
    image, regions = load_photo("chelsea"), find_regions(load_photo("chelsea"))
    shown = image[::6, ::6]
    grid = fourier_features(*shown.shape[:2])
    place = {row.numpy().tobytes(): number for number, row in enumerate(grid)}
    assert len(place) == len(grid), "no two pixels have the same features"
    assert chelsea.names == tuple(f"region {k}" for k in range(int(regions.max()) + 1))
    seen = []
    for number, group in enumerate(chelsea.values()):
        features, colours = (torch.cat(part) for part in zip(*group.validation, strict=True))
        pixels = torch.tensor([place[row.numpy().tobytes()] for row in features])
        assert (pixels.diff() > 0).all(), "validation is in order"
        assert torch.equal(colours, shown.reshape(-1, 3)[pixels])
        assert (regions[::6, ::6].reshape(-1)[pixels] == number).all()
        torch.manual_seed(0)
        trained, painted = (torch.cat(part) for part in zip(*group.train, strict=True))
        order = [place[row.numpy().tobytes()] for row in trained]
        assert order != sorted(order), "training is shuffled"
        assert sorted(order) == pixels.tolist(), "and holds the same pixels"
        assert torch.equal(painted, shown.reshape(-1, 3)[torch.tensor(order)])
        assert group.test is None
        seen += order
    assert sorted(seen) == list(range(len(grid)))


def test_batches(chelsea: DataGroups) -> None:
    group = max(chelsea.values(), key=lambda group: len(group.train))
    sizes = [len(colours) for _, colours in group.train]
    assert set(sizes[:-1]) == {100}
    assert 0 < sizes[-1] <= 100
    assert [len(colours) for _, colours in group.validation] == [sum(sizes)], "one big batch"
    features, colours = next(iter(group.train))
    assert features.shape == (100, 34)
    assert colours.shape == (100, 3)
    assert features.dtype == colours.dtype == torch.float32


def test_a_smaller_stride_shows_more_pixels_in_the_same_regions(chelsea: DataGroups) -> None:
    finer = image_regions("chelsea", stride=3, batch_size=10**6)
    assert finer.names == chelsea.names
    for name, group in finer.items():
        (_, fine), coarse = next(iter(group.train)), chelsea[name].validation
        ratio = len(fine) / sum(len(colours) for _, colours in coarse)
        assert ratio == pytest.approx(4, rel=0.12)


def test_features_by_hand() -> None:
    features = fourier_features(2, 3).double()
    assert features.shape == (6, 34)
    x, y = 1.0, -1.0  # the last pixel of the first row
    expected = [x, y]
    expected += [math.sin(2**k * math.pi * v) for v in (x, y) for k in range(8)]
    expected += [math.cos(2**k * math.pi * v) for v in (x, y) for k in range(8)]
    assert features[2].tolist() == pytest.approx(expected, abs=1e-6)
    middle = [math.cos(2**k * math.pi * 0.0) for k in range(8)]
    assert features[1, 18:26].tolist() == pytest.approx(middle)
    assert features[3, :2].tolist() == [-1.0, 1.0], "row by row, horizontal first"


def test_the_highest_frequency_is_exact() -> None:
    width = 1001
    features = fourier_features(1, width)
    x = torch.linspace(-1, 1, width, dtype=torch.float64)
    exact = (x * math.pi * 128).sin()
    assert (features[:, 2 + 7].double() - exact).abs().max() < 1e-7


@pytest.mark.parametrize("sides", [(0, 3), (3, 0), (2.0, 3), (True, 3)])
def test_sides_that_are_none(sides: tuple) -> None:
    with pytest.raises(InvalidArgument, match="must be a whole number of at least 1"):
        fourier_features(*sides)


@pytest.mark.parametrize("photo", ["camera", "brain", "", None])
def test_an_unknown_photograph(photo: str) -> None:
    with pytest.raises(InvalidArgument, match=r"photo: expected one of \['astronaut', 'chelsea'"):
        image_regions(photo)


def test_a_stride_too_large_names_one_that_fits() -> None:
    with pytest.raises(
        InvalidArgument, match=r"at least 64 pixels, got 30, .*: use \d+ or less"
    ) as e:
        image_regions("chelsea", stride=30)
    fits = int(str(e.value).split("use ")[1].split()[0])
    groups = image_regions("chelsea", stride=fits)
    assert min(sum(len(y) for _, y in group.train) for group in groups.values()) >= 64
    with pytest.raises(InvalidArgument, match=f"use {fits} or less"):
        image_regions("chelsea", stride=fits + 1)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "4"])
@pytest.mark.parametrize("argument", ["stride", "batch_size"])
def test_numbers_that_are_none(argument: str, bad: object) -> None:
    with pytest.raises(InvalidArgument, match=f"{argument} must be a whole number of at least 1"):
        image_regions("chelsea", **{argument: bad})


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = load_photo("chelsea")
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    for call in (image_regions, lambda: find_regions(image)):
        with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[images\]'"):
            call()


def test_the_network_has_the_papers_weights() -> None:
    network = coordinate_network(0)
    linear = [module for module in network if isinstance(module, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (34, 128), (128, 128), (128, 128), (128, 128), (128, 3)
    ]  # fmt: skip
    assert sum(m.weight.numel() for m in linear) == 53_888
    chosen = select_prunable(network, PRUNABLE)
    assert sum(weight.numel() for weight in chosen.values()) == 53_888


def test_the_network_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = coordinate_network(5)
    assert torch.equal(torch.rand(1), expected), "the caller's random state is left alone"
    second, other = coordinate_network(5), coordinate_network(6)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first[0].weight, other[0].weight)
    with pytest.raises(InvalidArgument, match="seed must be a whole number"):
        coordinate_network(-1)


class Painted(nn.Module):
    """Every pixel in the colour of its features' first three values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :3] * self.weight


def test_psnr_by_hand() -> None:
    features = torch.zeros(3, 34)
    colours = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.6, 0.0]])
    expected = -10 * math.log10((0.09 + 0.36) / 9)
    assert psnr(Painted(), [(features, colours)]) == pytest.approx(expected, rel=1e-6)
    # The mean is over pixels, not over batches of different size.
    batches = list(zip(features.split(2), colours.split(2), strict=True))
    assert psnr(Painted(), batches) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("offset", "decibels"), [(0.0, 120.0), (1e-7, 120.0), (1e-6, 120.0), (1e-5, 100.0)]
)
def test_an_exact_region_has_a_finite_psnr(offset: float, decibels: float) -> None:
    batch = (torch.zeros(3, 34), torch.full((3, 3), offset))
    assert psnr(Painted(), [batch]) == pytest.approx(decibels, abs=1e-4)


def test_discover_takes_the_psnr_of_an_exact_region() -> None:
    pixels = [(torch.zeros(4, 34), torch.zeros(4, 3))]
    tickets = discover(
        coordinate_network_without_biases(),
        DataGroups.from_loaders({"black": pixels}, validation={"black": pixels}),
        mean_squared_error,
        schedule=GeometricSchedule(0.5, rounds=1),
        steps=1,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
        prunable=PRUNABLE,
        evaluate=psnr,
        progress=False,
    )
    assert [row["metric"] for row in tickets.history] == [120.0, 120.0]


def coordinate_network_without_biases() -> torch.nn.Module:
    """Black wherever all features are 0, whatever its weights."""
    return torch.nn.Sequential(
        torch.nn.Linear(34, 8, bias=False), torch.nn.ReLU(), torch.nn.Linear(8, 3, bias=False)
    )


def test_outputs_are_not_clamped() -> None:
    features = torch.full((1, 34), 1.5)
    assert psnr(Painted(), [(features, torch.ones(1, 3))]) == pytest.approx(-10 * math.log10(0.25))


def test_loss_by_hand() -> None:
    loss = mean_squared_error(Painted(), (torch.zeros(2, 34), torch.full((2, 3), 0.5)))
    assert loss.item() == 0.25
    assert loss.requires_grad


@pytest.mark.parametrize("shape", [(2, 1), (2,), (1, 3)])
def test_shapes_that_would_broadcast(shape: tuple[int, ...]) -> None:
    batch = (torch.zeros(shape[0], 34), torch.zeros(shape))
    with pytest.raises(InvalidArgument, match="expected an output of the shape of the colours"):
        mean_squared_error(lambda features: torch.zeros(2, 3), batch)
    if shape[0] == 2:
        with pytest.raises(InvalidArgument, match=r"shape of the colours, .*, got \[2, 3\]"):
            psnr(Painted(), [batch])


def test_tickets_are_found_and_the_picture_is_fitted(chelsea: DataGroups) -> None:
    model = coordinate_network(0)
    before = psnr(model, chelsea["region 0"].validation)
    tickets = discover(
        model,
        chelsea,
        mean_squared_error,
        schedule=GeometricSchedule(0.5, rounds=1),
        steps=20,
        optimizer=lambda params: torch.optim.Adam(params, 1e-2),
        prunable=PRUNABLE,
        progress=False,
    )
    assert tickets.names == chelsea.names
    kept = [sum(int(m.sum()) for m in ticket.masks.values()) for ticket in tickets.values()]
    assert kept == [53_888 // 2] * len(chelsea)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        for batch in chelsea["region 0"].train:
            optimizer.zero_grad()
            mean_squared_error(model, batch).backward()
            optimizer.step()
    assert psnr(model, chelsea["region 0"].validation) > before + 8
