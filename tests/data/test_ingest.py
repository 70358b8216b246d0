"""Ingest: the same store however it was made, restarts, additions, duplicates, full disks."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from places import CLIPS

from robossl.data.ingest import ingest
from robossl.data.manifest import read_manifest
from robossl.data.store import Store, open_store
from robossl.errors import InputError, ResourceError

RUN = """
import sys
from pathlib import Path
from robossl.data.ingest import ingest
from robossl.errors import RobosslError
if __name__ == "__main__":
    try:
        ingest([Path(sys.argv[1])], out=Path(sys.argv[2]), short_side=48, workers=int(sys.argv[3]))
    except RobosslError as error:
        sys.exit(f"{error.exit_code} {error}")
"""


@pytest.fixture
def clips(tmp_path):
    """The nine shorter shipped clips, with frame counts in the csv so high that each becomes a shard of its own."""
    root = Path(shutil.copytree(CLIPS, tmp_path / "droid"))
    with open(root / "episodes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if int(row["frames"]) >= 80:
            (root / row["path"]).unlink()
    write_rows(root, [row | {"frames": "5000"} for row in rows if int(row["frames"]) < 80])
    return root


def write_rows(root: Path, rows: list[dict[str, str]]) -> None:
    with open(root / "episodes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def start(root: Path, out: Path, workers: int, **options):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, root, out, str(workers)], stderr=subprocess.PIPE, text=True, **options
    )


def content(store: Store) -> list[object]:
    """Everything a reader can see, in order."""
    pictures = [store.jpeg(row).tobytes() for row in range(store.num_frames)]
    labels = [store.labels(name).tolist() for name in store.label_names]
    return [store.episode_id.tolist(), store.episode_split.tolist(), labels, store.time_seconds.tolist(), pictures]


def shards(out: Path) -> set[str]:
    return {path.name for path in (out / "shards").glob("*.units")}


def test_killed_resumed_and_parallel_runs_make_the_same_store(clips, tmp_path):
    ingest([clips], out=tmp_path / "straight", short_side=48, workers=1)
    straight = open_store(tmp_path / "straight")
    assert len(shards(tmp_path / "straight")) == 9

    process = start(clips, tmp_path / "killed", 2)
    while len(shards(tmp_path / "killed")) < 3:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    early = shards(tmp_path / "killed")
    assert 3 <= len(early) < 9
    with pytest.raises(InputError, match=r"(is not a store|is unfinished)"):
        open_store(tmp_path / "killed")
    times = {name: (tmp_path / "killed" / "shards" / name).stat().st_mtime_ns for name in early}

    process = start(clips, tmp_path / "killed", 2)
    process.communicate()
    assert process.returncode == 0
    resumed = open_store(tmp_path / "killed")
    assert all((tmp_path / "killed" / "shards" / name).stat().st_mtime_ns == then for name, then in times.items())
    assert not list((tmp_path / "killed").glob("**/*.tmp"))
    assert resumed.content_hash == straight.content_hash
    assert content(resumed) == content(straight)


def test_workers_die_with_their_parent(clips, tmp_path):
    process = start(clips, tmp_path / "out", 2)
    while not shards(tmp_path / "out"):
        time.sleep(0.005)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlived the killed ingest"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_second_run_adds_only_what_is_new(clips, tmp_path, capsys):
    late = sorted(clips.glob("videos/*/*.mp4"))[4:7]
    for path in late:
        path.rename(tmp_path / path.name)
    ingest([clips], out=tmp_path / "out", short_side=48, workers=1)
    opened, first = open_store(tmp_path / "out"), shards(tmp_path / "out")
    before = content(opened)
    assert opened.num_episodes == 6 and opened.manifest.num_skipped == 3  # the csv names the missing ones

    for path in late:
        (tmp_path / path.name).rename(path)
    capsys.readouterr()
    ingest([clips], out=tmp_path / "out", short_side=48, workers=1)
    assert "9 episodes, 3 new" in capsys.readouterr().out
    assert len(shards(tmp_path / "out") - first) == 3
    assert content(opened) == before  # an open store does not change under its reader
    ingest([clips], out=tmp_path / "straight", short_side=48, workers=1)
    grown = open_store(tmp_path / "out")
    assert grown.manifest.num_skipped == 0
    assert grown.content_hash == read_manifest(tmp_path / "straight").content_hash
    assert content(grown) == content(open_store(tmp_path / "straight"))


def test_equal_reasons_are_printed_three_times_and_then_counted(tmp_path, capsys):
    root = tmp_path / "clips"
    root.mkdir()
    for number in range(8):
        (root / f"{number}.mp4").write_bytes(b"x" * 99)
    with pytest.raises(InputError, match="nothing could be read"):
        ingest([root], out=tmp_path / "out", workers=1)
    said = capsys.readouterr().out
    assert said.count("skipped clips/") == 3 and "... and 5 more with the same reason: cannot be opened" in said
    assert "manifest.json" not in said  # none is written

    shutil.copy(next(CLIPS.glob("videos/*/*.mp4")), root / "good.mp4")
    ingest([root], out=tmp_path / "out", short_side=48, workers=1)
    assert "all skipped and corrected files are listed in manifest.json" in capsys.readouterr().out


def test_the_last_line_says_whether_older_sources_are_counted(clips, tmp_path, capsys):
    one = next(CLIPS.glob("videos/*/*.mp4"))
    for source, expected in ((clips, "s: 9 episodes, "), (clips, "s: 9 episodes, "), (one, "s: the store now has 10 ")):
        ingest([source], out=tmp_path / "out", short_side=48, workers=1)
        assert expected in next(line for line in capsys.readouterr().out.splitlines() if "done in" in line)


def test_new_labels_cost_no_decoding(clips, tmp_path):
    first = ingest([clips], out=tmp_path / "out", short_side=48, workers=1).manifest
    with open(clips / "episodes.csv", newline="") as file:
        write_rows(clips, [row | {"scene": "Moon"} for row in csv.DictReader(file)])
    before = shards(tmp_path / "out")
    second = ingest([clips], out=tmp_path / "out", short_side=48, workers=1).manifest
    assert shards(tmp_path / "out") == before and second.content_hash != first.content_hash
    assert set(open_store(tmp_path / "out").labels("scene")) == {"Moon"}


def test_two_sources_and_a_changed_file(clips, tmp_path):
    other = tmp_path / "b" / "droid"  # the same folder name
    other.mkdir(parents=True)
    path = sorted(clips.glob("videos/*/*.mp4"))[0]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    write_video(other / "x.mp4", list(pixels))
    ingest([clips, other], out=tmp_path / "out", short_side=48, workers=1)
    store = open_store(tmp_path / "out")
    assert store.episode_id[-1] == "droid-2/x.mp4" and store.num_episodes == 10

    shutil.copyfile(other / "x.mp4", path)
    ingest([clips], out=tmp_path / "out", short_side=48, workers=1)  # only one of the sources this time
    changed = open_store(tmp_path / "out")
    assert changed.num_episodes == 9  # the new content of the file is that of droid-2/x.mp4, stored once
    assert changed.episode_start[1] == 3 and changed.manifest.duplicate_episodes == 1


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})  # lossless: equal frames stay equal
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def test_repeated_frames_are_dropped_and_counted(tmp_path):
    (tmp_path / "in").mkdir()
    a, b, c = (np.full((48, 64, 3), value, np.uint8) for value in (30, 120, 210))
    write_video(tmp_path / "in" / "v.mp4", [a, a, b, b, b, c, a, a])
    manifest = ingest([tmp_path / "in"], out=tmp_path / "out", workers=1).manifest
    store = open_store(tmp_path / "out")
    assert store.time_seconds == pytest.approx([0, 0.2, 0.5, 0.6])  # a b c a: only repetitions go
    assert manifest.duplicate_frames == 4 and store.end_seconds == pytest.approx([0.7])
    floor = np.searchsorted(store.time_seconds, 0.45, side="right") - 1  # the frame at 0.45 s
    assert store.decode([floor])[0].float().mean() == pytest.approx(120, abs=3)


def test_repeated_episodes_are_dropped_and_counted(clips, tmp_path):
    path = sorted(clips.glob("videos/*/*.mp4"))[0]
    shutil.copyfile(path, clips / "zz.mp4")
    pictures = tmp_path / "pictures"
    for name in ("train/x/1.png", "train/x/2.png", "val/x/3.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (name == "train/x/2.png", 99, 5)).save(pictures / name)
    manifest = ingest([clips, pictures], out=tmp_path / "out", short_side=48, workers=1).manifest
    store = open_store(tmp_path / "out")
    assert manifest.duplicate_episodes == 2 and store.num_episodes == 11
    assert "droid/zz.mp4" not in store.episode_id and "pictures/val/x/3.png" not in store.episode_id


def test_settings_must_stay_the_same(clip_store_path):
    with pytest.raises(InputError, match="was made with --short-side 96 --quality 90, got --short-side 64; leave"):
        ingest([CLIPS], out=clip_store_path, short_side=64)
    with pytest.raises(InputError, match="was made with --short-side 96 --quality 90, got --quality 80; leave"):
        ingest([CLIPS], out=clip_store_path, quality=80)


def test_a_source_is_added_with_the_settings_of_the_store(tmp_path):
    for name, height in (("first", 100), ("second", 120)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (height * 2, height), (height, 9, 5)).save(tmp_path / name / "a.png")
    out = tmp_path / "store"
    ingest([tmp_path / "first"], out=out, short_side=48, quality=80, workers=1)
    manifest = ingest([tmp_path / "second"], out=out, workers=1).manifest
    assert (manifest.short_side, manifest.quality) == (48, 80)
    assert open_store(out).frame_hw.tolist() == [[48, 96], [48, 96]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 4}, "short_side must be 16"),
        ({"quality": 0}, "quality must be 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"thin": -1}, "thin must be 0 to 255"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ingest([CLIPS], out=tmp_path / "out", **options)
    with pytest.raises(InputError, match="no source given"):
        ingest([], out=tmp_path / "out")


def test_one_ingest_at_a_time(clips, tmp_path):
    process = start(clips, tmp_path / "out", 1)
    while not shards(tmp_path / "out"):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ResourceError, match="another ingest is writing"):
            ingest([clips], out=tmp_path / "out", short_side=48)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_leaves_nothing_half_written_and_the_rest_goes_on(clips, tmp_path, workers):
    def small_files() -> None:  # a write beyond 90 kB fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))

    process = start(clips, tmp_path / "out", workers, preexec_fn=small_files)
    _, errors = process.communicate()
    assert (
        process.returncode == 1 and errors.strip().startswith("1 disk full while writing") and errors.count("\n") == 1
    )
    found = {path.stem for path in (tmp_path / "out" / "shards").iterdir() if path.suffix == ".arrow"}
    assert found <= {Path(name).stem for name in shards(tmp_path / "out")}
    ingest([clips], out=tmp_path / "out", short_side=48, workers=1)
    ingest([clips], out=tmp_path / "straight", short_side=48, workers=1)
    assert read_manifest(tmp_path / "out").content_hash == read_manifest(tmp_path / "straight").content_hash


def test_disk_full_while_the_index_is_written_keeps_the_old_store(tmp_path):
    root, rng = tmp_path / "in", np.random.default_rng(0)
    for first in (0, 300):
        for number in range(first, first + 300):
            path = root / f"{'n' * 240}{number:04d}.png"  # long names: the index outgrows every shard
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        if not first:
            ingest([root], out=tmp_path / "out", short_side=48, workers=1)
    before = content(open_store(tmp_path / "out"))
    limit = round(1.25 * max(path.stat().st_size for path in (tmp_path / "out").glob("**/*.arrow")))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(root, tmp_path / "out", 1, preexec_fn=small_files)
    _, errors = process.communicate()
    assert errors.startswith("1 disk full while writing") and len(shards(tmp_path / "out")) == 2
    assert content(open_store(tmp_path / "out")) == before
    assert ingest([root, root], out=tmp_path / "out", short_side=48, workers=1).manifest.num_episodes > len(before[0])


def test_too_small_a_disk_is_said_before_anything_is_read(clips, tmp_path):
    with open(clips / "episodes.csv", newline="") as file:
        write_rows(clips, [row | {"frames": "9" * 12} for row in csv.DictReader(file)])
    with pytest.raises(ResourceError, match=r"needs about \d+\.\d GiB"):
        ingest([clips], out=tmp_path / "out", short_side=48)
    assert not shards(tmp_path / "out") and not (tmp_path / "out" / "manifest.json").exists()


def test_licence_given_stated_or_unknown(clips, tmp_path):
    assert ingest([clips], out=tmp_path / "a", short_side=16, workers=1).manifest.licences == ("CC BY 4.0",)
    (clips / "SOURCE.md").unlink()
    assert ingest([clips], out=tmp_path / "b", short_side=16, workers=1).manifest.licences == ("unknown",)
    assert ingest([clips], out=tmp_path / "b", short_side=16, licence="MIT").manifest.licences == ("MIT",)
    (clips / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Data\n")
    assert ingest([clips], out=tmp_path / "c", short_side=16, workers=1).manifest.licences == ("cc-by-nc-4.0",)


def test_a_store_goes_to_no_run_and_no_source_and_a_store_is_no_source(tmp_path, clip_store_path):
    videos, run = shutil.copytree(CLIPS, tmp_path / "videos"), tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "metrics.jsonl").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"mine holds a run; choose another --out .*, such as stores/mine$"):
        ingest(videos, out=run, workers=1)
    with pytest.raises(InputError, match=r"videos is the source; choose another folder, such as stores/videos$"):
        ingest(videos, out=videos, workers=1)
    with pytest.raises(InputError, match=r"clips is a store already; pass it to --data\.store"):
        ingest(clip_store_path, out=tmp_path / "store", workers=1)
    assert sorted(tmp_path.rglob("*")) == before
