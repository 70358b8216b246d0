"""`robossl ingest --thin` and `--frame-hook`: what they drop and change, and what the manifest says about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from doctor_kit import LENGTH, block_frames, write_video

from robossl.cli.main import main
from robossl.data.describe import info
from robossl.data.ingest import ingest
from robossl.data.merge import merge
from robossl.data.store import open_store
from robossl.errors import InputError

HOOKS = """
import numpy as np

def darken(pixels):
    pixels[:] = 0
    return pixels

BUFFER = None

def reuse(pixels):
    global BUFFER
    BUFFER = np.empty_like(pixels) if BUFFER is None else BUFFER
    np.copyto(BUFFER, 255 - pixels)
    return BUFFER

def crop(pixels):
    return pixels[:8]

def to_float(pixels):
    return pixels / 255

def to_list(pixels):
    return pixels.tolist()

def fail(pixels):
    raise ValueError("no face")
"""


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write hooks into the working folder."""
    (tmp_path / "frame_hooks.py").write_text(HOOKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "frame_hooks", raising=False)


def nearly_still(root: Path) -> Path:
    """A video of which one pixel changes, and which then moves; and one that drifts slowly."""
    frames = block_frames(0)
    frames[: LENGTH // 2] = frames[0]
    frames[: LENGTH // 2, 0, 0, 0] += 6 * np.arange(LENGTH // 2, dtype=np.uint8)
    write_video(root / "a.mp4", frames)
    slow = np.full((LENGTH, 48, 64, 3), 100, np.uint8)
    slow[:, :12] += 2 * np.arange(LENGTH, dtype=np.uint8)[:, None, None, None]  # half a grey level each
    write_video(root / "b.mp4", slow)
    return root


def test_near_equal_frames_are_dropped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = nearly_still(tmp_path / "videos")
    whole = ingest(videos, out=tmp_path / "whole", workers=1).manifest
    assert whole.num_frames + whole.duplicate_frames == 2 * LENGTH
    assert not {"thin", "frame_hook"} & set(json.loads((tmp_path / "whole/manifest.json").read_text()))
    store = ingest(videos, out=tmp_path / "thin", thin=1.2, workers=1)
    times = [store.time_seconds[store.episode_start[k] : store.episode_start[k + 1]] for k in range(2)]
    assert times[0][:2] == pytest.approx([0, 1.0]) and len(times[0]) > LENGTH // 2 - 3
    # A slow change is compared with the last kept frame, so it is not lost.
    assert np.diff(times[1]).max() < 0.45 and len(times[1]) < LENGTH / 2
    assert store.end_seconds == pytest.approx([1.9, 1.9])
    manifest = store.manifest
    assert manifest.thin == 1.2 and manifest.thinned_frames > LENGTH
    assert manifest.num_frames + manifest.thinned_frames + manifest.duplicate_frames == 2 * LENGTH
    out = capsys.readouterr().out
    assert f"dropped {manifest.thinned_frames} near-equal frames, " in out
    info(tmp_path / "thin")
    assert f"{manifest.thinned_frames} frames, less than 1.2 grey levels" in capsys.readouterr().out


def test_the_settings_stay_and_stores_of_other_settings_are_not_merged(tmp_path: Path, hooks: None) -> None:
    write_video(tmp_path / "one/a.mp4", block_frames(0))
    write_video(tmp_path / "two/b.mp4", block_frames(1))
    ingest("one", out="whole", workers=1)
    with pytest.raises(InputError, match=r"was made with --short-side 256 --quality 90, got --thin 0.5; leave"):
        ingest("two", out="whole", thin=0.5, workers=1)
    ingest("one", out="thin", thin=0.5, workers=1)
    with pytest.raises(InputError, match=r"--quality 90 --thin 0.5, got --thin 0; leave"):
        ingest("two", out="thin", thin=0, workers=1)
    assert ingest("two", out="thin", workers=1).manifest.thin == 0.5
    with pytest.raises(InputError, match=r"made with other settings: .* --thin 0.5"):
        merge(["whole", "thin"], out="all")
    ingest("one", out="dark", frame_hook="frame_hooks:darken", workers=1)
    with pytest.raises(InputError, match=r"made with --frame-hook frame_hooks:darken, got none; name it again"):
        ingest("two", out="dark", workers=1)
    ingest("two", out="dark2", frame_hook="frame_hooks:darken", workers=1)
    assert merge(["dark", "dark2"], out="joined").manifest.frame_hook == "frame_hooks:darken"


def test_a_hook_changes_frames_in_worker_processes(
    tmp_path: Path, hooks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one/a.mp4", "two/b.mp4"):  # one job each
        write_video(tmp_path / name, block_frames(0))
    ingest(["one", "two"], out="dark", frame_hook="frame_hooks:darken", workers=2)
    store = open_store("dark")
    assert store.manifest.duplicate_frames == LENGTH - 1  # all frames are black
    assert int(store.decode([0])[0].max()) == 0
    info(tmp_path / "dark")
    assert "frame_hooks:darken" in capsys.readouterr().out
    plain = ingest("one", out="plain", workers=1)
    assert ingest("one", out="reused", frame_hook="frame_hooks:reuse", workers=1).num_frames == plain.num_frames > 1


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("frame_hooks", "must be MODULE:FUNCTION, such as blur:blur_faces, got 'frame_hooks'"),
        ("no_such_module:f", "cannot be imported (ModuleNotFoundError"),
        ("frame_hooks:HOOK", "cannot be imported (AttributeError"),
        ("frame_hooks:BUFFER", "must be a function of one frame, got None"),
        ("frame_hooks:crop", "returned (8, 64, 3) uint8; return an array of (48, 64, 3) uint8"),
        ("frame_hooks:to_float", "returned (48, 64, 3) float64; return an array of (48, 64, 3) uint8"),
        ("frame_hooks:to_list", "returned a list; return an array of (48, 64, 3) uint8"),
        ("frame_hooks:fail", "frame_hooks.py:26: ValueError: no face); mend it"),
    ],
)
def test_a_faulty_hook_ends_in_one_line(
    tmp_path: Path, hooks: None, capsys: pytest.CaptureFixture[str], hook: str, message: str
) -> None:
    write_video(tmp_path / "videos/a.mp4", block_frames(0, num=2))
    assert main(["ingest", "videos", "--out", "store", "--frame-hook", hook, "--workers", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--frame-hook {hook}" in line or "--frame-hook must be" in line
    assert message in line
    assert not Path("store").exists()
