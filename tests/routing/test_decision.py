"""Confidence and fallback of a decision, and how a mixture takes them apart."""

from typing import Any

import pytest
import torch

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.routing import (
    ConfidenceRouter,
    ConfidenceThreshold,
    KnownGroupRouter,
    RoutingDecision,
)
from rtl_plugin.routing.fallback import check_fallback, fallback_to_ticket, split_fallback
from rtl_plugin.routing.outputs import select_outputs, stack_outputs

INDICES = torch.tensor([2, 0, 1, 1])
UNKNOWN = torch.tensor([False, True, False, True])
WEIGHTS = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])


def test_confidence_and_fallback_are_off_by_default() -> None:
    decision = RoutingDecision(indices=INDICES)
    assert decision.confidence is None
    assert decision.fallback is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"confidence": torch.ones(3)}, r"confidence must be a floating tensor \[4\], got torch"),
        ({"confidence": torch.ones(4, 1)}, r"confidence must .* got torch.float32 \(4, 1\)"),
        ({"confidence": torch.ones(4).long()}, "confidence must .* got torch.int64"),
        ({"confidence": [1.0] * 4}, "confidence must .* got list"),
        ({"fallback": torch.ones(3).bool()}, r"fallback must be a bool tensor \[4\], got torch"),
        ({"fallback": torch.ones(4)}, "fallback must .* got torch.float32"),
        ({"fallback": torch.ones(4, 1).bool()}, r"fallback must .* got torch.bool \(4, 1\)"),
        ({"fallback": [True] * 4}, "fallback must .* got list"),
    ],
)
def test_they_are_checked(given: dict[str, Any], message: str) -> None:
    for chosen in ({"indices": INDICES}, {"weights": WEIGHTS}):
        with pytest.raises(InvalidArgument, match=message):
            RoutingDecision(**chosen, **given)


def test_a_split_by_indices() -> None:
    confidence = torch.tensor([0.1, 0.2, 0.3, 0.4])
    split = split_fallback(RoutingDecision(INDICES, None, confidence, UNKNOWN), "dense")
    assert split.known_rows.tolist() == [0, 2]
    assert split.fallback_rows.tolist() == [1, 3]
    assert split.known.indices is not None
    assert split.known.indices.tolist() == [2, 1]
    assert split.known.confidence is not None
    assert torch.equal(split.known.confidence, confidence[[0, 2]])
    assert split.known.fallback is None


def test_a_split_by_weights() -> None:
    split = split_fallback(RoutingDecision(weights=WEIGHTS, fallback=UNKNOWN), "dense")
    assert split.known.weights is not None
    assert torch.equal(split.known.weights, WEIGHTS[[0, 2]])
    assert split.known.indices is None


@pytest.mark.parametrize("unknown", [None, torch.zeros(4).bool()])
def test_all_known(unknown: Any) -> None:
    split = split_fallback(RoutingDecision(INDICES, fallback=unknown), "dense")
    assert torch.equal(split.known.indices, INDICES)  # type: ignore[arg-type]
    assert split.fallback_rows.tolist() == []


def test_all_unknown_and_none_at_all() -> None:
    split = split_fallback(RoutingDecision(INDICES, fallback=torch.ones(4).bool()), "dense")
    assert split.known.batch_size == 0
    assert split.fallback_rows.tolist() == [0, 1, 2, 3]
    empty = RoutingDecision(INDICES[:0], fallback=UNKNOWN[:0])
    assert split_fallback(empty, "dense").known.batch_size == 0


def test_a_fallback_without_a_target_is_an_error_whatever_its_values() -> None:
    check_fallback(RoutingDecision(INDICES), None)
    split_fallback(RoutingDecision(INDICES), None)
    for unknown in (UNKNOWN, torch.zeros(4).bool()):
        decision = RoutingDecision(INDICES, fallback=unknown)
        for ask in (check_fallback, split_fallback):
            with pytest.raises(InvalidArgument, match="give it fallback= with a ticket's name"):
                ask(decision, None)
        check_fallback(decision, "dense")


def test_a_fallback_that_is_a_ticket() -> None:
    served = fallback_to_ticket(RoutingDecision(INDICES, fallback=UNKNOWN), 2)
    assert served.indices is not None
    assert served.indices.tolist() == [2, 2, 1, 2]
    assert served.fallback is None
    weighed = fallback_to_ticket(RoutingDecision(weights=WEIGHTS, fallback=UNKNOWN), 0)
    assert weighed.weights is not None
    assert weighed.weights.tolist() == [[0.5, 0.5], [1, 0], [0.25, 0.75], [1, 0]]
    assert weighed.fallback is None
    off = RoutingDecision(INDICES)
    assert fallback_to_ticket(off, 0) is off
    with pytest.raises(InvalidArgument, match=r"fallback ticket 2 is not in 0\.\.1"):
        fallback_to_ticket(RoutingDecision(weights=WEIGHTS, fallback=UNKNOWN), 2)


class Sure:
    """Its confidence is the input's first column, its fallback the second."""

    def route(self, x: torch.Tensor, context: Any = None) -> RoutingDecision:
        marked = x[:, 1] > 0 if x.shape[1] > 1 else None
        return RoutingDecision(torch.zeros(len(x)).long(), None, x[:, 0], marked)


