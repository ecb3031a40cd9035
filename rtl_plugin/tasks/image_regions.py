"""A photograph as an implicit neural representation (INR): one group of pixels a region.

One small network maps Fourier features of a pixel's coordinates to its colour; every region of
the picture is a group with a ticket of its own. An INR fits its image and is not asked to
generalise, so **training and validation hold the same pixels**.

Data: photographs that scikit-image carries in its wheel (BSD-3; each with a note on its origin in
the docstring of its function in ``skimage.data``); nothing is downloaded. No package carries masks
of meaningful regions, so these are regions of like colour, found by the algorithm of Felzenszwalb
and Huttenlocher (Efficient Graph-Based Image Segmentation, IJCV 59, 2004).

Source: Stefański, Presta, Byra, arXiv 2601.22141, the INR experiment. The features are the sines
and cosines of Mildenhall et al., NeRF, arXiv 2003.08934, beside the coordinates themselves.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from rtl_plugin.arguments import whole_number
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.errors import InvalidArgument
from rtl_plugin.extras import require
from rtl_plugin.randomness import forked
from rtl_plugin.tasks.digits import TensorBatches
from rtl_plugin.tasks.predictions import outputs_and_targets

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
FREQUENCIES = 8
FEATURES = 2 + 4 * FREQUENCIES  # two coordinates, and sine and cosine of each at every frequency
WIDTH = 128
PRUNABLE = nn.Linear  # for ``prunable=``: by default a network's last linear layer stays dense
LEAST_PIXELS = 64  # a region of fewer is too small to say anything about its ticket
LEAST_ERROR = 1e-12  # mean squared error, the smallest that psnr tells apart: 120 dB
_VALIDATION_BATCH = 8192


def load_photo(photo: str) -> torch.Tensor:
    """A photograph that scikit-image carries.

    Args:
        photo: one of ``PHOTOS``.

    Returns:
        float32 [H, W, 3], red, green and blue in [0, 1].

    Raises:
        InvalidArgument: there is no such photograph.
        MissingExtra: scikit-image is not installed.
    """
    if photo not in PHOTOS:
        raise InvalidArgument(
            f"photo: expected one of {list(PHOTOS)}, got {photo!r}: others need a download, or "
            "have no colours"
        )
    read = getattr(require("skimage.data", "images", "the photographs"), photo)
    return torch.from_numpy(np.asarray(read(), dtype=np.float32) / 255)


def find_regions(image: torch.Tensor) -> torch.Tensor:
    """Regions of like colour; each has at least a thirtieth of the picture, smaller ones join.

    Args:
        image: float32 [H, W, 3] in [0, 1].

    Returns:
        int64 [H, W], the region of every pixel, counted from 0.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    segment = require("skimage.segmentation", "images", "the regions of a photograph").felzenszwalb
    height, width, _ = image.shape
    found = segment(image.numpy(), scale=400, sigma=0.8, min_size=height * width // 30)
    return torch.from_numpy(np.asarray(found, dtype=np.int64))


def fourier_features(height: int, width: int) -> torch.Tensor:
    """Coordinates of all pixels of a grid and their sines and cosines at eight frequencies.

    Coordinates run from -1 to 1, both ends included, horizontal first. The features are x, y,
    ``sin(2**k pi x)`` for k = 0..7, the same of y, and the cosines in the same order.

    Args:
        height: rows of the grid, at least 1.
        width: columns of the grid, at least 1.

    Returns:
        float32 [height * width, 34] in [-1, 1], row by row.

    Raises:
        InvalidArgument: a side is not a whole number of at least 1.

    Example:
        >>> features = fourier_features(3, 5)
        >>> features.shape, features[0, :2], features[-1, :2]
        (torch.Size([15, 34]), tensor([-1., -1.]), tensor([1., 1.]))
    """
    height, width = (
        whole_number(name, side, least=1) for name, side in (("height", height), ("width", width))
    )
    # The highest frequency has 128 periods across the picture, too many for float32 angles.
    rows = torch.linspace(-1, 1, height, dtype=torch.float64)
    columns = torch.linspace(-1, 1, width, dtype=torch.float64)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    coordinates = torch.stack([x, y], dim=-1).reshape(-1, 2)
    frequencies = math.pi * 2.0 ** torch.arange(FREQUENCIES, dtype=torch.float64)
    angles = (coordinates[:, :, None] * frequencies).flatten(1)
    return torch.cat([coordinates, angles.sin(), angles.cos()], dim=1).float()


def image_regions(photo: str = "coffee", stride: int = 4, batch_size: int = 512) -> DataGroups:
    """One group a region of a photograph; training and validation are the same pixels.

    Regions are found at full size, so that their borders do not depend on the stride. Training
    batches come in random order; validation holds all pixels of the region in order. There is no
    test split: an INR is judged on the picture that it was fitted to.

    Args:
        photo: one of ``PHOTOS``.
        stride: every so many pixels of every so many rows are used, at least 1; 1 for all.
        batch_size: pixels in a training batch, at least 1; the last may be smaller.

    Returns:
        Groups "region 0", "region 1", ... with batches ``(features, colours)``: float32 [B, 34]
        from `fourier_features` and float32 [B, 3] in [0, 1].

    Raises:
        InvalidArgument: an unknown photograph, a stride or batch size that is no whole number of
            at least 1, a stride that leaves a region fewer than 64 pixels.
        MissingExtra: scikit-image is not installed.
    """
    stride = whole_number("stride", stride, least=1)
    batch_size = whole_number("batch_size", batch_size, least=1)
    image = load_photo(photo)
    regions = find_regions(image)
    _check_stride(regions, stride, photo)
    colours = image[::stride, ::stride]
    features = fourier_features(*colours.shape[:2])
    colours, kept = colours.reshape(-1, 3), regions[::stride, ::stride].reshape(-1)
    train, validation = {}, {}
    for region in range(int(regions.max()) + 1):
        inside = kept == region
        pixels = features[inside], colours[inside]
        name = f"region {region}"
        train[name] = TensorBatches(*pixels, batch_size, shuffle=True)
        validation[name] = TensorBatches(*pixels, _VALIDATION_BATCH, shuffle=False)
    return DataGroups.from_loaders(train, validation=validation)


def _smallest(regions: torch.Tensor, stride: int) -> tuple[int, int]:
    """Pixels and number of the smallest region on a grid of this stride."""
    total = int(regions.max()) + 1
    counts = regions[::stride, ::stride].reshape(-1).bincount(minlength=total)
    region = int(counts.argmin())
    return int(counts[region]), region


def _check_stride(regions: torch.Tensor, stride: int, photo: str) -> None:
    """Refuse a stride that leaves a region next to nothing, naming the largest that does not."""
    pixels, region = _smallest(regions, stride)
    if pixels >= LEAST_PIXELS:
        return
    fits = next(
        s for s in range(stride, 0, -1) if s == 1 or _smallest(regions, s)[0] >= LEAST_PIXELS
    )
    raise InvalidArgument(
        f"stride: expected one that leaves every region of {photo!r} at least {LEAST_PIXELS} "
        f"pixels, got {stride}, which leaves region {region} {pixels}: use {fits} or less"
    )


def coordinate_network(seed: int) -> nn.Sequential:
    """The paper's INR network, 34-128-128-128-128-3 with ReLU: 53,888 prunable weights.

    The count includes the last layer, as the paper's does; ``discover`` takes that for a classifier
    and keeps it dense unless it is called with ``prunable=PRUNABLE``.

    Args:
        seed: of the initialisation, at least 0; the caller's random state is left alone.

    Returns:
        A network for features [B, 34]; colours [B, 3], not clamped to [0, 1].

    Raises:
        InvalidArgument: the seed is not a whole number of at least 0.

    Example:
        >>> network = coordinate_network(0)
        >>> network(torch.zeros(2, 34)).shape
        torch.Size([2, 3])
        >>> sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))
        53888
    """
    with forked(whole_number("seed", seed, least=0)):
        layers: list[nn.Module] = []
        for inputs in (FEATURES, WIDTH, WIDTH, WIDTH):
            layers += [nn.Linear(inputs, WIDTH), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(WIDTH, 3))


def _check_colours(output: torch.Tensor, colours: torch.Tensor) -> None:
    """Refuse shapes that would broadcast to a wrong error."""
    if output.shape != colours.shape:
        raise InvalidArgument(
            f"expected an output of the shape of the colours, {list(colours.shape)}, got "
            f"{list(output.shape)}: the network must return red, green and blue of every pixel"
        )


def mean_squared_error(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The mean squared error of a batch of pixels: the loss of an INR.

    Args:
        model: a network from features to colours.
        batch: features [B, 34] and colours [B, 3], on the model's device.

    Returns:
        A scalar tensor.

    Raises:
        InvalidArgument: the output has another shape than the colours.

    Example:
        >>> batch = (torch.zeros(2, 34), torch.full((2, 3), 0.5))
        >>> mean_squared_error(lambda features: torch.zeros(2, 3), batch)
        tensor(0.2500)
    """
    features, colours = batch
    output: torch.Tensor = model(features)
    _check_colours(output, colours)
    return nn.functional.mse_loss(output, colours)


def psnr(model: Any, batches: Iterable[Any]) -> float:
    """Peak signal-to-noise ratio over all pixels of all batches, for a peak of 1.

    ``-10 log10(e)`` with the squared error e averaged over pixels and colours first, so it does
    not depend on how pixels are cut into batches. Outputs are taken as they are, not clamped.
    An error below 1e-12 counts as 1e-12, so that an exact region has a finite value.

    Args:
        model: a network from features to colours, or a masked view of one.
        batches: pairs of features [B, 34] and colours [B, 3].

    Returns:
        Decibels, at most 120; higher is better.

    Raises:
        InvalidArgument: there is no batch, outputs are not finite or not of the colours' shape.

    Example:
        >>> black = nn.Linear(34, 3)
        >>> _ = [nn.init.zeros_(parameter) for parameter in black.parameters()]
        >>> round(psnr(black, [(torch.zeros(2, 34), torch.full((2, 3), 0.1))]), 4)
        20.0
    """
    output, colours = outputs_and_targets(model, batches)
    _check_colours(output, colours)
    error = float((output - colours).square().mean())
    return -10 * math.log10(max(error, LEAST_ERROR))
