"""What must be right before a comparison trains for hours."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from rtl_plugin.arguments import callable_name
from rtl_plugin.baselines.methods import METHODS, POOLED_METHODS, method_named
from rtl_plugin.baselines.scoring import (
    GroupedClassification,
    MeanOfMetric,
    OneVsRest,
    Protocol,
    check_one_class_each,
)
from rtl_plugin.baselines.seed_run import SeedRun
from rtl_plugin.baselines.settings import SingleModel
from rtl_plugin.data_groups import DataGroups
from rtl_plugin.data_groups.loading import preserved_generators
from rtl_plugin.discovery.importance import describe_importance
from rtl_plugin.errors import InvalidArgument, InvalidGroups
from rtl_plugin.extras import require
from rtl_plugin.fingerprint import model_structure, values_fingerprint
from rtl_plugin.nested import to_device
from rtl_plugin.optimizers import build_optimizer, describe_optimizer
from rtl_plugin.prunable import select_prunable
from rtl_plugin.randomness import forked
from rtl_plugin.structure import device_of


def chosen_methods(methods: Sequence[str] | None, single: SingleModel | None) -> list[str]:
    """The methods of a comparison, checked.

    Args:
        methods: names, or None for all that fit.
        single: model and loss of the single-model methods, where they differ from the tickets'.

    Returns:
        The names. None leaves "shared mask" out where the single model has a structure of its own,
        since its mask would not fit the tickets' network.

    Raises:
        InvalidArgument: no method, an unknown or repeated one, or "shared mask" beside ``single``.

    Example:
        >>> chosen_methods(["dense"], None)
        ['dense']
    """
    if isinstance(methods, str):
        raise InvalidArgument(f"methods must be a list of names, got the name {methods!r} alone")
    if methods is None:
        return [name for name in METHODS if single is None or name != "shared mask"]
    names = list(methods)
    for name in names:
        method_named(name)
    if not names or len(set(names)) < len(names):
        raise InvalidArgument(f"need at least one method and each once, got {names}")
    if single is not None and "shared mask" in names:
        raise InvalidArgument(
            "'shared mask' puts the single model's mask on the tickets' network, but single= gives "
            "it a network of its own: leave 'shared mask' out of methods="
        )
    return names


def chosen_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds of a comparison, checked.

    Args:
        seeds: distinct whole numbers of at least 0.

    Returns:
        The seeds.

    Raises:
        InvalidArgument: none, a repeated one, or not whole numbers.

    Example:
        >>> chosen_seeds(range(2))
        [0, 1]
    """
    listed = [] if isinstance(seeds, (int, str)) else list(seeds)
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in listed)
    if not listed or not whole or len(set(listed)) < len(listed) or min(listed) < 0:
        raise InvalidArgument(
            f"seeds must be distinct whole numbers such as range(5), got {seeds!r}"
        )
    return listed


def check_scoring(
    protocol: Protocol,
    groups: DataGroups,
    methods: Sequence[str],
    single: SingleModel | None,
    split: str,
) -> None:
    """Refuse what could only fail once everything is trained.

    Args:
        protocol: how methods are scored.
        groups: the data groups.
        methods: checked names.
        single: as for ``compare``.
        split: ``"test"`` or ``"validation"``.

    Raises:
        InvalidArgument: an unknown split or protocol, or one-vs-rest with single-model methods
            and no ``single``.
        InvalidGroups: a group lacks a split that scoring needs.
        MissingExtra: scikit-learn or scipy is not installed.
    """
    if split not in ("test", "validation"):
        raise InvalidArgument(f"split must be 'test' or 'validation', got {split!r}")
    if not isinstance(protocol, (GroupedClassification, OneVsRest, MeanOfMetric)):
        raise InvalidArgument(
            "protocol must be an instance of rtl_plugin.protocols.GroupedClassification, OneVsRest "
            f"or MeanOfMetric, got {protocol!r}"
        )
    if not isinstance(groups, DataGroups):
        raise InvalidArgument(f"groups must be DataGroups, got {type(groups).__name__}")
    require("scipy.stats", "report", "confidence intervals")
    needed = {split}
    if not isinstance(protocol, MeanOfMetric):
        require("sklearn.metrics", "report", "evaluation metrics")
        needed.add("validation")
    for name, group in groups.items():
        for part in sorted(needed):
            if getattr(group, part) is None:
                raise InvalidGroups(
                    f"group {name!r} has no {part} split, which {type(protocol).__name__} needs: "
                    f"give the groups a {part} fraction or loaders"
                )
    if isinstance(protocol, OneVsRest) and "shared mask" in methods:
        raise InvalidArgument(
            "'shared mask' under one-vs-rest would put an ordinary model's mask on a detector: "
            "leave it out of methods="
        )
    pooled = [name for name in methods if name in POOLED_METHODS]
    if isinstance(protocol, OneVsRest) and single is None and pooled:
        raise InvalidArgument(
            f"{pooled[0]!r} under one-vs-rest is an ordinary model with one output a group: give "
            "single=SingleModel(build_model, loss), or leave it out of methods="
        )