def test_a_threshold_keeps_what_is_at_it_and_drops_nan() -> None:
    x = torch.tensor([[0.5], [0.499], [0.6], [float("nan")]])
    fallback = ConfidenceThreshold(Sure(), 0.5).route(x).fallback
    assert fallback is not None
    assert fallback.tolist() == [False, True, False, True]


def test_marks_of_the_inner_router_stay() -> None:
    x = torch.tensor([[0.9, 1.0], [0.9, 0.0], [0.1, 0.0]])
    fallback = ConfidenceThreshold(Sure(), 0.5).route(x).fallback
    assert fallback is not None
    assert fallback.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("quantile", "threshold", "share"),
    [
        (0.0, 0.00, 0.0),
        (0.01, 0.01, 0.01),
        (0.1, 0.10, 0.1),
        (0.999, 0.99, 0.99),
        (1.0, 0.99, 0.99),
    ],
)
def test_the_threshold_leaves_the_asked_share_below(
    quantile: float, threshold: float, share: float
) -> None:
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    x = (torch.arange(100)[order] / 100).unsqueeze(1)
    router = ConfidenceThreshold(Sure()).fit(x, quantile)
    assert router.threshold == pytest.approx(threshold)
    fallback = router.route(x).fallback
    assert fallback is not None
    assert float(fallback.double().mean()) == pytest.approx(share)


def test_a_threshold_on_outputs_is_fitted_on_outputs() -> None:
    outputs = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))
    router = ConfidenceThreshold(ConfidenceRouter()).fit(outputs, 0.2)
    fallback = router.decide(outputs).fallback
    assert fallback is not None
    assert int(fallback.sum()) == 10


def test_what_a_threshold_refuses() -> None:
    with pytest.raises(InvalidArgument, match=r"takes a router, int has no route\(\)"):
        ConfidenceThreshold(3)
    for wrong in (float("nan"), float("inf"), "high", True):
        with pytest.raises(InvalidArgument, match="threshold must be a number"):
            ConfidenceThreshold(Sure(), wrong)  # type: ignore[arg-type]
    for wrong in (-0.1, 1.1):
        with pytest.raises(InvalidArgument, match="quantile must be a number of at least 0 and at"):
            ConfidenceThreshold(Sure()).fit(torch.ones(1, 1), wrong)
    with pytest.raises(InvalidArgument, match="needs finite confidences of known samples, got 0"):
        ConfidenceThreshold(Sure()).fit(torch.ones(0, 1))
    with pytest.raises(InvalidArgument, match="got 2 of which 1 are not finite"):
        ConfidenceThreshold(Sure()).fit(torch.tensor([[1.0], [float("nan")]]))
    known = ConfidenceThreshold(KnownGroupRouter(["a"]), 0.5)
    with pytest.raises(InvalidArgument, match="KnownGroupRouter gives no confidence"):
        known.route(torch.ones(1, 1), "a")


def test_outputs_are_stacked() -> None:
    a, b = torch.zeros(4, 3), torch.ones(4, 3)
    stacked = stack_outputs([a, b])
    assert stacked.shape == (4, 2, 3)
    assert torch.equal(stacked[:, 1], b)
    assert stack_outputs([a[:, 0], b[:, 0]]).shape == (4, 2, 1)
    assert stack_outputs([torch.zeros(4, 3, 5)] * 2).shape == (4, 2, 3, 5)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "there are no outputs"),
        ([{"logits": torch.zeros(1, 2)}], r"one tensor \[B, ...\] a ticket, the network gave a d"),
        ([torch.zeros(1, 2), torch.zeros(1, 3)], r"of one shape .* got \[\(1, 2\), \(1, 3\)\]"),
        ([torch.tensor(0.0)], r"of one shape from all tickets, got \[\(\)\]"),
    ],
)
def test_outputs_that_cannot_be_stacked(outputs: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        stack_outputs(outputs)


def test_outputs_are_selected_row_by_row_whatever_the_others_hold() -> None:
    values = torch.arange(24.0).reshape(2, 4, 3)
    values[0, 1] = float("nan")
    outputs = [{"y": v, "more": (v[:, 0].long(), "text")} for v in values]
    chosen = torch.tensor([0, 1, 1, 0], dtype=torch.int32)
    selected = select_outputs(outputs, chosen)
    expected = torch.stack([values[0, 0], values[1, 1], values[1, 2], values[0, 3]])
    assert torch.equal(selected["y"], expected)
    assert selected["more"][0].dtype == torch.long
    assert torch.equal(selected["more"][0], expected[:, 0].long())
    assert selected["more"][1] == "text"
    assert select_outputs([torch.zeros(0, 3)] * 2, chosen[:0]).shape == (0, 3)


def test_outputs_that_cannot_be_selected_from() -> None:
    index = torch.tensor([0, 1])
    with pytest.raises(InvalidArgument, match=r"of shape \(3,\) has no row for each of 2 samples"):
        select_outputs([torch.zeros(3)] * 2, index)
    with pytest.raises(InvalidArgument, match=r"of shape \(\) has no row"):
        select_outputs([torch.tensor(0.0)] * 2, index)
    with pytest.raises(InvalidArgument, match=r"different structure .* \[\(2,\)\] and \[\(2, 1"):
        select_outputs([torch.zeros(2), torch.zeros(2, 1)], index)
