"""`robossl doctor data`: each planted defect is found with its episode, and a clean data set has no finding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_kit import CAMERA, FPS, LENGTH, RecordedEpisode, block_frames, write_data_set, write_video
from lerobot_kit import write_v3
from places import CLIPS

from robossl.cli.main import main
from robossl.data.doctor.command import SCHEMA, examine_data
from robossl.data.doctor.finding import Finding, fold_findings
from robossl.data.ingest import ingest

BAD = "episode_000001"  # the episode with the defect
VIDEO = f"videos/chunk-000/{CAMERA}/{BAD}.mp4"


def find(path: Path) -> dict[tuple[str, str], set[str]]:
    """Return {(level, check): episodes}."""
    found: dict[tuple[str, str], set[str]] = {}
    for finding in examine_data(path, max_episodes=None)[1]:
        found.setdefault((finding.level, finding.check), set()).add(finding.episode)
    return found


def with_bad(root: Path, bad: RecordedEpisode, **options: dict[str, str]) -> Path:
    """Write a data set of four episodes, of which number 1 is given."""
    return write_data_set(root, [RecordedEpisode(0), bad, RecordedEpisode(2), RecordedEpisode(3)], **options)


def hold(frames: np.ndarray, first: int, end: int) -> np.ndarray:
    """Return frames that stand still from `first` to `end`."""
    frames = frames.copy()
    frames[first:end] = frames[first]
    return frames


def jump_at(row: int) -> np.ndarray:
    """Return a column that is 0 before a row and 1 from it on."""
    return (np.arange(LENGTH) >= row)[:, None].astype(float)


def test_a_clean_data_set_and_its_store_have_no_finding(tmp_path: Path) -> None:
    root = with_bad(tmp_path / "set", RecordedEpisode(1))
    assert find(root) == {}
    ingest(root, out=tmp_path / "store", workers=1)
    assert find(tmp_path / "store") == {}


PLANTED: dict[str, tuple[Callable[[], RecordedEpisode], tuple[str, str], str]] = {
    "fewer frames": (
        lambda: RecordedEpisode(1, frames=block_frames(1)[:15], seconds=np.arange(LENGTH) / FPS),
        ("error", "counts"),
        f"{BAD}/top",
    ),
    "stated length": (lambda: RecordedEpisode(1, length=25), ("error", "counts"), BAD),
    "backwards": (
        lambda: RecordedEpisode(1, seconds=np.r_[0:12, 5, 13:20] / FPS),
        ("error", "times"),
        BAD,
    ),
    "jump": (lambda: RecordedEpisode(1, seconds=np.r_[0:12, 30:38] / FPS), ("warning", "times"), BAD),
    "drift": (
        lambda: RecordedEpisode(1, places=1.06 * np.arange(LENGTH)),
        ("warning", "drift"),
        f"{BAD}/top",
    ),
    "frozen": (
        lambda: RecordedEpisode(1, frames=hold(block_frames(1), 3, 18)),
        ("warning", "frozen"),
        f"{BAD}/top",
    ),
    "black": (
        lambda: RecordedEpisode(1, frames=np.concatenate([block_frames(1)[:15], np.zeros((5, 48, 64, 3), np.uint8)])),
        ("warning", "blank"),
        f"{BAD}/top",
    ),
    "all white": (
        lambda: RecordedEpisode(1, frames=np.full((LENGTH, 48, 64, 3), 255, np.uint8)),
        ("error", "blank"),
        f"{BAD}/top",
    ),
    "other size": (
        lambda: RecordedEpisode(1, frames=block_frames(1, hw=(96, 128))),
        ("warning", "sizes"),
        f"{BAD}/top",
    ),
    "short": (lambda: RecordedEpisode(1, frames=block_frames(1, num=6)), ("warning", "lengths"), f"{BAD}/top"),
    "idle": (
        lambda: RecordedEpisode(1, state=np.maximum(np.arange(LENGTH), 14)[:, None] * np.ones((1, 2))),
        ("note", "idle"),
        BAD,
    ),
    "another rate than stated": (
        lambda: RecordedEpisode(1, seconds=1.3 * np.arange(LENGTH) / FPS),
        ("warning", "rates"),
        BAD,
    ),
    "jump of actions": (
        lambda: RecordedEpisode(1, state=np.sin(np.arange(2 * LENGTH)).reshape(LENGTH, 2) + 90 * jump_at(11)),
        ("warning", "action-jumps"),
        BAD,
    ),
    "nan": (
        lambda: RecordedEpisode(1, state=np.r_[np.ones((19, 2)), [[np.nan, 0]]]),
        ("error", "finite"),
        BAD,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found_with_its_episode(name: str, tmp_path: Path) -> None:
    make, finding, episode = PLANTED[name]
    found = find(with_bad(tmp_path / "set", make()))
    assert found[finding] == {episode}


def test_a_missing_and_a_truncated_video(tmp_path: Path) -> None:
    root = with_bad(tmp_path / "set", RecordedEpisode(1))
    whole = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(whole[: len(whole) // 2])
    (root / VIDEO.replace(BAD, "episode_000002")).unlink()
    assert find(root)["error", "files"] == {f"{BAD}/top", "episode_000002"}


def test_near_duplicates_are_told_from_equal_frames(tmp_path: Path) -> None:
    frames = hold(block_frames(1), 2, LENGTH)
    frames[::2, 0, 0] ^= 8  # one pixel flickers, as no frozen camera does
    found = find(with_bad(tmp_path / "set", RecordedEpisode(1, frames=frames)))
    assert found == {("warning", "near-duplicates"): {f"{BAD}/top"}}


def test_decoded_frames_are_reduced_to_a_few_bytes_each(tmp_path: Path) -> None:
    for num in (20, 80):
        write_video(tmp_path / f"{num}.mp4", block_frames(0, num=num))
    kept = {}
    for picture in examine_data(tmp_path)[0].pictures:
        fields = [getattr(picture, name) for name in type(picture).__dataclass_fields__]
        kept[picture.episode] = sum(field.nbytes for field in fields if isinstance(field, np.ndarray))
    assert (kept["80.mp4"] - kept["20.mp4"]) / 60 < 32


def test_two_splits_share_an_episode(tmp_path: Path) -> None:
    splits = {"train": "0:3", "val": "3:4"}
    episodes = [RecordedEpisode(seed) for seed in (0, 1, 2, 1)]
    found = find(write_data_set(tmp_path / "rows", episodes, splits=splits))
    assert "episode_000003" in found["error", "splits"]
    # The same pictures with other rows are found by their frames.
    episodes[3].state = np.random.default_rng(9).normal(size=(LENGTH, 2)).cumsum(0)
    assert find(write_data_set(tmp_path / "frames", episodes, splits=splits)) == {
        ("warning", "splits"): {"episode_000003/top"}
    }


def test_files_of_equal_bytes_in_two_splits_are_found_without_decoding_them(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "c", "d")):
        write_video(tmp_path / f"{name}.mp4", block_frames(seed))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "z.mp4")
    (tmp_path / "labels.csv").write_text("path,split\na.mp4,train\nb.mp4,train\nc.mp4,val\nd.mp4,val\nz.mp4,val\n")
    findings = examine_data(tmp_path, max_episodes=1)[1]
    assert [(each.level, each.episode) for each in findings if each.check == "splits"] == [("error", "z.mp4")]
    assert {each.check for each in findings} == {"splits", "licence"}
    ingest(tmp_path, out=tmp_path.parent / "store", workers=1)
    assert find(tmp_path.parent / "store")["error", "splits"] == {f"{tmp_path.name}/z.mp4"}


def test_another_frame_rate_is_named(tmp_path: Path) -> None:
    for seed in range(3):
        write_video(tmp_path / f"{seed}.mp4", block_frames(seed, num=30), fps=10 if seed else 25)
    assert find(tmp_path)["warning", "rates"] == {"0.mp4"}


def test_columns_that_stay(tmp_path: Path) -> None:
    still = np.c_[np.random.default_rng(0).normal(size=LENGTH), np.full(LENGTH, 7.0)]
    episodes = [RecordedEpisode(seed, state=still) for seed in range(3)]
    (finding,) = [
        each
        for each in examine_data(write_data_set(tmp_path / "one", episodes))[1]
        if each.check == "constant" and each.what.startswith("state")
    ]
    assert (finding.level, finding.detail) == ("note", "indices 1")
    episodes = [RecordedEpisode(seed, state=np.full((LENGTH, 2), 7.0)) for seed in range(3)]
    assert find(write_data_set(tmp_path / "all", episodes))["warning", "constant"] == {""}


def test_a_joint_that_hardly_moves_and_values_that_shift(tmp_path: Path) -> None:
    episodes = [RecordedEpisode(seed) for seed in range(8)]
    for number, each in enumerate(episodes):
        assert each.state is not None
        each.state[:, 0] = np.arange(LENGTH) > 15
        each.state[:, 1] = np.sin(np.arange(LENGTH)) + 100 * (number > 5)
    findings = examine_data(write_data_set(tmp_path / "set", episodes))[1]
    assert {each.check: each.detail.split(",")[0].split(":")[0] for each in findings if "state" in each.what} == {
        "still": "indices 0",
        "shift": "index 1",
    }


def test_a_shared_video_of_v3(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", [12, 12, 12])
    assert not {level for level, check in find(root) if check in ("counts", "times", "drift", "files")}
    root = write_v3(tmp_path / "off", [12, 12, 12], places=[*range(24), *range(25, 37)], codes=range(36))
    found = find(root)
    assert {episode for key, some in found.items() if key[1] in ("counts", "drift") for episode in some} == {
        "episode_000002/top"
    }


def test_an_unknown_licence_a_wrong_total_and_no_actions(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", [12, 12])
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_frames": 99}))
    found = find(root)
    assert found["warning", "licence"] == {""}
    assert found["note", "actions"] == {""}
    assert found["note", "notes"] == {"meta/info.json", "meta/stats.json"}


def test_a_store_names_gaps_and_what_ingest_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/a.mp4", hold(block_frames(0), 2, LENGTH - 1))
    write_video(tmp_path / "videos/b.mp4", block_frames(1))
    (tmp_path / "videos/c.mp4").write_bytes(b"no video")
    ingest(tmp_path / "videos", out=tmp_path / "store", workers=1)
    found = find(tmp_path / "store")
    assert found["warning", "frozen"] == {"videos/a.mp4"}
    assert found["warning", "files"] == {"c.mp4"}


def test_the_exit_code_the_lines_and_the_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "data", str(CLIPS), "--episodes", "2"]) == 0
    assert "16 episodes, frames of 2 decoded; --all decodes all" in capsys.readouterr().out
    root = with_bad(tmp_path / "set", RecordedEpisode(1, length=25))
    assert main(["doctor", "data", str(root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["num_episodes"], found["counts"]["error"]) == (SCHEMA, 4, 1)
    assert set(found["findings"][0]) == set(Finding.__dataclass_fields__)
    assert main(["doctor", "data", str(root)]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[1].startswith(f"error    counts           {BAD}: the table has another length than stated")
    assert main(["doctor", "data", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_equal_findings_are_folded_and_the_worst_comes_first() -> None:
    findings = [Finding("note", "x", "a", "what", "", "do"), Finding("error", "y", "a", "bad", "", "do")]
    findings += [Finding("warning", "z", f"e{number}", "what", f"{number} s", "do") for number in range(5)]
    lines = fold_findings(findings)
    assert [line.level for line in lines] == ["error", "warning", "note"]
    assert lines[1].episodes == "5 episodes: e0, e1, e2, ..."
    assert lines[1].what == "what (0 s; ...)"
