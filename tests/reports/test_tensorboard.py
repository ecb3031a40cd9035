"""Events for TensorBoard, read back with its own reader."""

import sys

import pytest

from rtl_plugin import TicketSet
from rtl_plugin.errors import InvalidArgument, MissingExtra, MissingFile
from rtl_plugin.reports import write_tensorboard
from rtl_plugin.run_folder import RunFolder
from tests.reports import page_runs

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    page_runs.full_run(folder)
    return folder


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("events")
    count = write_tensorboard(run, logdir)
    events = accumulators.EventAccumulator(str(logdir), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    return events, count


@pytest.fixture(scope="module")
def history(run):
    return TicketSet.load(RunFolder(run, "discover").tickets).history


def scalars(events, tag):
    return {event.step: event.value for event in events.Scalars(tag)}


@pytest.mark.parametrize("name", page_runs.NAMES)
def test_similarity_and_sparsity_stand_at_their_rounds(written, history, name):
    rows = [row for row in history if row["group"] == name and not row.get("closing")]
    for kind, key in (("similarity", "similarity"), ("excess", "excess"), ("sparsity", "achieved")):
        expected = {row["round"]: row[key] for row in rows}
        found = scalars(written[0], f"{kind}/{name}")
        assert found.pop(0, 0.0) == 0.0
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", page_runs.NAMES)
def test_loss_and_metric_stand_at_the_round_that_made_their_mask(written, history, name):
    rows = [row for row in history if row["group"] == name]
    for kind, key in (("loss", "loss"), ("accuracy", "metric")):
        expected = {row["round"] - 1: row[key] for row in rows}
        assert scalars(written[0], f"{kind}/{name}") == pytest.approx(expected, rel=1e-6)


def test_alarms_are_texts(written, history):
    rung = {row["group"]: row for row in history if row.get("alarm")}
    assert rung
    for name, row in rung.items():
        (event,) = written[0].Tensors(f"alarm/{name}/text_summary")
        text = event.tensor_proto.string_val[0].decode()
        assert event.step == row["round"]
        assert row["alarm"]["explanation"] in text
        assert f"keeps the mask of round {row['alarm']['last_good_round']}" in text


def test_everything_written_is_counted_and_nothing_else(written, history):
    events, count = written
    tags = events.Tags()
    total = sum(len(events.Scalars(tag)) for tag in tags["scalars"]) + len(tags["tensors"])
    assert total == count
    assert len(tags["scalars"]) == 5 * len(page_runs.NAMES)


def test_the_run_is_only_read(run, tmp_path):
    before = page_runs.snapshot(run)
    write_tensorboard(run, tmp_path / "new" / "logs", metric="top-1")
    assert page_runs.snapshot(run) == before
    assert list((tmp_path / "new" / "logs").iterdir())


def test_a_killed_run(tmp_path):
    page_runs.killed_run(tmp_path / "run", after=13)
    assert write_tensorboard(tmp_path / "run", tmp_path / "logs") > 0


def test_what_cannot_be_written(run, tmp_path, monkeypatch):
    page_runs.killed_run(tmp_path / "begun", after=1)
    with pytest.raises(InvalidArgument, match="no rounds of a discovery"):
        write_tensorboard(tmp_path / "begun", tmp_path / "logs")
    with pytest.raises(MissingFile):
        write_tensorboard(tmp_path / "absent", tmp_path / "logs")
    with pytest.raises(InvalidArgument, match="'loss' is the name of another curve"):
        write_tensorboard(run, tmp_path / "logs", metric="loss")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="expected a folder"):
        write_tensorboard(run, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rtl-plugin\[tensorboard\]'"):
        write_tensorboard(run, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
