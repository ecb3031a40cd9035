"""Taking finished rounds over from other runs' folders, where they are those we would train."""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rtl_plugin.checkpoint import read_file, write_atomically
from rtl_plugin.discovery.donor_log import Donor, Place, run_times
from rtl_plugin.discovery.identity import keyed, run_identity
from rtl_plugin.discovery.plan import DiscoveryPlan
from rtl_plugin.discovery.rewinding import RewindPoint
from rtl_plugin.discovery.warm_start import WarmStart
from rtl_plugin.errors import DamagedFile, RtlError
from rtl_plugin.run_folder import RunFolder, first_difference
from rtl_plugin.tickets import TicketSet

# How the rounds go on and how they end: no reason to train the same first rounds twice.
_OF_LATER_ROUNDS = ("schedule", "closing_round", "kept")
MOST_NAMED = 8  # in a message


class Donors:
    """The other runs of a search, asked at every round for what they have finished by then.

    Args:
        plan: the checked discovery.
        folder: its own; files that are there stay as they are.
        others: folders of the other runs.
        ours: arguments and identity of this run, as JSON gives them back.
    """

    def __init__(
        self,
        plan: DiscoveryPlan,
        folder: RunFolder,
        others: Sequence[RunFolder],
        ours: Mapping[str, Any],
    ) -> None:
        self._plan, self._folder, self._others, self._ours = plan, folder, others, ours
        self._told: set[tuple[Path, str]] = set()
        # What a killed run took over is still taken over; what it then trained is not.
        times = run_times(folder).items()
        self._saved = {place: time.seconds for place, time in times if time.reused}

    def take_rewind_point(self, start: RewindPoint) -> None:
        """Copy the rewind point of the first run that has ours.

        Args:
            start: the model as it is given.
        """
        if self._folder.rewind_point.exists():
            return
        self._saved.pop(Place(0, None), None)  # logged by a run that was killed before it wrote
        state = {**start.parameters, **start.buffers}
        for donor in self._agreeing(0):
            content = self._rewind_point(donor, state)
            if content is not None:
                self._note(donor, Place(0, None))
                write_atomically(self._folder.rewind_point, content)
                return

    def take_round(self, round: int, groups: Sequence[str]) -> None:
        """Copy the files of a round that others have and that we lack.

        Args:
            round: counted from 1.
            groups: those that are to run it.
        """
        places = [Place(round, group) for group in groups]
        lacking = [place for place in places if not self._path(self._folder, place).exists()]
        donors = list(self._agreeing(round)) if lacking else []
        # Two schedules may ask for the same count in other digits.
        asked = self._plan.schedule.sparsity(round, self._plan.prunable)
        expected = {"round": round, "kept": self._plan.kept[round - 1]}
        for place in lacking:
            for donor, found in self._holding(donors, place, expected):
                row = found.history[0] | {"asked": asked}
                self._note(donor, place)
                taken = TicketSet(list(found.values()), history=[row])
                taken.save(self._path(self._folder, place))
                break

    def measured(
        self, round: int, group: str, trained_at: float
    ) -> tuple[float, float | None] | None:
        """What another run saw when it trained under the masks that are our last.

        Args:
            round: of our closing round.
            group: the group's name.
            trained_at: sparsity of its masks.

        Returns:
            Mean training loss and metric, or None where nobody has trained so.
        """
        place = Place(round, group)
        expected = {"round": round, "trained_at": trained_at}
        for donor, found in self._holding(self._agreeing(len(self._plan.kept)), place, expected):
            self._note(donor, place)
            return found.history[0]["loss"], found.history[0]["metric"]
        return None

    def saved(self, round: int, done: Collection[str]) -> tuple[tuple[str, ...], float]:
        """What was taken over in a round, by this call or by one that it resumes.

        Args:
            round: counted from 1.
            done: groups whose results of the round were there without training.

        Returns:
            Those taken over, and the seconds that training them took elsewhere (as far as logged;
            in round 1 with the late rewind point).
        """
        places = [Place(round, group) for group in done]
        taken = [place for place in places if place in self._saved]
        before = [Place(0, None)] if round == 1 else []
        seconds = math.fsum(self._saved.get(place, 0.0) for place in (*before, *taken))
        return tuple(place.group for place in taken if place.group is not None), seconds

    def _agreeing(self, rounds: int) -> Iterator[Donor]:
        """The runs whose first rounds are ours."""
        ours = _decisive(self._ours)
        for folder in self._others:
            theirs = self._described(folder)
            if theirs is None:
                continue
            difference = first_difference(_decisive(theirs), ours)
            if difference is not None:
                name, before, now = difference
                self._tell(folder, f"it has {name}={before!r}, this run {now!r}")
                continue
            kept = theirs.get("kept")
            if isinstance(kept, list) and kept[:rounds] == self._ours["kept"][:rounds]:
                yield Donor(folder)

    def _described(self, folder: RunFolder) -> Mapping[str, Any] | None:
        """What a run was called with; None where it has not begun, or not with warm_start."""
        try:
            if not (folder.arguments.exists() and folder.identity.exists()):
                return None
            return {**folder.read_json(folder.arguments), **folder.read_json(folder.identity)}
        except (RtlError, OSError) as error:
            self._tell(folder, str(error))
            return None

    def _holding(
        self, donors: Iterable[Donor], place: Place, expected: Mapping[str, Any]
    ) -> Iterator[tuple[Donor, TicketSet]]:
        """Those donors that hold a sound file of a result, with its content."""
        for donor in donors:
            path = self._path(donor.folder, place)
            try:
                if not path.exists():
                    continue
                found = TicketSet.load(path)
                found.check_fits(self._plan.model)
                _check_round(found, {**expected, "group": place.group}, self._plan.masked)
            except (RtlError, OSError) as error:
                self._tell(donor.folder, f"{path}: {error}")
                continue
            yield donor, found

    def _rewind_point(self, donor: Donor, state: Mapping[str, torch.Tensor]) -> bytes | None:
        path = donor.folder.rewind_point
        try:
            if not path.exists():
                return None
            header, tensors = read_file(path, "rewind point")
            content = path.read_bytes()
        except (RtlError, OSError) as error:
            self._tell(donor.folder, str(error))
            return None
        held = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        expected = {str(k): tuple(tensor.shape) for k, tensor in enumerate(state.values())}
        if header.get("names") != list(state) or held != expected:
            self._tell(donor.folder, f"{path} holds other tensors than this network")
            return None
        return content

    def _note(self, donor: Donor, place: Place) -> None:
        """Log what is about to be taken, so that no file of others is without its origin."""
        seconds = donor.times[place].seconds if place in donor.times else 0.0
        self._saved[place] = seconds
        fields = {"round": place.round, "group": place.group, "seconds": seconds}
        self._folder.log("reused", **fields, folder=str(donor.folder.root))

    def _tell(self, donor: RunFolder, reason: str) -> None:
        """Log once why a run is passed over: no trial should fail for another's files."""
        if (donor.root, reason) not in self._told:
            self._told.add((donor.root, reason))
            self._folder.log("passed_over", folder=str(donor.root), reason=reason)

    def _path(self, folder: RunFolder, place: Place) -> Path:
        groups: Sequence[str | None] = list(self._plan.groups)
        return folder.round_ticket(place.round, groups.index(place.group))


