"""The router in a mixture file: what is kept, old files, and hostile ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rtl_plugin import Ticket, TicketSet, ticket_file
from rtl_plugin.errors import DamagedFile, InvalidArgument, RtlError, StructureMismatch
from rtl_plugin.mixture.mixture_file import load_mixture, save_mixture
from rtl_plugin.routing import (
    ClassifierRouter,
    ConfidenceThreshold,
    KnownGroupRouter,
    NearestCentroidRouter,
    OneVsRestRouter,
    OnlineRouter,
    Outcome,
    RoutingDecision,
    StochasticEnsembleRouter,
    TopNRouter,
)
from rtl_plugin.routing.router_codec import decode_router, encode_router
from tests.routing.router_cases import NAMES, centroids

TICKETS = TicketSet([Ticket(name, {"weight": torch.ones(2, 4).bool()}) for name in NAMES])


def model() -> nn.Module:
    return nn.Linear(4, 2)


def loaded(path: Path, router: Any = None) -> Any:
    return load_mixture(path, model(), router)[2]


def test_a_file_without_a_router_is_what_it_always_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = model()
    save_mixture(tmp_path / "m", own, TICKETS)
    content = ticket_file.load(tmp_path / "m", kind="mixture")
    assert list(content.weights) == ["weight", "bias"]
    assert loaded(tmp_path / "m") is None
    given = OneVsRestRouter()
    assert loaded(tmp_path / "m", given) is given
    assert loaded(tmp_path / "m", False) is None


def test_the_same_router_gives_the_same_bytes(tmp_path: Path) -> None:
    own = model()
    for name in "ab":
        save_mixture(tmp_path / name, own, TICKETS, centroids())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_known_groups_keep_every_kind_of_key(tmp_path: Path) -> None:
    mapping = {"Küche": "indoor", 7: "street", 2.5: "field", None: "indoor", True: "street"}
    save_mixture(tmp_path / "m", model(), TICKETS, KnownGroupRouter(NAMES, mapping))
    router = loaded(tmp_path / "m")
    indices = router.route(torch.zeros(5, 1), ["Küche", 7, 2.5, None, True]).indices
    assert indices.tolist() == [0, 1, 2, 0, 1]


def test_what_learns_goes_on_where_it_stood(tmp_path: Path) -> None:
    router = OnlineRouter(NAMES, 1.0, 0.5, discount=0.9, precision=3.0, seed=3)
    for arm in (0, 1, 1):
        router.observe(RoutingDecision(torch.tensor([arm])), Outcome(0.5, 0.9))
    save_mixture(tmp_path / "m", model(), TICKETS, router)
    again = loaded(tmp_path / "m")
    assert torch.equal(again.counts(), router.counts())
    assert (again.discount, again.precision, again.targets) == (0.9, 3.0, router.targets)


class Mine:
    def route(self, x: Any, context: Any = None) -> Any:
        raise AssertionError("not asked")


class Derived(OneVsRestRouter):
    pass


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Mine(), "Mine is not one of rtl-plugin's own routers, .*: save.path, router=False"),
        (Derived(), "Derived is not one of rtl-plugin's own routers"),
        (ConfidenceThreshold(Mine(), 0.5), "Mine is not one of rtl-plugin's own"),
        (
            NearestCentroidRouter(NAMES, lambda x: x),
            "feature space that is a function cannot be saved without pickle: make it an nn.Mod",
        ),
        (KnownGroupRouter(NAMES, {(1, 2): "field"}), r"context key \(1, 2\) is a tuple, which a"),
    ],
)
def test_what_cannot_be_saved(router: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"kept")
    with pytest.raises(InvalidArgument, match=message):
        save_mixture(tmp_path / "m", model(), TICKETS, router)
    assert (tmp_path / "m").read_bytes() == b"kept"


class Remembers(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"plain": 1}

    def set_extra_state(self, state: Any) -> None:
        raise AssertionError("not asked")


def test_a_module_with_other_state_than_tensors(tmp_path: Path) -> None:
    router = ClassifierRouter(Remembers(4, 3), NAMES)
    with pytest.raises(InvalidArgument, match="Remembers keeps '_extra_state', a dict, in its"):
        save_mixture(tmp_path / "m", model(), TICKETS, router)


@pytest.mark.parametrize(
    ("skeleton", "message"),
    [
        (nn.Linear(5, 3), r"'weight' with shape \(3, 5\), the saved one has \(3, 4\)"),
        (nn.Linear(4, 3, bias=False), r"'bias' with shape None, the saved one has \(3,\)"),
        (nn.Sequential(nn.Linear(4, 3)), r"'0.bias' with shape \(3,\), the saved one has None"),
    ],
)
def test_a_skeleton_of_another_structure(skeleton: nn.Module, message: str, tmp_path: Path) -> None:
    save_mixture(tmp_path / "m", model(), TICKETS, ClassifierRouter(nn.Linear(4, 3), NAMES))
    with pytest.raises(StructureMismatch, match=rf"m: the classifier of the given .*{message}"):
        loaded(tmp_path / "m", ClassifierRouter(skeleton, NAMES))


def test_a_failed_load_leaves_model_and_skeleton(tmp_path: Path) -> None:
    save_mixture(tmp_path / "m", model(), TICKETS, ClassifierRouter(nn.Linear(4, 3), NAMES))
    target, skeleton = model(), ClassifierRouter(nn.Linear(4, 3), NAMES)
    kept = [p.clone() for p in [*target.parameters(), *skeleton.classifier.parameters()]]
    load_mixture(tmp_path / "m", target, skeleton)
    with pytest.raises(InvalidArgument):
        load_mixture(tmp_path / "m", target, OneVsRestRouter())
    now = [*target.parameters(), *skeleton.classifier.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))


def test_damage_anywhere_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_mixture(path, model(), TICKETS, centroids())
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (80,), generator=generator).tolist():
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(bytes(flipped))
        with pytest.raises(DamagedFile):
            loaded(path)


def hostile(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """A file whose signature is right and whose router is not."""
    save_mixture(path, model(), TICKETS, centroids())
    content = ticket_file.load(path, kind="mixture")
    weights = dict(content.weights)
    change(weights)
    ticket_file.save(path, replace(content, weights=weights), kind="mixture")


def as_bytes(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


HOSTILE: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "no text": lambda w: w.update({".router": as_bytes(b"\xff\xfe\x00")}),
    "no bytes": lambda w: w.update({".router": torch.zeros(3)}),
    "no row": lambda w: w.update({".router": w[".router"].unsqueeze(0)}),
    "no json": lambda w: w.update({".router": as_bytes(b"{")}),
    "no object": lambda w: w.update({".router": as_bytes(b'["x"]')}),
    "a number": lambda w: w.update({".router": as_bytes(b"7")}),
    "deep": lambda w: w.update({".router": as_bytes(b"[" * 100_000)}),
    "long number": lambda w: w.update({".router": as_bytes(b"9" * 5000)}),
    "no router": lambda w: w.pop(".router"),
    "a stranger": lambda w: w.update({".routers": torch.zeros(1)}),
    "too many": lambda w: w.update({".router.9": torch.zeros(1)}),
    "too few": lambda w: w.pop(".router.0"),
    "another shape": lambda w: w.update({".router.0": torch.zeros(2, 4).double()}),
    "another dtype": lambda w: w.update({".router.0": torch.zeros(3, 4)}),
    "not finite": lambda w: w[".router.0"].fill_(float("nan")),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_router_is_damage(
    change: Callable[[dict[str, torch.Tensor]], Any], tmp_path: Path
) -> None:
    hostile(tmp_path / "m", change)
    with pytest.raises(DamagedFile, match="m: "):
        loaded(tmp_path / "m")


MADE: list[Any] = [
    KnownGroupRouter(NAMES),
    centroids(),
    OnlineRouter(NAMES, 1.0, 0.5, seed=0),
    StochasticEnsembleRouter(NAMES, 2, seed=0),
    TopNRouter(NearestCentroidRouter(NAMES), 2),
    ConfidenceThreshold(OneVsRestRouter(), 0.5),
]
WRONG: list[Any] = [None, True, -1, 10**30, 1e999, "x", [], {"list": [1]}, {"tensor": ".router.0"}]
WRONG += [{"dict": []}, {"tuple": ["a", "a", "a"]}, {"dict": [[{"list": []}, 1]]}, {"dict": 3}]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = [path] if path else []
    for key, part in items if isinstance(node, (dict, list)) else ():
        found += places(part, (*path, key)) if isinstance(part, (dict, list)) else [(*path, key)]
    return found


@pytest.mark.parametrize("router", MADE, ids=lambda r: type(r).__name__)
def test_no_wrong_value_anywhere_is_more_than_an_error_of_ours(router: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = encode_router(router, tensors, ".router.")
    refused = asked = tried = 0
    for place in places(json.loads(text)):
        for wrong in WRONG:
            changed = json.loads(text)
            node = changed
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = wrong
            tried += 1
            try:
                decode_router(json.dumps(changed), tensors)
            except DamagedFile:
                refused += 1
            except InvalidArgument:  # an empty state dict is one of a module: a skeleton is asked
                asked += 1
    assert refused > 0.8 * tried
    assert asked <= 1


def test_an_unknown_kind_names_it() -> None:
    text = encode_router(OneVsRestRouter(), {}, "").replace("OneVsRest", "Quantum")
    with pytest.raises(DamagedFile, match="unknown kind 'QuantumRouter': this release does not"):
        decode_router(text, {})
    assert issubclass(DamagedFile, RtlError)


def test_negative_counts_are_damage() -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = encode_router(OnlineRouter(NAMES, 1.0, 0.5, seed=0), tensors, "")
    key = next(name for name, value in tensors.items() if value.dtype == torch.float64)
    tensors[key] = tensors[key] - 1
    with pytest.raises(DamagedFile, match="negative counts"):
        decode_router(text, tensors)
