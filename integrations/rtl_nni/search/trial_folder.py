"""The files of one trial: what it was asked, its rounds, its result, why it was stopped."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtl_plugin.integration_api import DamagedFile, write_atomically

Json = dict[str, Any]


class TrialFolder:
    """Where a trial's files lie; they are below ``rtl/`` in the trial's own folder.

    Args:
        path: the trial's folder. Under NNI's local service it is
            ``<experiment>/environments/local-env/trials/<trial id>``.

    Example:
        >>> TrialFolder("trials/qRmXw").rounds.as_posix()
        'trials/qRmXw/rtl/rounds.jsonl'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def settings(self) -> Path:
        """What the trial was asked, written before it trains."""
        return self.path / "rtl" / "trial.json"

    @property
    def rounds(self) -> Path:
        """One JSON object a line and finished round."""
        return self.path / "rtl" / "rounds.jsonl"

    @property
    def result(self) -> Path:
        """The result of a trial that came to its end."""
        return self.path / "rtl" / "result.json"

    @property
    def stopped(self) -> Path:
        """Why it was stopped, written by who stopped it."""
        return self.path / "rtl" / "stopped.json"

    @property
    def run(self) -> Path:
        """The run folder of its discovery and retraining."""
        return self.path / "rtl" / "run"

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write one of the JSON files atomically.

        Args:
            path: one of the properties.
            content: JSON-able.
        """
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())

    def append_round(self, row: Mapping[str, Any]) -> None:
        """Add a line to ``rounds``, whole before the call returns.

        Args:
            row: JSON-able.
        """
        self.rounds.parent.mkdir(parents=True, exist_ok=True)
        with self.rounds.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def start_again(self) -> None:
        """Forget the rounds and the end of an earlier attempt; what it trained is kept.

        A discovery that is resumed tells all its rounds again.
        """
        for path in (self.rounds, self.result, self.stopped):
            path.unlink(missing_ok=True)

    def read(self, path: Path) -> Json | None:
        """One of the JSON files.

        Returns:
            Its content; None where it is not there.

        Raises:
            DamagedFile: it is not a JSON object.
        """
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{path} is not JSON ({error}): delete its trial's folder") from error
        if not isinstance(content, dict):
            raise DamagedFile(f"{path} does not hold a JSON object: delete its trial's folder")
        return content

    def read_rounds(self) -> Sequence[Json]:
        """The finished rounds, in order; a last line that a kill cut off is left out.

        Returns:
            One object a round; none where the trial finished none.

        Raises:
            DamagedFile: a whole line is not a JSON object.
        """
        if not self.rounds.exists():
            return []
        try:
            *lines, _ = self.rounds.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines]
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DamagedFile(f"{self.rounds} has a line that is not JSON ({error})") from error
        if not all(isinstance(row, dict) for row in rows):
            raise DamagedFile(f"{self.rounds} has a line that is no JSON object")
        return rows
