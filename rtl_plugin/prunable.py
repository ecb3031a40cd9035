"""Which parameters may be masked, and why not the others."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tabulate import tabulate
from torch import nn
from torch.nn.modules.conv import _ConvNd

from rtl_plugin.errors import InvalidArgument, NothingPrunable

Rule: TypeAlias = Callable[[str, nn.Parameter, nn.Module], bool]
Prunable: TypeAlias = type[nn.Module] | str | Rule | Sequence[type[nn.Module] | str] | None


@dataclass(frozen=True)
class Verdict:
    """What happens to one parameter and why.

    Args:
        name: the parameter's name in the user's model.
        shape: the parameter's shape.
        prunable: True when tickets mask it, False when it stays dense.
        reason: one clause.

    Example:
        >>> Verdict("fc.weight", (10, 64), False, "last linear layer").prunable
        False
    """

    name: str
    shape: tuple[int, ...]
    prunable: bool
    reason: str


@dataclass(frozen=True)
class _Use:
    name: str
    module: nn.Module
    local_name: str


@dataclass(frozen=True)
class _Candidate:
    parameter: nn.Parameter
    uses: tuple[_Use, ...]  # more than one where it is tied

    @property
    def name(self) -> str:
        return self.uses[0].name


def _candidates(model: nn.Module) -> Iterator[_Candidate]:
    uses: dict[int, list[_Use]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        module_name, _, local_name = name.rpartition(".")
        use = _Use(name, model.get_submodule(module_name), local_name)
        uses.setdefault(id(parameter), []).append(use)
    for parameter in model.parameters():
        yield _Candidate(parameter, tuple(uses[id(parameter)]))


def _default_judge(model: nn.Module) -> Callable[[_Candidate], tuple[bool, str]]:
    last = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)

    def judge_use(use: _Use) -> tuple[bool, str]:
        kind = type(use.module).__name__
        if not isinstance(use.module, (_ConvNd, nn.Linear)):
            return False, f"{kind} stays dense by default"
        if use.local_name != "weight":
            return False, f"{use.local_name} of {kind} stays dense by default"
        if use.module is last:
            return False, "last linear layer (the classifier) stays dense by default"
        return True, f"weight of {kind}"

    def judge(candidate: _Candidate) -> tuple[bool, str]:
        judged = [judge_use(use) for use in candidate.uses]
        return next((verdict for verdict in judged if not verdict[0]), judged[0])

    return judge


def _listed_judge(
    entries: Sequence[type[nn.Module] | str],
) -> Callable[[_Candidate], tuple[bool, str]]:
    def judge(candidate: _Candidate) -> tuple[bool, str]:
        for entry in entries:
            if isinstance(entry, str):
                if any(fnmatch.fnmatchcase(use.name, entry) for use in candidate.uses):
                    return True, f"matches {entry!r}"
            elif candidate.parameter.dim() >= 2:
                use = next((use for use in candidate.uses if isinstance(use.module, entry)), None)
                if use is not None:
                    return True, f"{use.local_name} of {entry.__name__}"
        return False, "not matched by prunable="

    return judge


def _rule_judge(rule: Rule) -> Callable[[_Candidate], tuple[bool, str]]:
    def judge(candidate: _Candidate) -> tuple[bool, str]:
        chosen = rule(candidate.name, candidate.parameter, candidate.uses[0].module)
        return bool(chosen), f"prunable= returned {bool(chosen)}"

    return judge


def _entries(prunable: Prunable) -> list[type[nn.Module] | str] | None:
    if isinstance(prunable, (str, type, nn.Module)):
        prunable = [prunable]  # type: ignore[list-item]
    if isinstance(prunable, Iterable):
        entries = list(prunable)
        for entry in entries:
            is_module_type = isinstance(entry, type) and issubclass(entry, nn.Module)
            if not (isinstance(entry, str) or is_module_type):
                raise InvalidArgument(
                    f"prunable= takes nn.Module types and name patterns, got {entry!r}: pass for "
                    "example [nn.Conv2d, 'encoder.*.weight'], a callable, or None for the default"
                )
        return entries
    return None


def _check_every_entry_matches(
    candidates: list[_Candidate], entries: list[type[nn.Module] | str]
) -> None:
    for entry in entries:
        judge = _listed_judge([entry])
        if not any(judge(candidate)[0] for candidate in candidates):
            shown = repr(entry) if isinstance(entry, str) else entry.__name__
            names = ", ".join(candidate.name for candidate in candidates[:8])
            raise NothingPrunable(
                f"prunable={shown} matches no parameter; the model has {names}"
                f"{', ...' if len(candidates) > 8 else ''}: see rtl_plugin.explain(model)"
            )


def _unmaskable(parameter: nn.Parameter) -> str | None:
    if not parameter.requires_grad:
        return "frozen (requires_grad=False)"
    if not parameter.is_floating_point():
        return f"not floating point ({parameter.dtype})"
    return None


def verdicts(model: nn.Module, prunable: Prunable = None) -> list[Verdict]:
    """Judge every parameter of a model.

    Args:
        model: the network.
        prunable: module types, name patterns (``fnmatch``), a list of both, a callable
            ``(name, parameter, module) -> bool``, or None: the weights of convolution and linear
            layers except the last linear layer. A module type selects its parameters of two or
            more dimensions; a pattern may select any. A tied parameter is selected by any of its
            uses, and by the default only if every use is such a weight.

    Returns:
        One verdict a parameter, in the model's order; tied parameters once, under the first name.

    Raises:
        InvalidArgument: an entry is neither a module type nor a string, or the model is lazy.
        NothingPrunable: an entry matches no parameter.

    Example:
        >>> [v.prunable for v in verdicts(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))]
        [True, False, False, False]
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model must be a torch.nn.Module, got {type(model).__name__}")
    candidates = list(_candidates(model))
    for candidate in candidates:
        if nn.parameter.is_lazy(candidate.parameter):
            raise InvalidArgument(
                f"{candidate.name!r} has no shape yet (lazy module): run one forward pass first"
            )
    entries = _entries(prunable)
    if entries is not None:
        _check_every_entry_matches(candidates, entries)
        judge = _listed_judge(entries)
    elif callable(prunable):
        judge = _rule_judge(prunable)  # type: ignore[arg-type]
    elif prunable is None:
        judge = _default_judge(model)
    else:
        raise InvalidArgument(f"prunable= takes types, patterns or a callable, got {prunable!r}")
    return [_verdict(candidate, *judge(candidate)) for candidate in candidates]


