"""An NNI pruner that finds one ticket a data group, from the configuration a user has."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from rtl_nni.bare_model import BareModel
from rtl_nni.config_check import ConfigCheck, checked_config
from rtl_nni.config_entries import check_schedule
from rtl_nni.data_order import DataOrder
from rtl_nni.evaluator_binding import Evaluators, bind_to_names, evaluators_by_group
from rtl_nni.host_types import Pruner
from rtl_nni.pruner_source import PrunerSource, Training
from rtl_nni.report import IdenticalTickets, Report, identical_note
from rtl_nni.rewinding import Rewinding
from rtl_nni.rounds import NniMasks, Rounds, number_of_rounds
from rtl_plugin.integration_api import (
    InvalidArgument,
    Progress,
    RewindPoint,
    SparsitySchedule,
    Ticket,
    TicketSet,
    UnknownTicket,
    device_of,
    model_structure,
    read_nni_masks,
    values_fingerprint,
    whole_number,
)


class RTLPruner(Pruner):  # type: ignore[misc]
    """Finds one ticket a data group with the configuration, pruner and evaluators of NNI.

    Every round, for every group: start from the same weights, train with the group's evaluator
    under the masks so far, let a fresh NNI pruner make sparser masks, rewind. The model comes back
    unwrapped and bit-identical, its parameters the same objects.

    Args:
        model: the network, unwrapped; its weights are what every round starts from.
        config_list: NNI's, every key with its own meaning; its ratios are reached in the last
            round. See :func:`rtl_nni.check`.
        pruner: an NNI pruner class, or ``(model, config_list, evaluator) -> pruner``, which may
            wrap one in ``LinearPruner``, ``AGPPruner`` and the like.
        evaluators: group -> NNI evaluator, or a function of a group's name together with
            ``groups``.
        groups: names, where ``evaluators`` is a function.
        schedule: the path of the ratios over rounds; None is one round. Where the configuration
            has one common ratio, the schedule must end at it.
        steps: optimizer steps of every (round, group); 0 ranks the weights as they are.
        epochs: instead of ``steps``.
        rewind_to: training steps of all groups together before the common rewind point.
        pruner_options: more keyword arguments for a pruner class.
        seed: None trains every (round, group) from the random state that :meth:`compress` is
            called in, as NNI alone would; a whole number gives each a stream of its own.
        progress: show one line a (round, group) when standard error is a terminal.

    Raises:
        InvalidArgument: an argument is out of range or contradicts another, the configuration
            holds what NNI would silently not do, or an optimizer does not hold the model's
            parameters.
        NothingPrunable: the configuration matches nothing.

    Example:
        >>> import nni, torch, rtl_plugin as rtl
        >>> from nni.compression.pruning import L1NormPruner
        >>> from rtl_nni import torch_evaluators
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
        >>> loaders = {
        ...     name: [(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))]
        ...     for name in ("indoor", "street")
        ... }
        >>> pruner = RTLPruner(
        ...     model,
        ...     [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}],
        ...     pruner=L1NormPruner,
        ...     evaluators=torch_evaluators(
        ...         model,
        ...         loaders,
        ...         training_step=lambda batch, model: nn.functional.cross_entropy(
        ...             model(batch[0]), batch[1]
        ...         ),
        ...         optimizer=lambda params: nni.trace(torch.optim.SGD)(params, lr=0.1),
        ...     ),
        ...     schedule=rtl.GeometricSchedule(0.5, rounds=2),
        ...     steps=20,
        ... )
        >>> model, masks = pruner.compress()
        >>> int(masks["indoor"]["0"]["bias"].sum()), pruner.tickets.names
        (4, ('indoor', 'street'))

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 1.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: Sequence[Mapping[str, Any]],
        pruner: Any,
        evaluators: Evaluators,
        *,
        groups: Sequence[str] | None = None,
        schedule: SparsitySchedule | None = None,
        steps: int | None = None,
        epochs: int | None = None,
        rewind_to: int = 0,
        pruner_options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        progress: bool = True,
    ) -> None:
        # Not the host's constructor: it would wrap the model, which every round does afresh.
        self.bound_model = model
        self._training = Training.checked(steps, epochs)
        self._source = PrunerSource(pruner, dict(pruner_options or {}))
        self._source.check(self._training)
        if schedule is not None and not isinstance(schedule, SparsitySchedule):
            raise InvalidArgument(
                f"schedule= takes a schedule of rtl_plugin, such as rtl.GeometricSchedule(0.5, "
                f"rounds=5), got {schedule!r}"
            )
        self._schedule = schedule
        self._plan: ConfigCheck = checked_config(config_list, model, pruner)
        check_schedule(self._plan.entries, schedule)
        device_of(model)
        self.config_list = [entry.as_config() for entry in self._plan.entries]
        self._rewind_to = whole_number("rewind_to", rewind_to, 0)
        self._seed = None if seed is None else whole_number("seed", seed, 0)
        self._evaluators = evaluators_by_group(evaluators, groups)
        bind_to_names(self._evaluators, model)
        self._progress = Progress(progress)
        self.report = Report()
        self._masks: dict[str, NniMasks] = {}
        self._tickets: TicketSet | None = None
        # What code that is handed an NNI pruner may look at.
        self.evaluator, self._is_wrapped = None, False
        self._module_wrappers: dict[str, Any] = {}
        self._target_spaces: dict[str, Any] = {}
        self.fused_compressors = [self]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return number_of_rounds(self._schedule, self._plan.prunable)

    def compress(
        self, max_steps: int | None = None, max_epochs: int | None = None
    ) -> tuple[nn.Module, dict[str, NniMasks]]:
        """Run all rounds for all groups.

        Args:
            max_steps: NNI's name for ``steps``, where the constructor was given neither.
            max_epochs: NNI's name for ``epochs``.

        Returns:
            The model, unwrapped and as it was, and group -> NNI mask dictionary.

        Raises:
            InvalidArgument: the training contradicts the pruner, or is given twice.
            PruningFailed: a weight did not move, or masks are denser than asked.
            RewindFailed: a round did not start from the rewind point.
            TrainingDiverged: a weight is NaN or infinite.

        Whatever the user's training function raises passes through; the model is then as before.
        """
        training = self._training_of(max_steps, max_epochs)
        self.report = Report()
        with BareModel(self.bound_model) as bare:
            order = DataOrder(self._evaluators, self._seed)
            rewinding = Rewinding(bare, self._evaluators, order)
            point = rewinding.to(self._rewind_to)
            rounds = Rounds(self._plan, self._schedule, self._source, training, rewinding, point)
            masks = rounds.run(self.report, self._progress)
        self._masks, self._tickets = masks, self._as_tickets(masks, point)
        for name, ticket in self._tickets.items():
            if ticket.empty_masks:
                self.report.notes.append(f"nothing kept in {name}: {', '.join(ticket.empty_masks)}")
        note = identical_note(masks, training.steps != 0)
        if note:
            self.report.notes.append(note)
            warnings.warn(note, IdenticalTickets, stacklevel=2)
        return self.bound_model, self.get_masks()

    def get_masks(self, group: str | None = None) -> Any:
        """The masks in NNI's format, as copies.

        Args:
            group: one group's; None gives all.

        Returns:
            Module name -> target name -> float tensor of zeros and ones (None where the module has
            no such parameter), or group -> such a dictionary.

        Raises:
            InvalidArgument: :meth:`compress` has not finished yet.
            UnknownTicket: there is no such group.
        """
        self._check_finished()
        if group is None:
            return {name: _copied(masks) for name, masks in self._masks.items()}
        if group not in self._masks:
            known = ", ".join(map(repr, self._masks))
            raise UnknownTicket(f"unknown group {group!r}; there are {known}")
        return _copied(self._masks[group])

    @property
    def tickets(self) -> TicketSet:
        """The tickets, over the parameters that the configuration matches.

        Their own state is the model's buffers (batch-norm statistics) at the rewind point.

        Raises:
            InvalidArgument: :meth:`compress` has not finished yet.
        """
        self._check_finished()
        assert self._tickets is not None  # noqa: S101 - made in the same breath as the masks
        return self._tickets

    def wrap_model(self) -> None:
        """Not for this pruner: it wraps the model for the length of a round only."""
        raise _not_here("wrap_model", "the model is wrapped for the length of a round only")

    def unwrap_model(self) -> None:
        """Nothing to do: the model is never left wrapped."""

    def update_masks(self, masks: Any) -> None:
        """Not for this pruner: it holds several mask dictionaries and no wrappers."""
        raise _not_here("update_masks", "make a TicketSet of masks with TicketSet.from_nni")

    def generate_masks(self) -> Any:
        """Not for this pruner: a fresh pruner makes the masks of every (round, group)."""
        raise _not_here("generate_masks", "call compress()")

    @classmethod
    def from_compressor(cls, *args: Any, **keywords: Any) -> Any:
        """Not for this pruner: it starts from a bare model."""
        raise _not_here("from_compressor", "unwrap the model, and fuse inside pruner=")

    def _training_of(self, max_steps: int | None, max_epochs: int | None) -> Training:
        if max_steps is None and max_epochs is None:
            return self._training
        if self._training != Training(None, None):
            raise InvalidArgument(
                "the training's length was given to the constructor (steps=, epochs=) and again to "
                "compress(): give it once"
            )
        return Training.checked(max_steps, max_epochs)

    def _as_tickets(self, masks: dict[str, NniMasks], point: RewindPoint) -> TicketSet:
        model = self.bound_model
        tickets = [
            Ticket(group, read_nni_masks(group, own, model), point.ticket_state())
            for group, own in masks.items()
        ]
        schedule = None if self._schedule is None else self._schedule.description()
        return TicketSet(
            tickets,
            structure=model_structure(model),
            theta_0=values_fingerprint(dict(model.named_parameters())),
            schedule={
                "kind": "rtl_nni",
                "pruner": self._source.name,
                "path": schedule,
                "rewind_to": self._rewind_to,
            },
            history=[row.history() for row in self.report.rows],
            rewind_state=point.state() if self._rewind_to else None,
        )

    def _check_finished(self) -> None:
        if self._tickets is None:
            raise InvalidArgument("there are no masks yet: compress() has not finished")


def _copied(masks: NniMasks) -> NniMasks:
    return {
        module: {t: None if mask is None else mask.clone() for t, mask in targets.items()}
        for module, targets in masks.items()
    }


def _not_here(method: str, remedy: str) -> InvalidArgument:
    return InvalidArgument(f"rtl_nni.RTLPruner has no {method}(): {remedy}")
