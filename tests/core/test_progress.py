"""Progress goes to a terminal's standard error, and nowhere else."""

import sys

import pytest

from rtl_plugin.progress import Progress


@pytest.mark.parametrize(
    ("enabled", "terminal", "shown"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_it_shows_only_where_it_is_wanted_and_somebody_looks(
    enabled: bool,
    terminal: bool,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    progress = Progress(enabled)
    assert list(progress.track(iter([3, 1, 2]), "training indoor")) == [3, 1, 2]
    progress.say("round 1 done")
    captured = capsys.readouterr()
    assert captured.out == ""
    if shown:
        assert "training indoor" in captured.err
        assert "round 1 done\n" in captured.err
    else:
        assert captured.err == ""
