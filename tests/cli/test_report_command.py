"""``rtl-plugin report``."""

import json
from pathlib import Path

import pytest

from rtl_plugin.cli import main
from tests.reports import page_runs

ROW = {
    "task": "toy", "sparsity": 0.5, "method": "the method", "metric": "accuracy", "mean": 0.7,
    "low": None, "high": None, "seeds": [0], "parameters": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    page_runs.run(folder, rounds=2)
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "-o", "pages/run.html", "--title", "My title"]) == 0
    output = capsys.readouterr()
    size = (tmp_path / "pages" / "run.html").stat().st_size
    assert output.out == f"wrote pages/run.html ({size:,} bytes)\n"
    assert output.err == ""
    assert "<h1>My title</h1>" in (tmp_path / "pages/run.html").read_text(encoding="utf-8")


def test_the_default_file(run: Path, tmp_path: Path) -> None:
    assert main(["report", str(run)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_comparison_and_a_metric(run: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [ROW], "raw": []}))
    assert main(["report", str(run), "--comparison", "rows.json", "--metric", "recall"]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the method" in text
    assert "recall" in text


def test_tensorboard_alone_writes_no_page(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    assert main(["report", str(run), "--tensorboard", "logs"]) == 0
    assert "values for TensorBoard to logs" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_tensorboard_and_a_page(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert main(["report", str(run), "--tensorboard", "logs", "-o", "page.html"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "page.html"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "no such folder: absent"),
        (["."], "holds no file of a run"),
        (["RUN", "-o", "report.pdf"], "expected a file name ending in .html"),
        (["RUN", "--comparison", "absent.json"], "no such file: absent.json"),
        (["RUN", "--metric", ""], "metric: expected a name"),
        (["RUN", "--title", " "], "title: expected a name"),
        (["RUN", "--title", "x", "--metric", "loss", "--tensorboard", "logs"], "of another curve"),
        (["RUN", "--metric", "", "--tensorboard", "logs"], "metric: expected a name"),
    ],
)
def test_errors(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "--tensorboard" in words:
        pytest.importorskip("tensorboard")
    assert main(["report", *[str(run) if word == "RUN" else word for word in words]]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""
    assert list(tmp_path.iterdir()) == []
