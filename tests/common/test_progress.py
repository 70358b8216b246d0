"""Progress: plain lines at intervals without a terminal, lines in the log, nothing from a quiet rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from robossl.common import progress as module
from robossl.common.progress import Progress


def test_lines_come_at_intervals_and_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(unit="frames") as progress:
        progress.show("ingest", 0, 300)
        progress.show("ingest", 100, 300)
        progress.show("ingest", 200, 300, line="{done}/{total} {minutes_left:.1f} min", line_now=True)
        monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
        progress.advance("ingest", 50, 300)
        progress.advance("embed [x] :x:", 7, 9)
    assert capsys.readouterr().out.splitlines() == [
        "200/300 0.0 min",
        "ingest: 250 of 300 frames",
        "embed [x] :x:: 7 of 9 frames",
    ]


def test_work_that_was_named_in_a_line_also_ends_in_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(unit="frames") as progress:
        progress.show("short", 0, 2)
        progress.show("short", 2, 2)
        monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
        progress.show("embed", 0, 9)
        monkeypatch.setattr(module, "LINE_SECONDS", 3600.0)
        for done in (3, 9, 9):
            progress.show("embed", done, 9)
    assert capsys.readouterr().out.splitlines() == ["embed: 0 of 9 frames", "embed: 9 of 9 frames"]


def test_the_log_gets_every_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(stderr=True, log=tmp_path / "log.txt") as progress:
        progress.say("steps [0] :x:")
    assert capsys.readouterr() == ("", "steps [0] :x:\n")
    assert (tmp_path / "log.txt").read_text().endswith(" steps [0] :x:\n")


def test_a_quiet_rank_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(stderr=True, quiet=True) as progress:
        progress.say("line")
        progress.show("pretrain", 1, 2, line_now=True)
    assert capsys.readouterr() == ("", "")
