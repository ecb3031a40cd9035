"""Which optimizers can be isolated, and the state they start from.

A ticket's update is isolated by restoring everything outside its mask. That is right only when
the optimizer works element by element: what it does to a weight depends on that weight, its
gradient and its own state alone. The rules are found by trying the optimizer on small copies, so
they hold for optimizers that nobody has listed.
"""

from collections import defaultdict
from typing import Any

import torch

from rtl_plugin.errors import UnsupportedOptimizer
from rtl_plugin.randomness import forked

State = dict[str, Any]


class _FirstValues(dict[str, Any]):
    """A parameter's state that remembers the first value ever assigned to each key."""

    def __init__(self) -> None:
        super().__init__()
        self.first: State = {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.first.setdefault(key, _copied(value))
        super().__setitem__(key, value)

    # The built-in ones would go past __setitem__.
    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **entries: Any) -> None:
        for key, value in dict(*others, **entries).items():
            self[key] = value


class _States(dict[Any, _FirstValues]):
    """An optimizer's state whose entries are :class:`_FirstValues`, also where it assigns dicts."""

    def __missing__(self, key: Any) -> _FirstValues:
        self[key] = {}
        return self[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        entries = _FirstValues()
        entries.update(value)
        super().__setitem__(key, entries)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _twin(optimizer: torch.optim.Optimizer, groups: list[list[torch.Tensor]]) -> Any:
    """The same optimizer with the same settings over other parameters, without hooks."""
    twin = object.__new__(type(optimizer))
    # Instance attributes are kept for optimizers that have some, except a scheduler's patched step.
    twin.__dict__.update({k: v for k, v in optimizer.__dict__.items() if k != "step"})
    for key in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        twin.__dict__[key] = type(optimizer.__dict__[key])()
    twin.param_groups = [
        {**original, "params": parameters}
        for original, parameters in zip(optimizer.param_groups, groups, strict=True)
    ]
    for group in twin.param_groups:
        if isinstance(group.get("lr"), torch.Tensor):
            group["lr"] = group["lr"].clone()
    twin.state = defaultdict(dict)
    return twin


def initial_state(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor]) -> list[State]:
    """The state each parameter has before its first step.

    Args:
        optimizer: fresh, not stepped yet.
        parameters: some of its parameters.

    Returns:
        One dict a parameter: element-wise tensors of the parameter's shape and single values.

    Raises:
        UnsupportedOptimizer: the optimizer cannot step on ordinary dense gradients, or keeps
            state of another shape.
    """
    if optimizer.state:  # filled when it was built, as Adagrad's is
        states = [dict(optimizer.state[parameter]) for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            _check_shapes(optimizer, parameter, state)
        return states
    wanted = {id(parameter) for parameter in parameters}
    chosen = [[p for p in g["params"] if id(p) in wanted] for g in optimizer.param_groups]
    copies = [[_zero_leaf(p) for p in group] for group in chosen]
    twin = _twin(optimizer, copies)
    twin.state = _States()
    _step(twin, optimizer)
    found: dict[int, State] = {}
    for group, group_copies in zip(chosen, copies, strict=True):
        for parameter, copy in zip(group, group_copies, strict=True):
            state = dict(twin.state[copy].first)
            _check_shapes(optimizer, parameter, state)
            found[id(parameter)] = state
    return [found[id(parameter)] for parameter in parameters]


def _zero_leaf(parameter: torch.Tensor) -> torch.Tensor:
    leaf = torch.zeros_like(parameter, requires_grad=True)
    leaf.grad = torch.zeros_like(parameter)
    return leaf


def _step(twin: Any, optimizer: torch.optim.Optimizer) -> None:
    try:
        # The class's own step: no scheduler's patch, no hooks, no profiler. An optimizer that adds
        # noise gets the same noise in every trial, and none of the caller's.
        with forked(0):
            type(optimizer).step(twin)
    except Exception as error:
        raise UnsupportedOptimizer(
            f"{type(optimizer).__name__} cannot be isolated: a plain step() on dense gradients "
            f"failed with {type(error).__name__}: {error}. Use an element-wise optimizer such as "
            "SGD, Adam or AdamW"
        ) from error


def is_elementwise(value: Any, parameter: torch.Tensor) -> bool:
    """Whether a state entry has one value per weight.

    Args:
        value: the entry.
        parameter: the parameter it belongs to.

    Returns:
        True for a tensor of the parameter's shape.

    Example:
        >>> is_elementwise(torch.tensor(1.0), torch.zeros(2))
        False
    """
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


def placed(value: Any, like: Any) -> Any:
    """A loaded value on the device of the one that it replaces.

    Args:
        value: a tensor or anything else.
        like: a tensor, or anything else to leave the value where it is.

    Returns:
        The value.

    Example:
        >>> placed(torch.ones(()), torch.zeros(2)).device.type, placed(3, None)
        ('cpu', 3)
    """
    both = isinstance(value, torch.Tensor) and isinstance(like, torch.Tensor)
    return value.to(like.device) if both else value


def _check_shapes(optimizer: torch.optim.Optimizer, parameter: torch.Tensor, state: State) -> None:
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            continue
        if isinstance(value, torch.Tensor) and not is_elementwise(value, parameter):
            raise UnsupportedOptimizer(
                f"{type(optimizer).__name__} keeps {key!r} of shape {tuple(value.shape)} for a "
                f"parameter of shape {tuple(parameter.shape)}: it is not element-wise, so a "
                "ticket's update cannot be isolated. Use SGD, Adam, AdamW or the like"
            )


def check_elementwise(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer whose update of one weight depends on others.

    Tried on small parameters of the same number of dimensions and dtype: two steps from the
    recorded initial state, with gradients that differ in half of the entries. The other half must
    come out bit-identical, the first step from the recorded state must be an ordinary one, and
    nothing may be counted where tickets cannot have a count each.

    Args:
        optimizer: fresh, not stepped yet.

    Raises:
        UnsupportedOptimizer: naming the optimizer and what it does.
    """
    name = type(optimizer).__name__
    shapes = [
        sorted({(p.dim(), p.dtype, p.device) for p in group["params"]}, key=str)
        for group in optimizer.param_groups
    ]
    plain = _trial(optimizer, shapes, shift=0.0, preset=False)
    shifted = _trial(optimizer, shapes, shift=1.0, preset=False)
    preset = _trial(optimizer, shapes, shift=0.0, preset=True)
    for one, other, started in zip(plain, shifted, preset, strict=True):
        if not torch.equal(one.flatten()[::2], other.flatten()[::2]):
            raise UnsupportedOptimizer(
                f"{name} updates a weight by other weights' gradients (it is not element-wise), "
                "so a ticket's update cannot be isolated. Use SGD, Adam, AdamW or the like"
            )
        if not torch.equal(one, started):
            raise UnsupportedOptimizer(
                f"{name} with these settings treats its first step apart from its state (SGD with "
                "dampening does), so tickets that start later would train differently than alone. "
                "Set dampening=0, or use another optimizer"
            )


def _trial(
    optimizer: torch.optim.Optimizer, shapes: list[list[Any]], shift: float, preset: bool
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    groups: list[list[torch.Tensor]] = []
    for kinds in shapes:
        drawn = [torch.randn((4,) * dim, generator=generator) for dim, _, _ in kinds]
        groups.append(
            [
                value.to(dtype=dtype, device=device).requires_grad_()
                for value, (_, dtype, device) in zip(drawn, kinds, strict=True)
            ]
        )
    twin = _twin(optimizer, groups)
    leaves = [leaf for group in groups for leaf in group]
    if optimizer.state:  # filled when it was built, as Adagrad's is
        twin = _rebuilt(optimizer, groups)
    elif preset:
        for leaf, state in zip(leaves, initial_state(twin, leaves), strict=True):
            twin.state[leaf] = state
    settings = _settings(twin)
    for _ in range(2):
        for leaf in leaves:
            gradient = torch.randn(leaf.shape, generator=generator).to(leaf)
            gradient.flatten()[1::2] += shift
            leaf.grad = gradient
        _step(twin, optimizer)
    changed = sorted(key for key, value in _settings(twin).items() if settings.get(key) != value)
    if changed:
        raise UnsupportedOptimizer(
            f"{type(optimizer).__name__} changes {changed[0]} with every step, which all tickets "
            "would share, so they would not train as each would alone. Use one that keeps its "
            "state with the parameters, such as SGD, Adam or AdamW"
        )
    return [leaf.detach() for leaf in leaves]


def _settings(optimizer: Any) -> dict[str, str]:
    """Everything that an optimizer keeps outside its parameters' own state, as text."""
    found = {
        f"{key!r} of parameter group {number}": repr(value)
        for number, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key != "params"
    }
    found |= {
        f"its attribute {key!r}": repr(value)
        for key, value in vars(optimizer).items()
        if isinstance(value, (int, float, torch.Tensor)) and key not in _TORCHS_OWN
    }
    others = [key for key in optimizer.state if not isinstance(key, torch.Tensor)]
    return found | {f"its state {key!r}": repr(optimizer.state[key]) for key in others}


# torch's schedulers and its capture check keep these on the optimizer; no update reads them.
_TORCHS_OWN = {"_opt_called", "_step_count", "_warned_capturable_if_run_uncaptured"}


def _rebuilt(optimizer: torch.optim.Optimizer, groups: list[list[torch.Tensor]]) -> Any:
    twin = _twin(optimizer, groups)
    for original, group in zip(optimizer.param_groups, groups, strict=True):
        for leaf in group:
            pattern = next(p for p in original["params"] if p.dim() == leaf.dim())
            twin.state[leaf] = {
                key: torch.full_like(leaf, value.flatten()[0].item())
                if is_elementwise(value, pattern)
                else _copied(value)
                for key, value in optimizer.state[pattern].items()
            }
    return twin
