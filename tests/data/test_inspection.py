"""`robossl inspect`: what real folders hold, as tables and as JSON, without reading them in full."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from places import ROOT
from robossl_envs.collect import collect

from robossl.cli.main import main
from robossl.data.inspection import SCHEMA, SourceFacts, inspect_source
from robossl.errors import InputError

CLIPS = ROOT / "tests" / "data" / "droid"


def write_video(path: Path, *, num_frames: int, rate: int = 10) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_the_shipped_clips() -> None:
    facts = inspect_source(CLIPS)
    assert (facts.format, facts.num_episodes, facts.num_skipped) == ("mp4", 16, 0)
    assert facts.licence.startswith("CC BY 4.0")
    assert facts.labels["scene"] == 5
    assert facts.splits["train"] + facts.splits["val"] == 16
    assert len(facts.sizes) == len(facts.codecs) == 1
    assert facts.hours == pytest.approx(facts.num_frames / facts.frames_per_s[0] / 3600, rel=0.05)


def test_a_recorded_data_set_names_its_columns(tmp_path: Path) -> None:
    collect(env="dots/Dot-v0", module=("dots",), image_size=32, workers=1, agent="random", episodes=3, out=tmp_path)
    facts = inspect_source(tmp_path)
    assert (facts.format, facts.num_episodes, facts.sizes) == ("lerobot", 3, ("32x32",))
    assert facts.columns["action"] > 0
    assert facts.codecs


def test_only_the_first_frames_are_decoded_and_damage_is_named(tmp_path: Path) -> None:
    for name in ("a", "b b", "ü"):
        write_video(tmp_path / f"{name}.mp4", num_frames=20)
    (tmp_path / "damaged.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    facts = inspect_source(tmp_path)
    assert (facts.num_episodes, facts.sizes, facts.frames_per_s, facts.codecs) == (4, ("64x48",), (10.0,), ("mpeg4",))
    assert [problem.path for problem in facts.problems] == ["damaged.mp4"]


def test_photographs_have_no_rate_and_no_hours(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((40, 30, 3), 60 * number, np.uint8)).save(tmp_path / f"photo{number}.jpg")
    facts = inspect_source(tmp_path)
    assert (facts.format, facts.num_episodes, facts.hours, facts.frames_per_s) == ("images", 3, None, ())
    assert facts.sizes == ("30x40",)


def test_json_and_tables_have_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(CLIPS, tmp_path / "clips")
    assert main(["inspect", str(tmp_path / "clips"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == SCHEMA
    assert set(found["sources"][0]) == set(SourceFacts.__dataclass_fields__)
    assert main(["inspect", str(tmp_path / "clips")]) == 0
    text = capsys.readouterr().out
    for word in ("mp4", "320x180", "about 1,483, 0.8 minutes", "next: robossl ingest"):
        assert word in text


def test_what_cannot_be_inspected_is_one_line(tmp_path: Path, clip_store_path: Path) -> None:
    with pytest.raises(InputError, match="is a store already; look at it with robossl info"):
        inspect_source(clip_store_path)
    with pytest.raises(InputError, match="does not exist"):
        inspect_source(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == InputError.exit_code