def check_pooled_batches(groups: DataGroups, methods: Sequence[str]) -> None:
    """Refuse groups whose batches one model cannot train on together, before others are trained.

    Args:
        groups: the data groups; one batch of each is drawn.
        methods: checked names.

    Raises:
        InvalidGroups: their batches differ in structure, shape, dtype or device.
    """
    if any(name in (*POOLED_METHODS, "shared mask") for name in methods):
        with forked(0), preserved_generators(groups):
            next(iter(groups.pooled()["all"].train))


def check_models(run: SeedRun) -> None:
    """Refuse a factory that does not give the same new model for the same seed.

    Args:
        run: one seed's run; its factories are called twice.

    Raises:
        InvalidArgument: it gives no module, the same module again, or other values.
    """
    for single in (False, True):
        what = "single.build_model" if single else "build_model"
        first, second = run.model(single=single), run.model(single=single)
        if not isinstance(first, nn.Module) or not isinstance(second, nn.Module):
            raise InvalidArgument(f"{what} must return an nn.Module, got {type(first).__name__}")
        if {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}:
            raise InvalidArgument(
                f"{what} returned the same parameters twice: build a new model at every call, "
                "since every method trains one"
            )
        if _values(first) != _values(second):
            raise InvalidArgument(
                f"{what}({run.seed}) gave other weights when it was called again: draw them from "
                "torch's global generator, which is seeded, or from the seed"
            )


def check_classes(run: SeedRun, protocol: Protocol, methods: Sequence[str]) -> None:
    """Refuse a single model that solves another problem than the one-vs-rest tickets.

    Args:
        run: any seed's run.
        protocol: how methods are scored.
        methods: checked names.

    Raises:
        InvalidGroups: its outputs or the labels of a validation batch are not the groups.
    """
    if not isinstance(protocol, OneVsRest) or not set(methods) & set(POOLED_METHODS):
        return
    model = run.model(single=True).eval()
    loader = run.pooled["all"].validation or ()
    with forked(0), preserved_generators(run.pooled), torch.no_grad():
        batch = to_device(next(iter(loader)), device_of(model))
        scores = protocol.predict(model, batch)
    check_one_class_each(scores.cpu().numpy(), batch[1].cpu().numpy(), len(run.groups))


def _values(model: nn.Module) -> str:
    return values_fingerprint({**dict(model.named_parameters()), **dict(model.named_buffers())})


def described(protocol: Protocol) -> dict[str, Any]:
    """A protocol as JSON-able data that is the same in every process.

    Args:
        protocol: how methods are scored.

    Returns:
        Its class and its fields, functions by name.

    Example:
        >>> described(MeanOfMetric(max, "error"))["metric"]
        'builtins.max'
    """
    fields = {f.name: getattr(protocol, f.name) for f in dataclasses.fields(protocol)}
    shown = {name: callable_name(v) if callable(v) else v for name, v in fields.items()}
    return {"class": type(protocol).__name__, **shown}


def recorded_arguments(run: SeedRun, protocol: Protocol, split: str, task: str) -> dict[str, Any]:
    """What a run folder remembers of a comparison, as JSON-able data.

    Args:
        run: any seed's run.
        protocol: how methods are scored.
        split: ``"test"`` or ``"validation"``.
        task: the name of the rows.

    Returns:
        One entry an argument.
    """
    settings, model, single = run.settings, run.model(), run.model(single=True)
    leaves = [p.detach().clone().requires_grad_() for p in model.parameters() if p.requires_grad]
    return {
        "groups": run.groups.signature(),
        "model": model_structure(model),
        "prunable": list(select_prunable(model, settings.prunable)),
        "schedule": settings.schedule.description(),
        "steps": settings.steps,
        "epochs": settings.epochs,
        "floor": settings.floor,
        "importance": describe_importance(settings.importance),
        "rewind_to": settings.rewind_to,
        "private_parameters": list(settings.private_parameters),
        "build_model": callable_name(run.build_model),
        "loss": callable_name(run.loss),
        "single": [model_structure(single), callable_name(run.single.loss)],
        "optimizer": describe_optimizer(*build_optimizer(settings.optimizer, leaves, {})),
        "protocol": described(protocol),
        "split": split,
        "task": task,
    }