def check_key(folder: RunFolder, warm_start: WarmStart) -> None:
    """Refuse a folder that was made with another key, also where nothing is left to do.

    Args:
        folder: this run's.
        warm_start: of this call.

    Raises:
        RunFolderMismatch: it was.
    """
    if folder.identity.exists():
        made = folder.read_json(folder.identity)
        given = keyed(warm_start.key)
        folder.check_same({name: made.get(name) for name in given}, given)


def open_donors(
    plan: DiscoveryPlan, start: RewindPoint, folder: RunFolder, warm_start: WarmStart
) -> Donors:
    """Describe this run for the others, and find out which of them may lend to it.

    Args:
        plan: the checked discovery.
        start: the model as it is given.
        folder: this run's, with its arguments.
        warm_start: the other runs.

    Returns:
        The donors; none where this run was begun on other terms than it goes on with, or where
        something that decides its rounds cannot be compared and nobody vouches for it.

    Raises:
        InvalidArgument: a batch holds what cannot be compared, or the metric is no finite number.
        InvalidLoss: the loss cannot be trained on.
    """
    identity = json.loads(json.dumps(run_identity(plan, start, warm_start.key)))
    # Its own folder may be among them: what we lack, it lacks.
    others = [RunFolder(path, folder.stage) for path in warm_start.folders]
    reason = _doubt(identity, warm_start) or _why_alone(folder, identity)
    if reason is not None:
        folder.identity.unlink(missing_ok=True)  # what it lent from here on would be neither's
        folder.log("passed_over", folder="all others", reason=reason)
        return Donors(plan, folder, [], identity)
    folder.write_json(folder.identity, identity)
    return Donors(plan, folder, others, {**folder.read_json(folder.arguments), **identity})


def _doubt(identity: Mapping[str, Any], warm_start: WarmStart) -> str | None:
    """What might differ between two runs without showing; None where the caller vouches."""
    unseen = identity["unseen"]
    if not unseen or warm_start.vouched:
        return None
    more = f" and {len(unseen) - MOST_NAMED} more" if len(unseen) > MOST_NAMED else ""
    return (
        f"this run depends on what cannot be compared between runs: "
        f"{', '.join(unseen[:MOST_NAMED])}{more}: hand settings over as numbers, strings, "
        "containers or objects with attributes, or name in WarmStart(key=...) whatever may differ "
        "there and say vouched=True"
    )


def _why_alone(folder: RunFolder, identity: Mapping[str, Any]) -> str | None:
    """Why a run that goes on may neither take nor lend; None where it may."""
    if not any(folder.arguments.parent.glob("*.safetensors")):
        return None  # nothing is done yet
    if not folder.identity.exists():
        return "this run was begun without warm_start"
    difference = first_difference(folder.read_json(folder.identity), identity)
    if difference is None:
        return None
    name, before, now = difference
    return f"this run was begun with {name}={before!r} and goes on with {now!r}"


def _decisive(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key not in _OF_LATER_ROUNDS}


def _check_round(found: TicketSet, expected: Mapping[str, Any], masked: Sequence[str]) -> None:
    """Refuse a sound file that is of something else than its name says."""
    rows = found.history
    if found.names != (expected["group"],) or len(rows) != 1 or set(found.shapes) != set(masked):
        raise DamagedFile(f"it holds {found!r} with {len(rows)} rows, expected {expected}")
    row, ticket = rows[0], found[expected["group"]]
    came = {key: row.get(key) for key in expected}
    if came != expected or not isinstance(row.get("loss"), float) or "metric" not in row:
        raise DamagedFile(f"it is of {came}, expected {expected} with loss and metric")
    if row.get("kept") != ticket.kept:
        raise DamagedFile(f"its masks keep {ticket.kept} weights, it says {row.get('kept')}")
