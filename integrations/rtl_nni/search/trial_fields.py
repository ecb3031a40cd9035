"""Fields of a trial's JSON files, each checked to be what it must."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtl_nni.search.trial_folder import TrialFolder
from rtl_plugin.integration_api import DamagedFile


@dataclass(frozen=True)
class Fields:
    """One JSON object of a trial's file.

    Args:
        path: the file.
        content: the object.
        where: which part of the file it is.

    Raises:
        DamagedFile: from every method, where the field is missing or something else; it names the
            file and the field.

    Example:
        >>> Fields(Path("trial.json"), {"steps": "many"}).count("steps")
        Traceback (most recent call last):
        rtl_plugin.errors.DamagedFile: trial.json: 'steps' must be a whole number of at least 0, ...
    """

    path: Path
    content: Mapping[str, Any]
    where: str = ""

    @staticmethod
    def read(files: TrialFolder, path: Path) -> "Fields | None":
        """The object in one of a trial's files; None where there is no such file.

        Args:
            files: of the trial.
            path: one of its paths.
        """
        content = files.read(path)
        return None if content is None else Fields(path, content)

    def count(self, name: str) -> int:
        """A whole number of at least 0.

        Args:
            name: of the field.
        """
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a whole number of at least 0")
        return value

    def optional_count(self, name: str) -> int | None:
        """A whole number of at least 0, or null.

        Args:
            name: of the field.
        """
        if name in self.content and self.content[name] is None:
            return None
        return self.count(name)

    def number(self, name: str) -> float:
        """A number; it may be NaN.

        Args:
            name: of the field.
        """
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def text(self, name: str) -> str:
        """A string.

        Args:
            name: of the field.
        """
        value = self.content.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def sequence(self, name: str) -> Sequence[Any]:
        """A list.

        Args:
            name: of the field.
        """
        value = self.content.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """An object.

        Args:
            name: of the field.
        """
        value = self.content.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "a JSON object")
        return value

    def inner(self, name: str) -> "Fields":
        """An object, to look at its fields.

        Args:
            name: of the field.
        """
        return Fields(self.path, self.mapping(name), name)

    def numbers(self, name: str) -> dict[str, float]:
        """An object whose values are all numbers.

        Args:
            name: of the field.
        """
        inner = self.inner(name)
        return {key: inner.number(key) for key in inner.content}

    def _wrong(self, name: str, expected: str) -> DamagedFile:
        came = repr(self.content[name]) if name in self.content else "nothing"
        place = f"{self.path}, {self.where}" if self.where else str(self.path)
        return DamagedFile(
            f"{place}: {name!r} must be {expected}, got {came}: delete this trial's folder"
        )
