"""Small networks cut from the shared one, and their weights written back into it."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.channel_plan import ChannelPlan
from rtl_plugin.errors import InvalidArgument, StructureMismatch
from rtl_plugin.structure import persistent_buffers
from rtl_plugin.tickets import Ticket, TicketSet

Tensors = Mapping[str, torch.Tensor]
_MARK = "_rtl_channel_plan"  # of a small network: which entries it holds


def compact(model: nn.Module, ticket: Ticket) -> nn.Module:
    """One channel ticket as a physically smaller module of the model's class.

    Args:
        model: the shared network, left as it is.
        ticket: a channel ticket over it, made by a structured pruner or loaded from a file.

    Returns:
        A snapshot in eval mode that shares nothing with the model or the ticket: the model's
        parameters and the ticket's own state, cut to the kept channels.

    Raises:
        InvalidArgument: the ticket has no channel plan, or the model cannot be copied.
        StructureMismatch: the ticket was made for another network.

    Example:
        >>> from rtl_plugin.index_map import IndexMap
        >>> index_map = IndexMap((3, 2), (torch.tensor([0, 2]), None))
        >>> plan = ChannelPlan({"weight": index_map}, {"": {"out_features": 2}})
        >>> ticket = Ticket("a", {"weight": index_map.mask()}, channels=plan)
        >>> compact(nn.Linear(2, 3, bias=False), ticket)
        Linear(in_features=2, out_features=2, bias=False)

    Source:
        Fang et al., DepGraph: Towards Any Structural Pruning, arXiv 2301.12900 (what is cut).
    """
    plan = checked_plan(model, ticket)
    small = compact_with(model, plan, ticket.state)
    setattr(small, _MARK, plan.digest)
    return small


def compact_with(model: nn.Module, plan: ChannelPlan | None, state: Tensors) -> nn.Module:
    """Cut a copy of a network by a plan.

    Args:
        model: the shared network, left as it is.
        plan: what to cut; None cuts nothing.
        state: shared-size values that stand in for the model's own, by name.

    Returns:
        The small network, in eval mode.

    Raises:
        InvalidArgument: the model cannot be copied.

    Example:
        >>> compact_with(nn.Linear(1, 1), None, {})
        Linear(in_features=1, out_features=1, bias=True)
    """
    small = _copied(model, small_tensors(model, plan, state))
    modules = dict(small.named_modules())
    for name, values in plan.attributes.items() if plan is not None else ():
        for attribute, value in values.items():
            setattr(modules[name], attribute, value)
    for module in modules.values():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    small.eval()
    return small


def small_tensors(
    model: nn.Module, plan: ChannelPlan | None, state: Tensors
) -> dict[str, torch.Tensor]:
    """The small network's parameters and buffers by name: fresh copies, cut by the plan.

    Args:
        model: the shared network.
        plan: what to cut; None cuts nothing.
        state: shared-size values that stand in for the model's own, by name.

    Returns:
        Name -> tensor without gradient history, in the model's dtype and on its device.

    Example:
        >>> list(small_tensors(nn.Linear(1, 1), None, {}))
        ['weight', 'bias']
    """
    maps = plan.maps if plan is not None else {}
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {}
    for name, value in own.items():
        source = state.get(name, value).detach().to(device=value.device, dtype=value.dtype)
        tensors[name] = maps[name].gather(source) if name in maps else source.clone()
    return tensors


def _copied(model: nn.Module, tensors: Tensors) -> nn.Module:
    """Copy the module tree with other tensors in the places of its own."""
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        memo[id(parameter)] = nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
    for name, buffer in model.named_buffers():
        memo[id(buffer)] = tensors[name]
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise InvalidArgument(
            f"{type(model).__name__} cannot be deep-copied ({type(error).__name__}: {error}): keep "
            "only parameters, buffers and plain values as attributes"
        ) from error


def scatter_back(small: nn.Module, model: nn.Module, ticket: Ticket) -> None:
    """Write a small network's weights to the places in the shared one that they were cut from.

    Parameters that were not cut are shared by all tickets and are written whole. Normalisation
    statistics go to the ticket, whose own they are; the model's buffers stay.

    Args:
        small: from :func:`compact` with this ticket, trained further or not.
        model: the shared network; parameters outside the ticket stay bit-identical.
        ticket: the channel ticket; its state is updated.

    Raises:
        InvalidArgument: the ticket has no channel plan.
        StructureMismatch: ``small`` is not a small network of this ticket, or the ticket was made
            for another model. Nothing was written then.

    Example:
        >>> from rtl_plugin.index_map import IndexMap
        >>> index_map = IndexMap((3, 1), (torch.tensor([0, 2]), None))
        >>> plan = ChannelPlan({"weight": index_map}, {"": {"out_features": 2}})
        >>> ticket = Ticket("a", {"weight": index_map.mask()}, channels=plan)
        >>> model = nn.Linear(1, 3, bias=False)
        >>> small = compact(model, ticket)
        >>> _ = nn.init.constant_(small.weight, 7)
        >>> scatter_back(small, model, ticket)
        >>> (model.weight == 7).flatten().tolist()
        [True, False, True]
    """
    plan = checked_plan(model, ticket)
    expected = _shapes(small_tensors(model, plan, ticket.state))
    trained = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    # Tickets may well have the same widths; a network that was built by hand has no mark.
    other = getattr(small, _MARK, plan.digest) != plan.digest
    if type(small) is not type(model) or _shapes(trained) != expected or other:
        differing = sorted(set(_shapes(trained).items()) ^ set(expected.items()))
        what = f"{differing[0][0]!r} differs" if differing else f"it is a {type(small).__name__}"
        what = "it was cut by another ticket" if other else what
        raise StructureMismatch(
            f"this is not a small network of ticket {ticket.name!r} ({what}): pass what compact() "
            "made with this ticket, with its parameter names and shapes unchanged"
        )
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        write_back(plan, name, trained[name], ticket.state.get(name, parameter))
    for name, buffer in persistent_buffers(model).items():
        own = ticket.state.get(name, buffer).detach().to(buffer, copy=True)
        write_back(plan, name, trained[name], own)
        ticket.state[name] = own


def write_back(
    plan: ChannelPlan | None, name: str, small: torch.Tensor, shared: torch.Tensor
) -> None:
    """Write one small tensor into the shared one.

    Args:
        plan: of the small network; None where nothing is cut.
        name: the tensor's name.
        small: its values, of any dtype and on any device.
        shared: receives them, in place.

    Example:
        >>> shared = torch.zeros(1)
        >>> write_back(None, "w", torch.ones(1), shared); shared
        tensor([1.])
    """
    with torch.no_grad():
        if plan is not None and name in plan.maps:
            plan.maps[name].scatter(small.detach().to(shared), shared)
        else:
            shared.copy_(small)


def checked_plan(model: nn.Module, ticket: Ticket) -> ChannelPlan:
    """A ticket's channel plan, where it fits a model.

    Args:
        model: the shared network.
        ticket: a ticket.

    Returns:
        Its plan.

    Raises:
        InvalidArgument: it has none.
        StructureMismatch: it was made for another network.
    """
    if not isinstance(ticket, Ticket) or ticket.channels is None:
        named = f"ticket {ticket.name!r}" if isinstance(ticket, Ticket) else repr(ticket)
        raise InvalidArgument(
            f"{named} has no channel plan, so there is no smaller network: only tickets of a "
            "structured pruner have one; export() folds unstructured masks in"
        )
    TicketSet([ticket]).check_fits(model)
    return ticket.channels


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
