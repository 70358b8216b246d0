"""`robossl stats`: counts and measurements of real stores, as a table, as JSON and as a page that stands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from doctor_kit import LENGTH, block_frames, write_video

from robossl.cli.main import main
from robossl.data.ingest import ingest
from robossl.data.statistics import StoreStatistics
from robossl.report.data_command import SCHEMA


def measured(store: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Return the JSON document of a store."""
    capsys.readouterr()
    assert main(["stats", str(store), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_the_counts_of_the_shipped_clips(clip_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(clip_store_path, capsys)
    assert found.pop("schema") == SCHEMA
    assert set(found) == set(StoreStatistics.__dataclass_fields__)
    assert (found["num_frames"], found["num_episodes"], found["num_measured"]) == (1483, 16, 16)
    assert found["sizes"] == {"171x96": 1483}
    assert found["frames_per_s"] == {"30": 16}
    assert found["labels"]["scene"]["Kitchen"] == 4  # type: ignore[index]
    assert found["hours"] == pytest.approx(1483 / 30 / 3600, rel=0.05)


def test_brightness_motion_and_near_duplicates_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.full((LENGTH, 48, 64, 3), 100, np.uint8)
    grey[::2, 0, 0] ^= 8  # else ingest would drop the frames
    write_video(tmp_path / "still/a.mp4", grey)
    write_video(tmp_path / "moving/a.mp4", block_frames(0))
    for name in ("still", "moving"):
        ingest(tmp_path / name, out=tmp_path / "stores" / name, workers=1)
    still, moving = (measured(tmp_path / "stores" / name, capsys) for name in ("still", "moving"))
    assert still["brightness"]["mean"] == pytest.approx(100, abs=2)  # type: ignore[index]
    assert still["near_duplicate_share"] == pytest.approx((LENGTH - 1) / LENGTH)
    assert moving["near_duplicate_share"] == 0
    assert moving["motion"]["median"] > 1 > still["motion"]["median"]  # type: ignore[index]


def test_the_table_and_the_page(clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["stats", str(clip_store_path), "--episodes", "4", "--out", str(out)]) == 0
    assert "4 of 16 episodes" in capsys.readouterr().out
    text = out.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.count("<img") == text.count('alt="') == 16 + 4 + 7  # frames, histograms, labels
    assert "Frames of 4 of 16 episodes were measured" in text


def test_what_is_no_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(tmp_path / "absent")]) == 2
    assert main(["stats", str(tmp_path), "--episodes", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
