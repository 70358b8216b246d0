"""LeRobot frames beside their own rows, or refused by name: discarded takes, drifting timestamps, lost frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_kit import CAMERA, code_of, write_v3, write_v21

from robossl.data.ingest import ingest
from robossl.data.source import Damaged
from robossl.data.sources.lerobot import LeRobotSource
from robossl.errors import InputError

LENGTHS = [9, 12, 7, 14]
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
JUNK = [49] * 8  # frames of a take that was thrown away


def pairs(root: Path) -> dict[int, list[tuple[int, int]]]:
    """Of each episode that can be read, the code of each frame and the number of its row."""
    source = LeRobotSource(root)
    found = {}
    for number, unit in enumerate(source.listing().units):
        try:
            frames = list(source.frames(unit))
        except Damaged:
            continue
        assert all(frame.columns["state"][0] == number for frame in frames)
        found[number] = [(code_of(frame.pixels), int(frame.columns["state"][1])) for frame in frames]
    return found


def right(start: int, length: int) -> list[tuple[int, int]]:
    return [(start + k, k) for k in range(length)]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.49, 0.6, 1.0, 1.5, 4.0, -0.6, -1.5])
@pytest.mark.parametrize("kind", ["both", "starts", "starts without ends"])
def test_timestamps_that_drift_off_the_frames_are_undone_by_the_counts(share: float, kind: str, tmp_path: Path) -> None:
    """The last episode is off by `share` frames; the video has as many frames as the episodes have rows."""
    off = [share * i / 3 for i in range(5)]
    starts = [STARTS[i] + off[i] for i in range(4)]
    ends: list[Any] = [None] * 4
    if kind != "starts without ends":
        ends = [STARTS[i + 1] + (off[i + 1] if kind == "both" else 0) for i in range(4)]
    write_v3(tmp_path, LENGTHS, starts=starts, ends=ends)
    found = pairs(tmp_path)
    assert all(found[i] == right(int(STARTS[i]), LENGTHS[i]) for i in found)
    if abs(share) <= 1.5:
        assert len(found) == 4
    notes = [note.reason for note in LeRobotSource(tmp_path).listing().notes]
    if kind == "both":
        assert [note for note in notes if "from_timestamp is up to" in note] == notes
        assert bool(notes) == (abs(share) >= 0.5)


@pytest.mark.parametrize("share", [0.6, 1.5])
def test_drift_and_a_count_that_does_not_fit_are_refused(share: float, tmp_path: Path) -> None:
    starts = [STARTS[i] + share * i / 3 for i in range(4)]
    ends = [STARTS[i + 1] + share * (i + 1) / 3 for i in range(4)]
    write_v3(tmp_path, LENGTHS, starts=starts, ends=ends, codes=range(sum(LENGTHS) - 1))
    found = pairs(tmp_path)
    assert all(found[i] == right(int(STARTS[i]), LENGTHS[i] - (i == 3)) for i in found)
    assert 3 not in found


@pytest.mark.parametrize("before", [0, 5, 12])
def test_v21_frames_of_a_discarded_take_are_refused(before: int, tmp_path: Path) -> None:
    codes = [*range(before), *JUNK, *range(before, 12)]
    write_v21(tmp_path / "in", 12, codes=codes)
    source = LeRobotSource(tmp_path / "in")
    (unit,) = source.listing().units
    with pytest.raises(Damaged, match="video has 20 frames for 12 rows: which frames are extra is unknown"):
        list(source.frames(unit))


def test_v21_one_frame_too_many_is_refused_too(tmp_path: Path) -> None:
    write_v21(tmp_path, 12, codes=range(13))
    assert pairs(tmp_path) == {}


@pytest.mark.parametrize("missing", [0, 5, 11])
def test_v21_a_row_whose_frame_is_missing_is_left_out(missing: int, tmp_path: Path) -> None:
    left = [k for k in range(12) if k != missing]
    write_v21(tmp_path, 12, codes=left, places=left)
    assert pairs(tmp_path) == {0: [(k, k) for k in left]}


def test_v21_a_clock_that_starts_late_is_no_missing_frame(tmp_path: Path) -> None:
    write_v21(tmp_path, 12, codes=range(12), places=range(5, 17))
    assert pairs(tmp_path) == {0: right(0, 12)}


def test_v3_a_discarded_take_within_the_stated_part_costs_its_episode_alone(tmp_path: Path) -> None:
    codes = [*range(9), *JUNK, *range(9, 42)]
    starts = [0, 9, 29, 36]
    write_v3(tmp_path, LENGTHS, codes=codes, starts=starts, ends=[*starts[1:], 50])
    assert pairs(tmp_path) == {i: right(int(STARTS[i]), LENGTHS[i]) for i in (0, 2, 3)}


def test_v3_a_discarded_take_between_the_stated_parts_is_stepped_over(tmp_path: Path) -> None:
    codes = [*range(9), *JUNK, *range(9, 42)]
    starts = [0, 17, 29, 36]
    write_v3(tmp_path, LENGTHS, codes=codes, starts=starts, ends=[9, 29, 36, 50])
    assert pairs(tmp_path) == {i: right(int(STARTS[i]), LENGTHS[i]) for i in range(4)}


@pytest.mark.parametrize("ended", [True, False])
def test_v3_a_discarded_take_that_no_timestamp_tells_of_costs_the_episodes_of_its_video(
    ended: bool, tmp_path: Path
) -> None:
    write_v3(
        tmp_path / "in",
        LENGTHS,
        codes=[*range(9), *JUNK, *range(9, 42)],
        ends=None if ended else [None] * 4,
    )
    assert pairs(tmp_path / "in") == {}
    manifest = None
    with pytest.raises(Exception, match="nothing could be read") as caught:
        manifest = ingest([tmp_path / "in"], out=tmp_path / "out", short_side=48, workers=1).manifest
    assert manifest is None and "the video has 50 frames, its episodes take 42" in str(caught.value)


def test_v3_a_hole_in_the_times_shifts_nothing(tmp_path: Path) -> None:
    """The recorder lost frame 12, the fourth of the second episode; the frames after it are shown at their times."""
    left = [k for k in range(42) if k != 12]
    write_v3(tmp_path, LENGTHS, codes=left, places=left)
    expected = {i: right(int(STARTS[i]), LENGTHS[i]) for i in range(4)}
    expected[1].remove((12, 3))
    assert pairs(tmp_path) == expected


def test_v3_a_lost_last_frame_is_its_row_alone(tmp_path: Path) -> None:
    write_v3(tmp_path, LENGTHS, codes=range(41))
    expected = {i: right(int(STARTS[i]), LENGTHS[i]) for i in range(4)}
    expected[3].pop()
    assert pairs(tmp_path) == expected


def test_v3_frames_out_of_order_in_the_file_are_found_by_their_times(tmp_path: Path) -> None:
    write_v3(tmp_path, LENGTHS, bf=2)
    assert pairs(tmp_path) == {i: right(int(STARTS[i]), LENGTHS[i]) for i in range(4)}


def with_rows(root: Path, order: list[int]) -> Path:
    """The data file with its rows in this order; some may be there twice, or not at all."""
    file = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).take(order), file)
    return root


def test_rows_in_any_order_are_paired_by_their_frame_index(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(42).tolist()
    with_rows(write_v3(tmp_path, LENGTHS), order)
    assert pairs(tmp_path) == {i: right(int(STARTS[i]), LENGTHS[i]) for i in range(4)}


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ([*range(14), 13, *range(15, 42)], "12 rows have 11 different frame_index"),
        ([*range(13), *range(14, 42)], "12 frames for 11 rows: which frames are extra"),
    ],
)
def test_a_row_twice_or_missing_costs_its_episode(order: list[int], why: str, tmp_path: Path) -> None:
    with_rows(write_v3(tmp_path, LENGTHS), order)
    assert pairs(tmp_path) == {i: right(int(STARTS[i]), LENGTHS[i]) for i in (0, 2, 3)}
    source = LeRobotSource(tmp_path)
    with pytest.raises(Damaged, match=why):
        list(source.frames(source.listing().units[1]))


@pytest.mark.parametrize("start", [None, float("nan"), float("inf")])
def test_a_video_whose_episodes_do_not_all_say_where_they_start_is_refused(start: Any, tmp_path: Path) -> None:
    starts: list[Any] = [0.0, 9.0, 21.0, 28.0]
    write_v3(tmp_path, LENGTHS, starts=starts)
    file = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[2][f"videos/{CAMERA}/from_timestamp"] = start
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(InputError, match="holds 4 episodes, episode 2 states no from_timestamp"):
        LeRobotSource(tmp_path).listing()


@pytest.mark.parametrize("fps", [0, -10, "nan"])
def test_a_frame_rate_that_is_none_is_refused(fps: Any, tmp_path: Path) -> None:
    file = write_v3(tmp_path, LENGTHS) / "meta/info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fps": fps}))
    with pytest.raises(InputError, match=f"says fps {fps}; it must be more than 0"):
        LeRobotSource(tmp_path).listing()


def test_a_row_and_another_frame_missing_costs_the_episode(tmp_path: Path) -> None:
    """As many frames as rows, but not the same ones."""
    write_v3(tmp_path, [12], codes=range(11), ends=[11])
    with_rows(tmp_path, [k for k in range(12) if k != 4])
    source = LeRobotSource(tmp_path)
    with pytest.raises(Damaged, match="11 rows for frame_index 0 to 11: some are missing"):
        list(source.frames(source.listing().units[0]))
