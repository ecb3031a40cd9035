"""Routers that learn from what became of their decisions: what they have in common."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from rtl_plugin.errors import DamagedFile, InvalidArgument
from rtl_plugin.nested import tensors_in
from rtl_plugin.routing.contract import RoutingDecision, batch_size
from rtl_plugin.routing.generators import OwnGenerator
from rtl_plugin.routing.group_keys import checked_names
from rtl_plugin.routing.number_arguments import finite, number
from rtl_plugin.routing.saved_fields import State, field, names_field, tensor_field

Self = TypeVar("Self", bound="FeedbackRouter")
# What can become of a request; the columns of every router's counts.
BOTH, QUALITY_ONLY, LATENCY_ONLY, NEITHER = range(4)
_MOST = 1e15  # more than anyone observes; above, adding one is lost in float64, and sums overflow


@dataclass(frozen=True)
class Outcome:
    """What a request cost and what it was worth.

    Args:
        latency_s: seconds, not negative.
        quality: higher is better, on the scale of the router's ``quality_target``.

    Raises:
        InvalidArgument: a number is negative or not finite.

    Example:
        >>> Outcome(latency_s=0.02, quality=0.9).quality
        0.9
    """

    latency_s: float
    quality: float

    def __post_init__(self) -> None:
        for name, value in (("latency_s", self.latency_s), ("quality", self.quality)):
            plain = finite(value)
            if plain is None:
                raise InvalidArgument(
                    f"{name} of an outcome must be a finite number, got {value!r}"
                )
            object.__setattr__(self, name, plain)
        if self.latency_s < 0:
            raise InvalidArgument(f"latency_s of an outcome is negative: {self.latency_s}")


@dataclass(frozen=True)
class Targets:
    """What a good request is.

    Args:
        latency_s: a good one takes no longer, in seconds.
        quality: a good one is no worse.

    Raises:
        InvalidArgument: a number is not finite, or the latency is not positive.

    Example:
        >>> Targets(latency_s=0.05, quality=0.9).kind(Outcome(0.04, 0.8)) == LATENCY_ONLY
        True
    """

    latency_s: float
    quality: float

    def __post_init__(self) -> None:
        # Floats from the start: a target in float32 would be another one after save and load.
        latency_s = number("latency_target", self.latency_s, 1e-12)
        object.__setattr__(self, "latency_s", latency_s)
        object.__setattr__(self, "quality", number("quality_target", self.quality, -1e300))

    def kind(self, outcome: Outcome) -> int:
        """Which targets an outcome meets.

        Args:
            outcome: of a request.

        Returns:
            ``BOTH``, ``QUALITY_ONLY``, ``LATENCY_ONLY`` or ``NEITHER``.
        """
        in_time = outcome.latency_s <= self.latency_s
        if outcome.quality >= self.quality:
            return BOTH if in_time else QUALITY_ONLY
        return LATENCY_ONLY if in_time else NEITHER


class FeedbackRouter(ABC):
    """Sends every request to one ticket (an arm) and learns which ones meet the targets.

    A request is one call of ``route``: all its rows go to one ticket. ``observe`` tells what
    became of it, in any order and from any thread; a request without ``observe`` teaches nothing.

    After every observation all earlier ones count ``discount`` times as much as before, so
    the memory is ``1 / (1 - discount)`` observations long and a device that changes is noticed.

    Args:
        tickets: a ticket set, or all ticket names in its order: the arms.
        latency_target: seconds; an outcome that takes no longer meets it.
        quality_target: an outcome that is no worse meets it.
        discount: in (0, 1]; 1 never forgets.
        seed: for reproducible choices given the same outcomes, or None.

    Raises:
        InvalidArgument: an argument is out of range.
    """

    def __init__(
        self,
        tickets: Iterable[str],
        latency_target: float,
        quality_target: float,
        discount: float,
        seed: int | None,
    ) -> None:
        self.tickets = checked_names(tickets)
        self.targets = Targets(latency_target, quality_target)
        self.discount = number("discount", discount, 1e-6, 1)
        self._counts = torch.zeros(len(self.tickets), 4, dtype=torch.float64)
        self._lock = threading.Lock()
        self._generator = OwnGenerator(seed)

    @abstractmethod
    def preferences(self, counts: torch.Tensor) -> torch.Tensor:
        """How much every arm is to be chosen now.

        Args:
            counts: float64 tensor [K, 4], discounted numbers of observations a kind of outcome.

        Returns:
            float64 tensor [K]; the largest is chosen, one of them at random where several are.
        """

    def counts(self) -> torch.Tensor:
        """What was observed so far, discounted.

        Returns:
            float64 tensor [K, 4]: both targets met, only quality, only latency, neither.
        """
        with self._lock:
            return self._counts.clone()

    def route(self, x: Any, context: Any = None) -> RoutingDecision:
        """Choose one ticket for the whole request.

        Args:
            x: the network's first input; only its batch size and device count.
            context: not looked at.

        Returns:
            One index a sample, all alike.

        Raises:
            InvalidArgument: there is no batch dimension.
        """
        size = batch_size(x)
        wanted = self.preferences(self.counts())
        best = (wanted == wanted.max()).nonzero().flatten()
        arm = best[int(self._generator.uniform(1) * len(best))]
        device = next(tensors_in(x)).device
        return RoutingDecision(indices=arm.expand(size).contiguous().to(device))

    def observe(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Learn from one request.

        Args:
            decision: what ``route`` answered.
            outcome: what became of it.

        Raises:
            InvalidArgument: the decision is not one of this router's for a batch of at least one
                sample, or the outcome is none.
        """
        arm = self._arm(decision)
        if not isinstance(outcome, Outcome):
            raise InvalidArgument(
                f"observe takes an Outcome(latency_s, quality), got a {type(outcome).__name__}"
            )
        with self._lock:
            # Not in place: a router made under inference_mode could not be changed outside it.
            counts = self._counts * self.discount
            counts[arm, self.targets.kind(outcome)] += 1
            self._counts = counts

    def saved_state(self) -> State:
        """Everything a file needs, see ``router_codec``: it goes on where it stood."""
        return {
            "tickets": self.tickets,
            "latency_target": self.targets.latency_s,
            "quality_target": self.targets.quality,
            "options": self._options(),
            "counts": self.counts(),
            "generator": self._generator.state(),
        }

    @classmethod
    def from_saved(cls: type[Self], state: Mapping[Any, Any], skeleton: Any) -> Self:
        """Undo :meth:`saved_state`.

        Args:
            state: the decoded fields.
            skeleton: not needed.

        Returns:
            A new router.

        Raises:
            DamagedFile: a field is missing or wrong.
        """
        targets = [field(state, name, float) for name in ("latency_target", "quality_target")]
        options = field(state, "options", dict)
        try:
            router = cls(names_field(state, "tickets"), *targets, **options)
        except (InvalidArgument, TypeError) as error:
            raise DamagedFile(f"the saved router is wrong: {error}") from error
        counts = tensor_field(state, "counts", (len(router.tickets), 4), torch.float64)
        if (counts < 0).any():
            raise DamagedFile("the saved router has negative counts")
        if (counts > _MOST).any():
            raise DamagedFile(f"the saved router has counts over {_MOST:.0e}")
        router._counts = counts.clone()
        router._generator.restore(field(state, "generator", torch.Tensor))
        return router

    def __getstate__(self) -> dict[str, Any]:
        # A lock can be neither copied nor pickled, and counts must not change while they are.
        return {**self.__dict__, "_lock": None, "_counts": self.counts()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _options(self) -> dict[str, float]:
        return {"discount": self.discount}

    def _arm(self, decision: RoutingDecision) -> int:
        indices = decision.indices if isinstance(decision, RoutingDecision) else None
        if indices is None or not len(indices) or indices.unique().numel() > 1:
            raise InvalidArgument(
                "observe takes the decision that route gave for the request: one ticket for at "
                "least one sample"
            )
        arm = int(indices[0])
        if not 0 <= arm < len(self.tickets):
            raise InvalidArgument(
                f"the decision names ticket {arm}, the arms are 0..{len(self.tickets) - 1}"
            )
        return arm
