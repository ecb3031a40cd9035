"""What examples/collapse.py prints from a run's log and curves."""

import json
from pathlib import Path
from typing import Any

from examples.collapse import alarm_lines, curve_table
from rtl_plugin.diagnostics.curves import ticket_curves
from rtl_plugin.run_folder import RunFolder


def compared(round: int, group: str, said: str | None, time: float) -> str:
    alarm = None if said is None else {"explanation": said}
    event = {"event": "compared", "round": round, "group": group, "alarm": alarm, "time": time}
    return json.dumps(event)


def test_every_alarm_with_the_time_when_it_first_rang(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lines = [
        json.dumps({"event": "round", "round": 1, "group": "a", "time": 0.0}),
        compared(1, "a", None, 0.0),
        compared(2, "a", "a rang", 60.0),
        compared(2, "b", "b rang", 60.0),
        compared(2, "a", "a rang", 7200.0),  # resumed
        compared(3, "b", "b rang again", 7260.0),
    ]
    log.write_text("\n".join(lines) + "\n")
    found, unreadable = alarm_lines(log)
    assert [line.split("  ")[1] for line in found] == ["a rang", "b rang", "b rang again"]
    assert [line.split("  ")[0][-5:] for line in found] == ["01:00", "01:00", "01:00"]
    assert found[0].split("  ")[0] == found[1].split("  ")[0] < found[2].split("  ")[0]
    assert unreadable == 0


def test_half_a_line_is_skipped_and_counted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "discover")
    whole = compared(2, "a", "a rang", 60.0)
    folder.log_file.write_bytes(whole[:30].encode() + b"\n42\n\n" + b'{"\xff')
    folder.log("compared", round=2, group="a", alarm={"explanation": "a rang"})
    found, unreadable = alarm_lines(folder.log_file)
    assert [line.split("  ")[1] for line in found] == ["a rang"]
    assert unreadable == 3


def test_means_over_the_tickets_of_a_round() -> None:
    def row(round: int, group: str, **more: Any) -> dict[str, Any]:
        return {"round": round, "group": group, "achieved": 0.5 * round, "loss": 1.0, **more}

    history = [
        row(
            1, "a", metric=0.5, similarity=0.2, excess=0.1, alarm={"round": 1, "last_good_round": 0}
        ),
        row(1, "b", metric=0.7, similarity=0.4, excess=0.3),
    ]
    _, _, dense, first = curve_table(ticket_curves(history), "accuracy").splitlines()
    assert dense.split() == ["0", "0.00%", "0.600"]
    assert first.split() == ["1", "50.00%", "0.300", "0.200", "a"]
