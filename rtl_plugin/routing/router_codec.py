"""Routers as JSON and tensors, without pickle."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.routing.classifier import ClassifierRouter
from rtl_plugin.routing.confidence import ConfidenceRouter
from rtl_plugin.routing.confidence_threshold import ConfidenceThreshold
from rtl_plugin.routing.epsilon_greedy import EpsilonGreedyRouter
from rtl_plugin.routing.known_group import KnownGroupRouter
from rtl_plugin.routing.nearest_centroid import NearestCentroidRouter
from rtl_plugin.routing.one_vs_rest import OneVsRestRouter
from rtl_plugin.routing.online import OnlineRouter
from rtl_plugin.routing.saved_fields import field
from rtl_plugin.routing.stochastic_ensemble import StochasticEnsembleRouter
from rtl_plugin.routing.thompson_sampling import ThompsonSamplingRouter
from rtl_plugin.routing.top_n import TopNRouter
from rtl_plugin.state_codec import decode_state, encode_state

_WRAPPERS: tuple[type[Any], ...] = (ConfidenceThreshold, TopNRouter)
_ROUTERS: tuple[type[Any], ...] = (
    KnownGroupRouter,
    NearestCentroidRouter,
    ClassifierRouter,
    ConfidenceRouter,
    OneVsRestRouter,
    StochasticEnsembleRouter,
    OnlineRouter,
    EpsilonGreedyRouter,
    ThompsonSamplingRouter,
    *_WRAPPERS,
)
_REMEDY = "save(path, router=False) leaves the router out; give it again at load"


def encode_router(router: Any, tensors: dict[str, torch.Tensor], prefix: str) -> str:
    """Turn a router into JSON text, moving tensors out.

    Args:
        router: one of ours.
        tensors: receives ``prefix + number`` -> tensor.
        prefix: of the tensors' keys.

    Returns:
        JSON text for :func:`decode_router`.

    Raises:
        InvalidArgument: it is not one of ours, or holds what only pickle could keep.

    Example:
        >>> encode_router(OneVsRestRouter(), {}, "t.")
        '{"dict": [["kind", "OneVsRestRouter"], ["fields", {"dict": []}]]}'
    """
    return json.dumps(encode_state(_described(router), tensors, prefix))


def decode_router(text: str, tensors: Mapping[str, torch.Tensor], skeleton: Any = None) -> Any:
    """Undo :func:`encode_router`.

    Args:
        text: its result.
        tensors: the tensors that it moved out.
        skeleton: a router of the same kind whose modules are copied and given the saved weights,
            or None; needed only where the saved router has a module.

    Returns:
        A new router that makes the same decisions.

    Raises:
        DamagedFile: the text or the tensors are not such a router.
        InvalidArgument: the skeleton is of another kind, or missing where it is needed.
        StructureMismatch: a module of the skeleton is of another structure.

    Example:
        >>> router = KnownGroupRouter(["indoor", "street"], {7: "street"})
        >>> decode_router(encode_router(router, {}, ""), {}).route(torch.zeros(1, 1), 7).indices
        tensor([1])
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        raise DamagedFile(f"the saved router is not JSON: {error}") from error
    try:
        described = decode_state(parsed, tensors)
        named: dict[str, torch.Tensor] = {}
        encode_state(described, named, "")
        if not isinstance(described, dict) or len(named) != len(tensors):
            raise DamagedFile("it is no object, or has tensors that it does not name")
        return _built(described, skeleton)
    except (DamagedFile, RecursionError) as error:
        raise DamagedFile(f"the saved router cannot be read: {error}") from error


def _described(router: Any) -> dict[str, Any]:
    # Not isinstance: a subclass may decide otherwise, and would come back as its parent.
    if type(router) not in _ROUTERS:
        raise InvalidArgument(
            f"{type(router).__name__} is not one of rtl-plugin's own routers, so a file without "
            f"pickle cannot hold it: {_REMEDY}"
        )
    described = {"kind": type(router).__name__, "fields": router.saved_state()}
    if isinstance(router, _WRAPPERS):
        described["inner"] = _described(router.router)
    return described


def _built(described: Mapping[Any, Any], skeleton: Any) -> Any:
    name, fields = field(described, "kind", str), field(described, "fields", dict)
    kind = {own.__name__: own for own in _ROUTERS}.get(name)
    if kind is None:
        raise DamagedFile(
            f"the saved router is of the unknown kind {name[:60]!r}: this release does not have it"
        )
    if skeleton is not None and type(skeleton) is not kind:
        raise InvalidArgument(
            f"the file holds a {name}, router= is a {type(skeleton).__name__}: give one of the "
            "same kind to take its modules from, None, or router=False to leave the saved one out"
        )
    if kind not in _WRAPPERS:
        return kind.from_saved(fields, skeleton)
    inner = _built(field(described, "inner", dict), getattr(skeleton, "router", None))
    return kind.from_saved(fields, inner)
