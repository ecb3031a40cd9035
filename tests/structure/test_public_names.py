"""Every public name exists, carries an example, and is described in the documentation."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import rtl_plugin

ROOT = Path(__file__).parents[2]


def needs_example(value: object) -> bool:
    """Callables show their use; modules, exceptions and constants need not."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return False
    return callable(value)


def undocumented(values: dict[str, object]) -> list[str]:
    found = []
    for name, value in values.items():
        # Not inspect.getdoc: a docstring inherited from nn.Module documents nothing of ours.
        docstring = getattr(value, "__doc__", None) or ""
        if not docstring.strip():
            found.append(f"{name} has no docstring")
        elif needs_example(value) and ">>>" not in docstring:
            found.append(f"the docstring of {name} has no example (>>>)")
    return found


def unmentioned(names: list[str], prose: str) -> list[str]:
    """Names that no code in the prose uses; plain words like "compare" do not count."""
    return [n for n in names if not re.search(rf"(?:`|\brtl\.|\brtl_plugin\.){n}\b", prose)]


def test_every_public_name_resolves_and_is_documented() -> None:
    missing = [name for name in rtl_plugin.__all__ if not hasattr(rtl_plugin, name)]
    assert not missing
    assert len(set(rtl_plugin.__all__)) == len(rtl_plugin.__all__)
    values = {name: getattr(rtl_plugin, name) for name in rtl_plugin.__all__}
    assert undocumented(values) == []


def test_nothing_is_public_by_accident() -> None:
    public = {
        name
        for name, value in vars(rtl_plugin).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public - set(rtl_plugin.__all__) == set()


def test_every_public_name_is_in_the_documentation() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    prose = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    names = [name for name in rtl_plugin.__all__ if not name.startswith("__")]
    assert unmentioned(names, prose) == []


def test_the_checks_can_fail() -> None:
    class Bare: ...

    def wordy() -> None:
        """Do something, without showing how."""

    def shown() -> None:
        """Do something.

        Example:
            >>> shown()
        """

    assert undocumented({"Bare": Bare, "wordy": wordy, "shown": shown}) == [
        "Bare has no docstring",
        "the docstring of wordy has no example (>>>)",
    ]
    prose = "We compare with `discover(model)` and rtl.explain, `rtl.retrain`; rediscover."
    names = ["discover", "explain", "retrain", "compare", "cover"]
    assert unmentioned(names, prose) == ["compare", "cover"]
