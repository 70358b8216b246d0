"""`robossl doctor data`: what contradicts the metadata of a LeRobot data set, and clipped actions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from doctor_kit import CAMERA, LENGTH, RecordedEpisode, block_frames, write_data_set
from lerobot_kit import write_v3

from robossl.data.doctor.command import examine_data
from robossl.data.doctor.finding import Finding


def find(root: Path, check: str) -> list[Finding]:
    """Return the findings of one check; one episode is decoded."""
    return [finding for finding in examine_data(root, max_episodes=1)[1] if finding.check == check]


def test_all_videos_have_another_size_than_stated(tmp_path: Path) -> None:
    episodes = [RecordedEpisode(seed, frames=block_frames(seed, hw=(32, 64))) for seed in range(2)]
    found = find(write_data_set(tmp_path / "set", episodes), "sizes")
    assert [(each.level, each.episode, each.detail) for each in found] == [
        ("warning", "episode_000000/top", "64x32"),
        ("warning", "episode_000001/top", "64x32"),
    ]
    assert found[0].what == "size differs from the stated 64x48"
    info = tmp_path / "set/meta/info.json"
    stated = json.loads(info.read_text())
    stated["features"][CAMERA] |= {"shape": [3, 32, 64], "names": ["channels", "height", "width"]}
    info.write_text(json.dumps(stated))
    assert find(tmp_path / "set", "sizes") == []


def test_statistics_lack_a_feature(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", [12, 12])
    (root / "meta/stats.json").write_text(json.dumps({CAMERA: {"mean": [0.5]}}))
    assert "lacks observation.state; policies normalise with it" in [each.what for each in find(root, "notes")]
    (root / "meta/stats.json").unlink()
    both = {CAMERA: {"mean": [0.5]}, "observation.state": {"mean": [0.0, 0.0]}}
    lines = [{"episode_index": 0, "stats": both}, {"episode_index": 1, "stats": {CAMERA: {"mean": [np.inf]}}}]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = {each.what for each in find(root, "notes") if each.episode == "meta/episodes_stats.jsonl"}
    assert found == {
        "lacks observation.state; policies normalise with it",
        f"{CAMERA} has values that are not finite",
    }


def test_clipped_actions_are_told_from_a_switch(tmp_path: Path) -> None:
    episodes = []
    for seed in range(3):
        wave = np.sin(np.arange(LENGTH) + seed)
        # Value 0 is clipped in a third of the rows; value 1 opens and closes a gripper.
        episodes.append(RecordedEpisode(seed, state=np.c_[np.minimum(wave, 0.5), wave > 0]))
    (found,) = find(write_data_set(tmp_path / "set", episodes), "clipped")
    assert (found.level, found.episode) == ("note", "")
    assert found.detail.startswith("indices 0, up to 3")
    for number, each in enumerate(episodes):
        each.state = np.c_[np.minimum(np.sin(np.arange(LENGTH) + number), -0.5), np.arange(LENGTH)]
    (found,) = find(write_data_set(tmp_path / "most", episodes), "clipped")
    assert (found.level, found.detail[:9]) == ("warning", "indices 0")
