"""With one group, one round and no rewinding the masks are those of NNI alone, bit for bit."""

import copy
import functools
from typing import Any

import pytest
import torch
from nni.compression.utils.evaluator import TorchEvaluator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rtl_nni.group_evaluators import train_on
from rtl_plugin.randomness import forked
from tests.nni.networks import (
    CLASSES,
    CNN,
    ENCODER,
    KINDS,
    L1,
    LEVEL,
    MLP,
    TAYLOR,
    Kind,
    Network,
    batches,
    cross_entropy,
    pruner_of,
    same_masks,
    sgd,
)

STEPS = 4


def plain_evaluator(model: nn.Module, loader: Any) -> TorchEvaluator:
    """As a user of NNI writes it, without any helper of ours."""
    loop = functools.partial(train_on, loader=loader)
    return TorchEvaluator(loop, sgd(model.parameters()), cross_entropy)


def nni_alone(kind: Kind, model: nn.Module, config: Any, evaluator: Any) -> Any:
    """Train under a bound pruner and let it make its masks, as NNI's tutorials do."""
    pruner = kind.made(model, config, evaluator, STEPS)
    if kind.name in ("slim", "taylor"):
        return pruner.compress()[1]
    if kind.trains:
        return pruner.compress(STEPS, None)[1]
    evaluator.bind_model(model, pruner._get_param_names_map())
    evaluator.train(STEPS, None)
    evaluator.unbind_model()
    return pruner.compress()[1]


def both(kind: Kind, network: Network, loaders: Any, config: Any = None) -> tuple[Any, Any]:
    """NNI's masks and ours, from the same weights, data and global seed."""
    first, second = network.build(), network.build()
    config = config or network.config()
    with forked(5):
        expected = nni_alone(
            kind, first.train(), copy.deepcopy(config), plain_evaluator(first, loaders())
        )
    evaluators = {"all": plain_evaluator(second, loaders())}
    with forked(5):
        pruner = pruner_of(network, second, kind, STEPS, config=config, evaluators=evaluators)
        _, masks = pruner.compress()
    return expected, masks["all"]


def shuffling(network: Network, generator: bool) -> DataLoader[Any]:
    with forked(3):
        data = TensorDataset(network.inputs(20), torch.randint(CLASSES, (20,)))
    own = torch.Generator().manual_seed(11) if generator else None
    return DataLoader(data, batch_size=8, shuffle=True, generator=own)


@pytest.mark.parametrize("network", [CNN, MLP], ids=lambda n: n.name)
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_every_pruner_on_batches(kind: Kind, network: Network) -> None:
    expected, masks = both(kind, network, lambda: batches(network, "data"))
    assert any(bool((m == 0).any()) for t in masks.values() for m in t.values())
    assert same_masks(expected, masks)


def test_weights_under_a_transformer_encoder() -> None:
    expected, masks = both(LEVEL, ENCODER, lambda: batches(ENCODER, "data"))
    assert same_masks(expected, masks)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@pytest.mark.parametrize("generator", [False, True], ids=["global seed", "own generator"])
def test_every_pruner_on_a_shuffling_loader(kind: Kind, generator: bool) -> None:
    expected, masks = both(kind, CNN, lambda: shuffling(CNN, generator))
    assert same_masks(expected, masks)


def test_the_order_of_the_data_matters_here() -> None:
    """Otherwise the tests with shuffling loaders would pass whatever the random state."""
    model = MLP.build()
    found = []
    for seed in (5, 6):
        with forked(seed):
            own = {"all": plain_evaluator(model, shuffling(MLP, False))}
            found.append(pruner_of(MLP, model, LEVEL, STEPS, evaluators=own).compress()[1]["all"])
    assert not same_masks(*found)


CONFIGS: dict[str, list[dict[str, Any]]] = {
    "fine list": [{"op_names": ["0", "3"], "sparse_ratio": 0.5, "granularity": [2, 1, 3, 3]}],
    "in_channel": [{"op_names": ["3"], "sparse_ratio": 0.5, "granularity": "in_channel"}],
    "threshold": [{"op_names": ["0", "3"], "sparse_threshold": 2.0}],
    "threshold with limits": [
        {"op_names": ["0"], "sparse_threshold": 5.0, "max_sparse_ratio": 0.5},
        {"op_names": ["3"], "sparse_threshold": 0.001, "min_sparse_ratio": 0.25},
    ],
    "ratio with limits": [{"op_names": ["3"], "sparse_ratio": 0.75, "max_sparse_ratio": 0.5}],
    "weights only": [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "target_names": ["weight"]}],
    "biases of their own": [
        {
            "op_types": ["Conv2d"],
            "target_names": ["weight", "bias"],
            "target_settings": {
                "weight": {"sparse_ratio": 0.5},
                "bias": {"align": {"module_name": None, "target_name": "weight", "dims": [0]}},
            },
        }
    ],
    "aligned norms": [
        {"op_names": ["0"], "sparse_ratio": 0.5},
        {
            "op_names": ["1"],
            "target_names": ["weight", "bias"],
            "target_settings": {
                name: {
                    "align": {"module_name": "0", "target_name": "weight", "dims": [0]},
                    "granularity": "out_channel",
                }
                for name in ("weight", "bias")
            },
        },
    ],
    "internal blocks": [
        {
            "op_names": ["3"],
            "sparse_ratio": 0.5,
            "dependency_group_id": 1,
            "internal_metric_block": 3,
        }
    ],
    "excluded": [
        {"op_types": ["Conv2d", "Linear"], "exclude_op_names": ["8"], "sparse_ratio": 0.5}
    ],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_of_a_configuration(name: str) -> None:
    expected, masks = both(L1, CNN, lambda: batches(CNN, "data"), CONFIGS[name])
    assert any(bool((m == 0).any()) for t in masks.values() for m in t.values())
    assert same_masks(expected, masks)


@pytest.mark.parametrize("key", ["global_group_id", "dependency_group_id"])
@pytest.mark.parametrize("kind", [L1, TAYLOR], ids=lambda k: k.name)
def test_groups_of_layers(kind: Kind, key: str) -> None:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(6, 8)
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.first(x) + self.second(x)))

    twin = Network("twin", Twin, (6,), {"op_names": ["first", "second"]})
    config = twin.config(0.5, **{key: "pair"})
    expected, masks = both(kind, twin, lambda: batches(twin, "data"), config)
    assert same_masks(expected, masks)
    if key == "dependency_group_id":
        assert torch.equal(masks["first"]["weight"], masks["second"]["weight"])


def test_epochs_instead_of_steps() -> None:
    """Two passes over three batches are six steps."""
    first, second = MLP.build(), MLP.build()
    by_steps = pruner_of(MLP, first, LEVEL, 6).compress()[1]
    by_epochs = pruner_of(MLP, second, LEVEL, epochs=2, pruner_options=None).compress()[1]
    assert all(same_masks(by_steps[name], by_epochs[name]) for name in by_steps)


def test_the_length_may_be_given_to_compress() -> None:
    model = MLP.build()
    early = pruner_of(MLP, model, LEVEL, 6).compress()[1]
    late = pruner_of(MLP, model, LEVEL, steps=None).compress(max_steps=6)[1]
    assert all(same_masks(early[name], late[name]) for name in early)


def test_no_training_ranks_the_weights_as_they_are() -> None:
    model = MLP.build()
    expected = LEVEL.source(copy.deepcopy(model), MLP.config()).compress()[1]
    masks = pruner_of(MLP, model, LEVEL, 0, names=["all"]).compress()[1]["all"]
    assert same_masks(expected, masks)
