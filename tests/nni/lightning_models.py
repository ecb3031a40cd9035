"""A small network and its data, in the classes of either package of Lightning."""

import importlib
from collections.abc import Callable
from typing import Any

import nni
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
SAMPLES, BATCH = 32, 8
BATCHES = SAMPLES // BATCH


def single(parameters: list[nn.Parameter]) -> Any:
    return nni.trace(torch.optim.SGD)(parameters, lr=0.05, momentum=0.9)


def listed(parameters: list[nn.Parameter]) -> Any:
    return [nni.trace(torch.optim.Adam)(parameters, lr=0.01)]


def scheduler_for(optimizer: Any) -> Any:
    return nni.trace(torch.optim.lr_scheduler.StepLR)(optimizer, step_size=2, gamma=0.5)


def with_config(parameters: list[nn.Parameter]) -> Any:
    optimizer = single(parameters)
    config = {"scheduler": scheduler_for(optimizer), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": config}


def with_scheduler(parameters: list[nn.Parameter]) -> Any:
    optimizer = single(parameters)
    return {"optimizer": optimizer, "lr_scheduler": scheduler_for(optimizer)}


def two_lists(parameters: list[nn.Parameter]) -> Any:
    optimizer = single(parameters)
    return [optimizer], [{"scheduler": scheduler_for(optimizer), "interval": "step"}]


def as_groups(parameters: list[nn.Parameter]) -> Any:
    return nni.trace(torch.optim.SGD)([{"params": parameters, "lr": 0.05}], lr=0.1)


def net(package: str, optimizers: Callable[[list[nn.Parameter]], Any] = single) -> Any:
    pl = importlib.import_module(package)

    class Net(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(8)
            self.head = nn.Linear(8 * 4 * 4, 4)
            self.validated = 0

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self(x), y)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated += 1

        def test_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            self.log("default", (self(x).argmax(1) == y).float().mean())

        def configure_optimizers(self) -> Any:
            return optimizers(list(self.parameters()))

    torch.manual_seed(0)
    return Net()


def data(package: str) -> Any:
    pl = importlib.import_module(package)

    class Data(pl.LightningDataModule):  # type: ignore[misc,name-defined]
        def __init__(self, seed: int = 0) -> None:
            super().__init__()
            draws = torch.Generator().manual_seed(seed)
            y = torch.randint(0, 4, (SAMPLES,), generator=draws)
            x = torch.randn(SAMPLES, 1, 4, 4, generator=draws) + y.view(-1, 1, 1, 1)
            self.samples = TensorDataset(x, y)

        def train_dataloader(self) -> Any:
            return DataLoader(self.samples, batch_size=BATCH)

        val_dataloader = test_dataloader = train_dataloader

    return Data


def trainer(package: str, **keywords: Any) -> Any:
    pl: Any = importlib.import_module(package)
    quiet = dict.fromkeys(
        ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
    )
    given = {"max_epochs": 1, "accelerator": "cpu", **quiet, **keywords}
    return nni.trace(pl.Trainer)(**given)