def _verdict(candidate: _Candidate, chosen: bool, reason: str) -> Verdict:
    obstacle = _unmaskable(candidate.parameter) if chosen else None
    if obstacle is not None:
        chosen, reason = False, obstacle
    if len(candidate.uses) > 1:
        reason += f"; tied with {', '.join(use.name for use in candidate.uses[1:])}"
    return Verdict(candidate.name, tuple(candidate.parameter.shape), chosen, reason)


def select_prunable(model: nn.Module, prunable: Prunable = None) -> dict[str, nn.Parameter]:
    """The parameters that tickets may mask.

    Args:
        model: the network.
        prunable: as in :func:`verdicts`.

    Returns:
        Parameter name -> parameter, in the model's order.

    Raises:
        NothingPrunable: no parameter is left, with the commonest reasons.

    Example:
        >>> list(select_prunable(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))))
        ['0.weight']
    """
    judged = verdicts(model, prunable)
    chosen = {verdict.name for verdict in judged if verdict.prunable}
    if not chosen:
        reasons = sorted({verdict.reason for verdict in judged})[:4]
        raise NothingPrunable(
            f"no parameter of {type(model).__name__} may be pruned: "
            f"{'; '.join(reasons) if reasons else 'it has no parameters'}. "
            "Name layers with prunable=[...], or unfreeze them"
        )
    return {name: p for name, p in model.named_parameters() if name in chosen}


class Explanation(list[Verdict]):
    """The verdicts of a model; ``str()`` of it is a table with the totals.

    Example:
        >>> print(Explanation([Verdict("w", (2, 3), True, "weight of Linear")]))
        parameter    shape    verdict    why
        -----------  -------  ---------  ----------------
        w            2x3      prunable   weight of Linear
        <BLANKLINE>
        6 of 6 parameters are prunable
    """

    def __str__(self) -> str:
        rows = [
            (v.name, "x".join(map(str, v.shape)) or "scalar", _yes(v.prunable), v.reason)
            for v in self
        ]
        prunable = sum(_numel(v.shape) for v in self if v.prunable)
        total = sum(_numel(v.shape) for v in self)
        headers = ("parameter", "shape", "verdict", "why")
        table = tabulate(rows, headers=headers, disable_numparse=True)
        return f"{table}\n\n{prunable:,} of {total:,} parameters are prunable"


def _yes(prunable: bool) -> str:
    return "prunable" if prunable else "dense"


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def explain(model: nn.Module, prunable: Prunable = None) -> Explanation:
    """Print, before any training, every parameter with its verdict and the reason.

    Args:
        model: the network.
        prunable: as in :func:`verdicts`.

    Returns:
        The printed table, as a list of :class:`Verdict`.

    Raises:
        NothingPrunable: an entry of ``prunable`` matches nothing, or no parameter is prunable
            (the table is printed first).

    Example:
        >>> table = explain(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
        parameter    shape    verdict    why
        -----------  -------  ---------  ---------------------------------------------------------
        0.weight     2x2      prunable   weight of Linear
        0.bias       2        dense      bias of Linear stays dense by default
        1.weight     1x2      dense      last linear layer (the classifier) stays dense by default
        1.bias       1        dense      bias of Linear stays dense by default
        <BLANKLINE>
        4 of 9 parameters are prunable
    """
    explanation = Explanation(verdicts(model, prunable))
    print(explanation)  # noqa: T201 - printing is what this function is for
    select_prunable(model, prunable)
    return explanation
