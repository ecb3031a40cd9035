"""A tiny BERT, its data and a traced Trainer; nothing is downloaded."""

from pathlib import Path
from typing import Any

import nni
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

SAMPLES, BATCH = 32, 8
BATCHES = SAMPLES // BATCH


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        num_labels=3,
    )
    return BertForSequenceClassification(config)


def samples(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 16, (SAMPLES, 6), generator=draws)
    return [{"input_ids": row, "labels": row[0] % 3} for row in words]


def traced(parameters: Any, lr: float = 0.01) -> Any:
    return nni.trace(torch.optim.AdamW)(parameters, lr=lr)


def arguments(folder: Path, **keywords: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": 1,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        **keywords,
    }
    return TrainingArguments(**given)


def trainer(
    model: nn.Module, folder: Path, *, optimizers: Any = None, keywords: Any = None, **more: Any
) -> Any:
    return nni.trace(Trainer)(
        model=model,
        args=arguments(folder, **(keywords or {})),
        optimizers=optimizers or (traced(model.parameters()), None),
        **{"train_dataset": samples(), "eval_dataset": samples(1), **more},
    )
