"""Networks that attacks can be tried on, trained for a second."""

import functools

import torch

from benchmarks.robust_networks import Labelled, Networks, Recipe, digits_of, train_networks

TINY = Recipe(tickets=3, rounds=1, steps=15, epochs=1)


@functools.cache
def networks() -> Networks:
    """Three tickets, a dense network and a surrogate, trained on 320 digits; not to be changed."""
    images, labels = digits_of("train")
    return train_networks((images[::11], labels[::11]), TINY, seed=0)


@functools.cache
def _test_digits() -> Labelled:
    return digits_of("test")  # the file takes seconds to read


def images_and_labels(count: int = 40) -> Labelled:
    """Test digits of all classes."""
    images, labels = _test_digits()
    rows = torch.arange(count) * (len(labels) // count)
    return images[rows], labels[rows]
