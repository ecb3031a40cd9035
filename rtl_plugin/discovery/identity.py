"""What decides the result of a discovery beside the arguments that a run folder remembers."""

import hashlib
import itertools
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtl_plugin.data_groups.cycling import cycled
from rtl_plugin.data_groups.loading import known_length
from rtl_plugin.discovery.backends import rehearse_evaluate
from rtl_plugin.discovery.code_digest import CodeRead, read_code
from rtl_plugin.discovery.content_digest import content_digest
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rehearsal import rehearsed_training
from rtl_plugin.discovery.rewinding import RewindPoint
from rtl_plugin.environment import software_versions
from rtl_plugin.masked_forward import MaskedModel, TensorSlots
from rtl_plugin.nested import to_device
from rtl_plugin.randomness import derived_seed, forked
from rtl_plugin.training_step import Where, checked_loss

# Enough that data which differ in some samples show it, few beside the steps of a training.
BATCHES = 8


def run_identity(plan: DiscoveryPlan, start: RewindPoint, key: Any) -> dict[str, Any]:
    """Everything that two runs must share, beside their arguments, for the same rounds.

    All global random states and the model are left as they were; generators that loaders hold are
    the caller's to restore.

    Args:
        plan: the checked discovery.
        start: the model as it is given.
        key: what the caller says of itself, JSON-able.

    Returns:
        JSON-able: ``key``; digests of the first batches (``data``, ``held_out``), of functions and
        the modules' classes (``code``; ``unseen`` names what they do not cover) and of the module
        tree (``modules``); the loss and the metric of the untrained model by group
        (``first_loss``, ``first_metric``) and what two steps make of it (``rehearsal``);
        ``environment``; and ``kept``, the weights that every ticket keeps after round 1, 2, ...,
        which need to agree for the rounds that are shared only.

    Raises:
        InvalidArgument: a batch holds what cannot be compared, or the metric is no finite number.
        InvalidLoss: the loss cannot be trained on.
    """
    code = _code(plan)
    loaded = {name: _looked_at(plan, start, name) for name in plan.groups}
    metrics = rehearse_evaluate(plan, start)
    rehearsal = rehearsed_training(plan, start)
    after = _code(plan)
    return {
        **keyed(key),
        "data": {name: data for name, (data, _) in loaded.items()},
        "held_out": {name: _held_out(plan, name) for name in metrics},
        "code": {part: read.digest for part, read in code.items()},
        "unseen": _unseen(code, after),
        "modules": _module_tree(plan.model),
        "first_loss": {name: loss for name, (_, loss) in loaded.items()},
        "first_metric": {name: value.hex() for name, value in metrics.items()},
        "environment": numerics(plan.device),
        "rehearsal": rehearsal,
        "kept": list(plan.kept),
    }


def _code(plan: DiscoveryPlan) -> dict[str, CodeRead]:
    kinds = dict.fromkeys(type(module) for module in plan.model.modules())
    parts = {
        "loss": plan.loss, "optimizer": plan.optimizer, "evaluate": plan.evaluate,
        "importance": plan.importance.scores, "model": list(kinds),
    }  # fmt: skip
    return {part: read_code(function) for part, function in parts.items()}


def _unseen(before: Mapping[str, CodeRead], after: Mapping[str, CodeRead]) -> list[str]:
    """What no digest covers, and what is another after it ran: it would differ in a later round."""
    told = [f"{part}: {name}" for part, read in before.items() for name in read.unseen]
    changing = [part for part, read in before.items() if after[part].digest != read.digest]
    return [*told, *(f"{part}: it changes what it reads while it runs" for part in changing)]


def keyed(key: Any) -> dict[str, Any]:
    """What an identity holds of the caller's key.

    Args:
        key: JSON-able.

    Returns:
        It, and its text.

    Example:
        >>> keyed({"b": 1, "a": 2})["key_as_json"]
        '{"a": 2, "b": 1}'
    """
    # In JSON 1, 1.0 and true differ; in Python they are equal.
    return {"key": key, "key_as_json": json.dumps(key, sort_keys=True)}


def _looked_at(plan: DiscoveryPlan, start: RewindPoint, group: str) -> tuple[str, str]:
    """Digest of a group's first training batches, and the untrained model's loss on the first."""
    where = Where("warm start", group, "round", 0)
    loader, most = plan.groups[group].train, min(BATCHES, plan.steps[group])
    with forked(derived_seed(plan.seed, "warm start", group)):
        seed = derived_seed(plan.seed, "warm start loader", group)
        batches = _first(cycled(loader, seed), loader, most)
        first = next(batches)
        digests = [content_digest(first), *map(content_digest, batches)]
        view = MaskedModel(plan.model, TensorSlots(plan.model), start.leaves(), start.own_buffers())
        # Dropout and all that draws shows in it too: the streams are seeded alike everywhere.
        loss = checked_loss(plan.loss, view, to_device(first, plan.device), where)
    return content_digest(digests), float(loss.detach()).hex()


def _held_out(plan: DiscoveryPlan, group: str) -> str:
    loader = plan.groups[group].validation or ()
    with forked(derived_seed(plan.seed, "warm start held out", group)):
        seed = derived_seed(plan.seed, "warm start held out loader", group)
        return content_digest(list(map(content_digest, _first(cycled(loader, seed), loader))))


def _first(batches: Iterable[Any], loader: Iterable[Any], most: int = BATCHES) -> Any:
    length = known_length(loader)
    return itertools.islice(batches, most if length is None else min(most, length))


def _module_tree(model: nn.Module) -> str:
    """Digest of what modules say of themselves: kinds, strides, dropout, epsilons."""
    told = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(model))
    kinds = [f"{name}: {type(module).__module__}" for name, module in model.named_modules()]
    return hashlib.sha256("\n".join([told, *kinds]).encode()).hexdigest()


def numerics(device: torch.device) -> dict[str, Any]:
    """Versions, hardware and settings that decide the last bits of a result.

    Args:
        device: where the model lives.

    Returns:
        JSON-able: name -> value.

    Example:
        >>> numerics(torch.device("cpu"))["threads"] == torch.get_num_threads()
        True
    """
    cuda = device.type == "cuda"
    return {
        "versions": software_versions(),
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cuda": torch.version.cuda if cuda else None,
        "processor": _processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "autocast": torch.is_autocast_enabled(device.type),
        "autocast_dtype": str(torch.get_autocast_dtype(device.type)),
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic],
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "reduced_precision": [
            str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
            str(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
        ],
        "cublas": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def _processor() -> str:
    """The processor's name where the system tells it, for libraries that pick code by it."""
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
