"""The ticket whose training samples lie nearest on average."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.routing.centroids import GroupMeans
from rtl_plugin.routing.contract import RoutingDecision
from rtl_plugin.routing.feature_space import (
    FeatureSpace,
    check_feature_space,
    features_of,
    finite_features,
)
from rtl_plugin.routing.group_keys import check_every_ticket, checked_names, labelled_batches
from rtl_plugin.routing.modules import EvalReplica
from rtl_plugin.routing.saved_fields import State, field, names_field, tensor_field
from rtl_plugin.routing.saved_modules import module_state, saved_module

_METRICS = ("euclidean", "cosine")


class NearestCentroidRouter:
    """Routes every sample to the ticket with the nearest centroid in a feature space.

    With distances d1 <= d2 to the two nearest centroids and r the typical distance of a training
    sample to its own, confidence is ``(d2 - d1) / (d2 + d1) * min(1, r / d1)``: 0 half-way between
    two tickets and far from all of them, 1 on a centroid. (With one ticket only the second factor
    is left.)

    Args:
        tickets: a ticket set, or all ticket names in its order.
        feature_space: x -> tensor [B, ...]; None takes the input itself. A module runs in eval
            mode on a replica, so its own mode stays.
        metric: ``"euclidean"``, or ``"cosine"`` for one minus the cosine.

    Raises:
        InvalidArgument: an argument is of the wrong kind.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [9.0]])
        >>> router = NearestCentroidRouter(["low", "high"]).fit(x, ["low", "low", "high"])
        >>> router.route(torch.tensor([[8.0], [2.0]])).indices
        tensor([1, 0])

    Source:
        Tibshirani et al., Diagnosis of multiple cancer types by shrunken centroids of gene
        expression, PNAS 99 (2002), without the shrinking.
    """

    def __init__(
        self,
        tickets: Iterable[str],
        feature_space: FeatureSpace = None,
        metric: str = "euclidean",
    ) -> None:
        self.tickets = checked_names(tickets)
        check_feature_space(feature_space)
        if metric not in _METRICS:
            raise InvalidArgument(f"metric must be one of {', '.join(_METRICS)}, got {metric!r}")
        self.metric = metric
        self.feature_space = feature_space
        self._space: FeatureSpace = feature_space
        if isinstance(feature_space, nn.Module):
            self._space = EvalReplica(feature_space)
        self._fitted: tuple[torch.Tensor, float] | None = None

    def fit(self, x: Any, groups: Any = None) -> "NearestCentroidRouter":
        """Take the mean of every ticket's samples, in one pass and in float64.

        Args:
            x: inputs, batch first, with ``groups``; or an iterable of batches ``(x, groups)``.
            groups: B ticket names or positions.

        Returns:
            The router itself. A second call forgets the first.

        Raises:
            InvalidArgument: features are not finite or not one row a sample.
            InvalidGroups: a ticket has no sample.
            UnknownTicket: a group is no ticket.
        """
        means: GroupMeans | None = None
        for batch, positions in labelled_batches(x, groups, self.tickets)():
            features = self._features(batch)
            means = means or GroupMeans(len(self.tickets), features.shape[1])
            means.add(features.cpu(), positions)
        seen = means.counts if means is not None else torch.zeros(len(self.tickets))
        check_every_ticket(seen, self.tickets)
        assert means is not None  # noqa: S101 - no pass without a sample gets here
        self._fitted = (means.means, means.radius(self.metric))
        return self

    def distances(self, x: Any) -> torch.Tensor:
        """The distance of every sample to every centroid.

        Args:
            x: the network's first input, batch first.

        Returns:
            Tensor [B, K] of the features' dtype, on the input's device.

        Raises:
            InvalidArgument: the router is not fitted, or the features do not fit it.
        """
        return self._distances(self._features(x), self._required()[0])

    def _distances(self, features: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        if features.shape[1] != means.shape[1]:
            raise InvalidArgument(
                f"the centroids have {means.shape[1]} features, the batch has {features.shape[1]}"
            )
        centroids = means.to(features)
        if self.metric == "euclidean":
            return torch.cdist(features, centroids, compute_mode="donot_use_mm_for_euclid_dist")
        return (1 - features @ nn.functional.normalize(centroids, dim=1).T).clamp(min=0)

    def scores(self, x: Any) -> torch.Tensor:
        """The distances, negated: what soft mixing weighs tickets by.

        Args:
            x: the network's first input, batch first.

        Returns:
            Tensor [B, K], higher is nearer.

        Raises:
            InvalidArgument: as :meth:`distances`.
        """
        return -self.distances(x)

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Choose the nearest centroid.

        Args:
            x: the network's first input, batch first.
            context: not looked at.

        Returns:
            One index and one confidence in [0, 1] a sample.

        Raises:
            InvalidArgument: as :meth:`distances`.
        """
        fitted = self._required()  # once: another thread may fit meanwhile
        return self._decided(self._features(x), fitted)

    def route_or_nan(self, x: Any, context: Any = None) -> RoutingDecision:
        """As :meth:`route`, but one bad sample does not fail the others of its batch.

        Args:
            x: the network's first input, batch first.
            context: not looked at.

        Returns:
            A decision in which samples whose features are not finite have confidence NaN.

        Raises:
            InvalidArgument: as :meth:`route`, except for NaN and infinity.
        """
        fitted = self._required()
        features, unknown = finite_features(self._space, x)
        decision = self._decided(self._scaled(features), fitted)
        assert decision.confidence is not None  # noqa: S101 - centroids always have one
        confidence = decision.confidence.masked_fill(unknown, float("nan"))
        return replace(decision, confidence=confidence)

    def _decided(
        self, features: torch.Tensor, fitted: tuple[torch.Tensor, float]
    ) -> RoutingDecision:
        means, radius = fitted
        distances = self._distances(features, means)
        nearest, order = distances.topk(min(2, distances.shape[1]), dim=1, largest=False)
        first = nearest[:, 0]
        known = torch.ones_like(first)
        if radius > 0:  # with one sample a ticket nothing is known about how far they scatter
            known = (radius / first.clamp(min=torch.finfo(first.dtype).tiny)).clamp(max=1)
        if nearest.shape[1] > 1:
            total = nearest.sum(dim=1)
            margin = (nearest[:, 1] - first) / torch.where(total > 0, total, 1)
            known = known * margin
        return RoutingDecision(indices=order[:, 0], confidence=known)

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``.

        Raises:
            InvalidArgument: the feature space is a function, which only pickle could keep.
        """
        space = self.feature_space
        if space is not None and not isinstance(space, nn.Module):
            raise InvalidArgument(
                "a feature space that is a function cannot be saved without pickle: make it an "
                "nn.Module, or save(path, router=False) and give the router again at load"
            )
        means, radius = self._fitted or (None, 0.0)
        module = None if space is None else module_state(space)
        return {
            "tickets": self.tickets,
            "metric": self.metric,
            "means": means,
            "radius": radius,
            "feature_space": module,
        }

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "NearestCentroidRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: a router whose feature space has the saved one's structure, or None.

        Returns:
            A new router; the skeleton is left as it is.

        Raises:
            DamagedFile: a field is missing or wrong.
            InvalidArgument: the saved feature space needs a skeleton.
            StructureMismatch: the skeleton's feature space is another one.
        """
        space = saved_module(state, "feature_space", getattr(skeleton, "feature_space", None))
        metric = field(state, "metric", str)
        if metric not in _METRICS:
            raise DamagedFile(f"the saved router has the unknown metric {metric[:40]!r}")
        router = cls(names_field(state, "tickets"), space, metric)
        if field(state, "means", torch.Tensor, type(None)) is not None:
            shape = (len(router.tickets), None)
            means = tensor_field(state, "means", shape, torch.float64)
            radius = field(state, "radius", float)
            if not 0 <= radius < float("inf"):
                raise DamagedFile(f"the saved router has the radius {radius}")
            router._fitted = (means, radius)
        return router

    def _features(self, x: Any) -> torch.Tensor:
        return self._scaled(features_of(self._space, x))

    def _scaled(self, features: torch.Tensor) -> torch.Tensor:
        # Cosines depend on the direction alone, and so must the means.
        return nn.functional.normalize(features, dim=1) if self.metric == "cosine" else features

    def _required(self) -> tuple[torch.Tensor, float]:
        if self._fitted is None:
            raise InvalidArgument("NearestCentroidRouter is not fitted: call fit(x, groups) first")
        return self._fitted
