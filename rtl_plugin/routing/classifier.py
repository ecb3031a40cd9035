"""Any classifier of the input as a router."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from rtl_plugin.errors import InvalidArgument
from rtl_plugin.optimizers import OptimizerFactory
from rtl_plugin.routing.classifier_training import TrainingPlan, train_classifier
from rtl_plugin.routing.contract import RoutingDecision, batch_size
from rtl_plugin.routing.estimators import (
    class_columns,
    estimator_scores,
    fitted_copy,
    is_estimator,
)
from rtl_plugin.routing.group_keys import checked_names, labelled_batches
from rtl_plugin.routing.modules import EvalReplica, detached_copy
from rtl_plugin.routing.saved_fields import State, names_field
from rtl_plugin.routing.saved_modules import module_state, saved_module


class ClassifierRouter:
    """Routes every sample to the ticket of the class that a classifier finds likeliest.

    The classifier is the user's and stays as it is: a module runs in eval mode on a replica that
    shares its tensors, and :meth:`fit` trains a copy, which is then ``router.classifier``.

    Confidence is the largest probability: of a module the softmax of its logits; of an estimator
    ``predict_proba``, else the softmax of ``decision_function`` (uncalibrated), else there is none.

    Args:
        classifier: an ``nn.Module`` with logits [B, K], column k for ticket k; or a scikit-learn
            estimator with ``predict_proba``, ``decision_function`` or ``predict``, which is given
            the input's first tensor as an array [B, D].
        tickets: a ticket set, or all ticket names in its order.
        classes: for an estimator that was fitted elsewhere: its class -> ticket name. Without it
            its classes must be the ticket names, or the positions 0..K-1.

    Raises:
        InvalidArgument: it is no classifier, or a fitted estimator's classes are not the tickets.

    Example:
        >>> layer = nn.Linear(1, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
        >>> router = ClassifierRouter(layer, ["positive", "negative"])
        >>> router.route(torch.tensor([[3.0], [-3.0]])).indices
        tensor([0, 1])

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141: a context classifier.
    """

    def __init__(
        self,
        classifier: Any,
        tickets: Iterable[str],
        classes: Mapping[Hashable, str] | None = None,
    ) -> None:
        self.tickets = checked_names(tickets)
        if not isinstance(classifier, nn.Module) and not is_estimator(classifier):
            raise InvalidArgument(
                "a classifier is an nn.Module or a scikit-learn estimator with predict_proba, "
                f"decision_function or predict, got {type(classifier).__name__}"
            )
        if isinstance(classifier, nn.Module) and classes is not None:
            raise InvalidArgument(
                "classes= is for estimators: the columns of a module's logits are the tickets in "
                "their order"
            )
        self._set(classifier, None if classes is None else dict(classes))

    def fit(
        self,
        x: Any,
        groups: Any = None,
        optimizer: OptimizerFactory | None = None,
        epochs: int = 10,
        seed: int = 0,
    ) -> "ClassifierRouter":
        """Train a copy of the classifier to tell the tickets' samples apart.

        A module: cross-entropy in train mode, ``epochs`` passes in batches of 64 in a new order
        every time (or the iterable's own batches), one optimizer step a batch. An estimator: its
        own ``fit`` on all samples, classes being the positions 0..K-1; the other arguments do not
        concern it.

        Args:
            x: inputs, batch first, with ``groups``; or an iterable of batches ``(x, groups)``,
                which can be iterated again for every epoch.
            groups: B ticket names or positions.
            optimizer: for a module: parameters -> optimizer.
            epochs: passes over the samples, at least 1.
            seed: of the order and of the module's own randomness; the caller's streams stay.

        Returns:
            The router itself.

        Raises:
            InvalidArgument: a module without ``optimizer``, or input or logits that do not fit.
            InvalidGroups: a ticket has no sample.
            UnknownTicket: a group is no ticket.
            TrainingDiverged: the loss became NaN or infinite.
        """
        if not isinstance(self.classifier, nn.Module):
            if optimizer is not None:
                raise InvalidArgument("an estimator trains by its own fit: leave optimizer= out")
            batches = labelled_batches(x, groups, self.tickets)
            self._set(fitted_copy(self.classifier, batches(), self.tickets))
            return self
        if optimizer is None:
            raise InvalidArgument(
                "a module needs an optimizer: fit(x, groups, optimizer=lambda params: "
                "torch.optim.Adam(params, 1e-3))"
            )
        plan = TrainingPlan(optimizer, epochs, seed)
        batches = labelled_batches(x, groups, self.tickets, rows=64)
        if groups is None and iter(x) is x and plan.epochs > 1:
            raise InvalidArgument(
                f"a one-shot iterator cannot be passed over {plan.epochs} times: give a DataLoader "
                "or a list of batches, or epochs=1"
            )
        with torch.inference_mode(False):  # else the copy could not be trained
            trained = detached_copy(self.classifier)
            train_classifier(trained, batches, self.tickets, plan)
        self._set(trained)
        return self

    def scores(self, x: Any) -> torch.Tensor:
        """What the classifier thinks of every ticket.

        Args:
            x: the network's first input, batch first.

        Returns:
            Floating tensor [B, K]: log-probabilities, of an estimator without probabilities its
            ``decision_function``.

        Raises:
            InvalidArgument: the classifier is not fitted, gives no scores, or ones that do not fit.
        """
        made = self._scored(x)
        if not made[1]:
            raise InvalidArgument(
                f"{type(self.classifier).__name__} only predicts classes and scores none: use an "
                "estimator with predict_proba or decision_function"
            )
        return made[0]

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Choose the likeliest class.

        Args:
            x: the network's first input, batch first.
            context: not looked at.

        Returns:
            One index a sample, and a confidence in [0, 1] where the classifier scores classes.

        Raises:
            InvalidArgument: the classifier is not fitted, or its answers do not fit.
        """
        return _likeliest(*self._scored(x))

    def route_or_nan(self, x: Any, context: Any = None) -> RoutingDecision:
        """As :meth:`route`, but one bad sample does not fail the others of its batch.

        Args:
            x: the network's first input, batch first.
            context: not looked at.

        Returns:
            A decision in which samples that the classifier cannot score have confidence NaN.

        Raises:
            InvalidArgument: as :meth:`route`, except for NaN and infinity.
        """
        return _likeliest(*self._scored(x, strict=False))

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``.

        Raises:
            InvalidArgument: the classifier is an estimator, which only pickle could keep.
        """
        if not isinstance(self.classifier, nn.Module):
            raise InvalidArgument(
                f"{type(self.classifier).__name__}, a scikit-learn estimator, cannot be saved "
                "without pickle: save(path, router=False), keep the estimator as its library "
                "advises, and give the router again at load"
            )
        return {"tickets": self.tickets, "classifier": module_state(self.classifier)}

    @classmethod
    def from_saved(cls, state: Mapping[Any, Any], skeleton: Any) -> "ClassifierRouter":
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: a router whose classifier has the saved one's structure.

        Returns:
            A new router; the skeleton is left as it is.

        Raises:
            DamagedFile: a field is missing or wrong.
            InvalidArgument: there is no skeleton.
            StructureMismatch: the skeleton's classifier is another one.
        """
        names = names_field(state, "tickets")
        own = getattr(skeleton, "classifier", None)
        return cls(saved_module(state, "classifier", own), names)

    def _set(self, classifier: Any, classes: dict[Hashable, str] | None = None) -> None:
        runner: Callable[[Any], Any] | None = None
        if isinstance(classifier, nn.Module):
            runner = EvalReplica(classifier)
        elif hasattr(classifier, "classes_"):
            class_columns(classifier, self.tickets, classes)  # refuses other classes at once
        # One assignment: a thread that routes meanwhile sees the old classifier or the new one.
        self._held = (classifier, runner, classes)

    @property
    def classifier(self) -> Any:
        """The user's classifier, or after :meth:`fit` the trained copy."""
        return self._held[0]

    @property
    def classes(self) -> dict[Hashable, str] | None:
        """An estimator's class -> ticket name, as given; None after :meth:`fit`."""
        return self._held[2]

    def _scored(self, x: Any, strict: bool = True) -> tuple[torch.Tensor, bool]:
        """Values [B, K] whose largest is the class, and whether they are scores."""
        classifier, runner, classes = self._held
        size, count = batch_size(x), len(self.tickets)
        if runner is None:
            if not hasattr(classifier, "classes_"):
                raise InvalidArgument(
                    f"{type(classifier).__name__} is not fitted (it has no classes_): call "
                    "fit(x, groups) first, or give a fitted classifier"
                )
            # Now, not at construction: the user may have fitted the estimator since.
            columns = class_columns(classifier, self.tickets, classes)
            return estimator_scores(classifier, x, columns, strict)
        logits = runner(x)
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if came != (size, count) or not logits.is_floating_point():
            raise InvalidArgument(
                f"{type(classifier).__name__} must give floating logits {(size, count)} for "
                f"{count} tickets, got {came}"
            )
        if strict and torch.isnan(logits).any():
            raise InvalidArgument(f"{type(classifier).__name__} gave logits with NaN")
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return wide.log_softmax(dim=1), True


def _likeliest(scores: torch.Tensor, are_scores: bool) -> RoutingDecision:
    confidence = scores.softmax(dim=1).amax(dim=1) if are_scores else None
    return RoutingDecision(indices=scores.argmax(dim=1), confidence=confidence)
