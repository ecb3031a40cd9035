"""Structured lottery tickets: Torch-Pruning's pruner, once for every data group."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from torch import nn
from torch_pruning.dependency import Group

from rtl_plugin.integration_api import (
    DataGroups,
    InvalidArgument,
    Loss,
    OptimizerFactory,
    Progress,
    RewindPoint,
    StructureMismatch,
    TicketSet,
    Where,
    bit_equal,
    callable_name,
    compact,
    derived_seed,
    device_of,
    forked,
    scatter_back,
    whole_number,
)
from rtl_torch_pruning.channel_tickets import channel_tickets, original_channels
from rtl_torch_pruning.cut import Cut
from rtl_torch_pruning.cutting import Cutter, FixAttributes
from rtl_torch_pruning.example_run import ExampleRun
from rtl_torch_pruning.group_training import (
    Train,
    TrainingSettings,
    left_alone,
    trained_group,
)
from rtl_torch_pruning.host_pruner import (
    OnVanishing,
    check_arguments,
    guarded_groups,
    host_errors,
    needs_gradients,
    squares_gradients,
)
from rtl_torch_pruning.round_report import Clock, GroupRow, RoundReport
from rtl_torch_pruning.working_network import Shape


class RTLPruner:
    """Finds one channel ticket a data group: a smaller network, cut by the dependency graph.

    A call of :meth:`step` is one round for every group: train the group's small network from the
    initial weights on the group's data, let the host's importance rank its channels, cut whole
    groups of the dependency graph, rewind. The model is left bit-identical; tickets share its
    weights and are trained together by ``rtl_plugin.retrain``.

    Args:
        model: the shared network; its weights at the first step (initial or pretrained) are
            theta_0.
        example_inputs: a tensor, a tuple of arguments, or a dict of keyword arguments.
        importance: an importance of Torch-Pruning, or any callable on its groups; one that reads
            gradients has ``needs_gradients = True`` (Taylor and Hessian are known).
        groups: the data groups.
        loss: ``loss(network, batch) -> scalar tensor``; it receives the small network itself.
        steps: optimizer steps of every (round, group); 0 ranks the weights as they are.
        optimizer: ``params -> optimizer`` or ``params -> (optimizer, lr_scheduler)``.
        train: instead of ``steps``: your own loop ``train(network, group, round)``, in place.
        iterative_steps: number of rounds.
        on_vanishing: ``"error"``, or ``"keep"`` a layer whole where cutting would empty it.
        fix_attributes: a function of the cut network that sets widths kept as plain attributes,
            where its forward relies on some that Torch-Pruning does not know of.
        seed: of every random stream, a whole number.
        progress: show one line a (round, group) when standard error is a terminal.
        host_keywords: every other keyword of ``tp.pruner.BasePruner``, with its own meaning:
            ``pruning_ratio`` (a fraction of *channels*, 0.5 by default), ``global_pruning``,
            ``isomorphic``, ``pruning_ratio_dict``, ``max_pruning_ratio``, ``round_to``,
            ``ignored_layers``, ``num_heads`` and so on.

    Raises:
        InvalidArgument: an argument is out of range, unknown, not the model's, or contradicts
            another; the network does not accept the example; outputs would be cut.
        PruningFailed: Torch-Pruning cannot trace the network.
        NothingPrunable: there is no group of channels to cut.

    Example:
        >>> import torch, torch_pruning as tp, rtl_plugin as rtl
        >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))
        >>> batch = (torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
        >>> pruner = RTLPruner(
        ...     model,
        ...     batch[0],
        ...     importance=tp.importance.GroupMagnitudeImportance(p=2),
        ...     groups=rtl.DataGroups.from_loaders({"indoor": [batch], "street": [batch]}),
        ...     loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        ...     steps=2,
        ...     optimizer=lambda params: torch.optim.SGD(params, 0.1),
        ...     pruning_ratio=0.5,
        ...     ignored_layers=[model[3]],
        ... )
        >>> pruner.step()["indoor"].widths
        {'0': (4, 8)}
        >>> pruner.compact("street")[0]
        Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))

    Source:
        Stefański, Presta, Byra, Routing the Lottery, arXiv 2601.22141, Algorithm 1; Fang et al.,
        DepGraph, arXiv 2301.12900.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        importance: Any,
        *,
        groups: DataGroups,
        loss: Loss | None = None,
        steps: int | None = None,
        optimizer: OptimizerFactory | None = None,
        train: Train | None = None,
        iterative_steps: int = 1,
        on_vanishing: OnVanishing = "error",
        fix_attributes: FixAttributes | None = None,
        seed: int = 0,
        progress: bool = True,
        **host_keywords: Any,
    ) -> None:
        check_arguments(model, groups, importance, on_vanishing, fix_attributes)
        self.model, self.groups = model, groups
        self.iterative_steps = whole_number("iterative_steps", iterative_steps, 1)
        self.current_step = 0
        self.reports: list[RoundReport] = []
        self._training = TrainingSettings(
            loss, steps, optimizer, train, needs_gradients(importance),
            squares_gradients(importance), whole_number("seed", seed, 0),
        )  # fmt: skip
        run = ExampleRun(example_inputs, device_of(model), host_keywords.pop("forward_fn", None))
        self._run, self._progress = run, Progress(progress)
        self._cutter = Cutter(
            model, run, importance, self.iterative_steps, on_vanishing, fix_attributes,
            host_keywords,
        )  # fmt: skip
        self._point: RewindPoint | None = None
        self._shapes: dict[str, Shape] = dict.fromkeys(groups, self._cutter.dense)
        self._finished: dict[str, tuple[Shape, GroupRow]] = {}
        self._tickets: TicketSet | None = None
        self._open_round = False
        self._description = {
            "kind": "RTLPruner",
            "importance": callable_name(importance),
            "ratios": [self._cutter.asked(r) for r in range(self.iterative_steps + 1)],
        }

    def step(self, interactive: bool = False) -> Any:
        """One round for every group.

        If it fails, the groups that it had finished are kept, and another call does the others.

        Args:
            interactive: return a generator of the host's groups instead, in the host's style:
                ``for group in pruner.step(interactive=True): group.prune()``. ``group.ticket`` is
                the data group's name; a group that is not pruned stays whole. The round counts
                when the generator has ended; its report is then ``pruner.reports[-1]``.

        Returns:
            The round's report.

        Raises:
            InvalidArgument: all rounds are done.
            StructureMismatch: the model's weights changed since the first step.
            PruningFailed: nothing was cut although more was asked for, a layer would vanish, or
                the cut network does not run.
            InvalidImportance: scores are not finite or not one a channel.
            InvalidLoss: the loss is not a scalar, or does not depend on the network.
            TrainingDiverged: a loss or weight is NaN or infinite.
            RewindFailed: the loss wrote to the model.
        """
        self._check_round(self.current_step + 1)
        round = self._round(look_closely=interactive)
        if interactive:
            return round
        with closing(round):  # or a traceback would hold the round open after a failure
            for group in round:
                with host_errors(f"round {self.current_step + 1}, group {group.ticket!r}"):
                    group.prune()
        return self.reports[-1]

    @property
    def tickets(self) -> TicketSet:
        """One channel ticket a group, as after the last finished round.

        Raises:
            InvalidArgument: no round is finished yet.
            PruningFailed: the schedule has not asked for a cut yet.
        """
        if not self.current_step or self._point is None:
            raise InvalidArgument("there are no tickets yet: call step() first")
        if self._tickets is None:
            rows = [row.history(r.round) for r in self.reports for row in r.rows]
            plans = {name: shape.plan for name, shape in self._shapes.items()}
            self._tickets = channel_tickets(
                self.model, self._point, plans, self._run, self._description, rows
            )
        return self._tickets

    def compact(self, name: str) -> nn.Module:
        """A group's physically smaller network, with the model's present weights.

        Args:
            name: the group.

        Returns:
            A snapshot of the model's class in eval mode.

        Raises:
            UnknownTicket: there is no such group.
            InvalidArgument: no round is finished yet.
        """
        return compact(self.model, self.tickets[name])

    def scatter_back(self, small: nn.Module, name: str) -> None:
        """Write a small network's weights to their places in the model.

        Parameters that no cut has touched are written whole; statistics go to the ticket.

        Args:
            small: from :meth:`compact` of the same group, trained further or not.
            name: the group.

        Raises:
            UnknownTicket: there is no such group.
            StructureMismatch: it is not a small network of this group; nothing is written.
        """
        scatter_back(small, self.model, self.tickets[name])

    def channels(self, name: str) -> dict[str, list[int]]:
        """Which original output channels a group's small network has.

        Args:
            name: the group.

        Returns:
            Layer name -> channel numbers, for every layer whose ``weight`` lost output channels.

        Raises:
            UnknownTicket: there is no such group.
        """
        return original_channels(self.model, self.tickets[name])

    def _round(self, look_closely: bool) -> Generator[Group, None, None]:
        number = self.current_step + 1
        self._check_round(number)
        point, self._open_round = self._theta_0(), True
        try:
            for name in self.groups:
                if name not in self._finished:
                    where = Where("RTLPruner", name, "round", number)
                    yield from self._one_group(where, point, look_closely)
        finally:
            self._open_round = False
        self._shapes = {name: shape for name, (shape, _) in self._finished.items()}
        self.reports.append(RoundReport(number, tuple(row for _, row in self._finished.values())))
        self._finished, self._tickets = {}, None
        self.current_step = number

    def _one_group(self, where: Where, point: RewindPoint, look_closely: bool) -> Iterator[Group]:
        name, number = where.group, where.number
        clock = Clock()
        before = self._shapes[name]
        seed = derived_seed(self._training.seed, "RTLPruner", number, name)
        with left_alone(self.model, self.groups, point, where), forked(seed):
            ranked = trained_group(
                self.model, point, before.plan, self.groups[name], where, self._training
            )
        clock.stop("train")
        with forked(derived_seed(self._training.seed, "rank", number, name)), host_errors(where):
            groups = self._cutter.rank(before, ranked.values, ranked.gradients, number)
        for group in guarded_groups(groups, where):
            group.ticket = name
            yield group
        shape = self._cutter.cut_shape(look_closely)
        clock.stop("rank and cut")
        self._theta_0()  # an interactive caller has had its turn
        cut = Cut.between(before, shape, self._cutter, number)
        cut.check(where)
        self._cutter.check_small(shape, where)
        clock.stop("check")
        row = cut.row(name, point.parameters, ranked, clock.seconds)
        self._finished[name] = (shape, row)
        self._progress.say(
            f"round {number}/{self.iterative_steps}, {name}: {row.achieved:.1%} of the channels "
            f"removed, {row.parameters:,} of {row.dense_parameters:,} parameters left"
        )

    def _check_round(self, number: int) -> None:
        if number > self.iterative_steps:
            raise InvalidArgument(
                f"all {self.iterative_steps} rounds are done (iterative_steps): the tickets are in "
                "pruner.tickets"
            )
        if self._open_round:
            raise InvalidArgument(
                "a round is open: finish the generator of step(interactive=True), or close() it"
            )

    def _theta_0(self) -> RewindPoint:
        """Where every round starts: the weights at the first one."""
        if self._point is None:
            self._point = RewindPoint.capture(self.model, fingerprint=False)
        start = {**self._point.parameters, **self._point.buffers}
        for name, now in (*self.model.named_parameters(), *self.model.named_buffers()):
            if not bit_equal(now.detach(), start[name]):
                raise StructureMismatch(
                    f"the model's {name!r} changed since the first round, so rounds would not "
                    "start from the same theta_0: load or train weights (and run the model in "
                    "train mode) before the first step()"
                )
        return self._point
