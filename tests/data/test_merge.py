"""Parts of an ingest in processes of their own, and `robossl merge`: one store, bit for bit in its content."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import robossl
from robossl.data.manifest import read_manifest
from robossl.data.parts import parse_part
from robossl.data.source import Unit
from robossl.errors import InputError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes of numbered pictures, a damaged one, and labels with splits."""
    root = tmp_path_factory.mktemp("corpus") / "arm"
    rng = np.random.default_rng(0)
    lines = ["path,split,task"]
    for episode in range(12):
        folder = root / f"episode_{episode:02d}"
        folder.mkdir(parents=True)
        for frame in range(4):
            Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"{frame:05d}.png")
        lines.append(f"episode_{episode:02d},{'val' if episode % 4 == 0 else 'train'},task{episode % 3}")
    (root / "episode_05" / "00002.png").write_bytes(b"no picture")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def start(corpus: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "robossl", "ingest", str(corpus), "--out", str(out), "--short-side", "32"]
    return subprocess.Popen(
        [*line, "--workers", "1", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> robossl.Store:
    return robossl.ingest(corpus, out=tmp_path_factory.mktemp("whole") / "store", short_side=32, workers=1)


@pytest.fixture(scope="module")
def parts(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    running = [start(corpus, folder / f"{number}", "--part", f"{number}/2") for number in (1, 2)]
    for process in running:
        finish(process)
    return [folder / "1", folder / "2"]


def test_two_parts_merge_into_the_store_of_one_ingest(parts: list[Path], whole: robossl.Store, tmp_path: Path) -> None:
    merged = robossl.merge(parts[::-1], out=tmp_path / "joined")
    assert merged.content_hash == whole.content_hash and merged.num_episodes == 11
    assert merged.episode_id.tolist() == whole.episode_id.tolist()
    assert merged.labels("task").tolist() == whole.labels("task").tolist()
    for row in range(whole.num_frames):
        assert bytes(merged.jpeg(row)) == bytes(whole.jpeg(row))
    problems = [
        {problem.path for source in store.manifest.sources for problem in source.skipped} for store in (merged, whole)
    ]
    assert problems[0] == problems[1] and len(problems[0]) == 1
    each = [robossl.open_store(part).num_episodes for part in parts]
    assert sum(each) == 11 and min(each) > 0
    # Frames are linked, not copied.
    shard = next((tmp_path / "joined" / "shards").glob("*.arrow"))
    assert shard.stat().st_nlink == 2


def test_a_part_that_got_no_episode_is_merged_too(corpus: Path, whole: robossl.Store, tmp_path: Path) -> None:
    stores = []
    for number in range(1, 41):
        stores.append(robossl.ingest(corpus, out=tmp_path / str(number), short_side=32, workers=1, part=f"{number}/40"))
    assert min(store.num_episodes for store in stores) == 0
    assert robossl.merge([store.path for store in stores], out=tmp_path / "joined").content_hash == whole.content_hash


def test_a_unit_stays_in_its_part_when_others_appear() -> None:
    def deal(units: list[Unit]) -> list[set[str]]:
        return [{unit.key for unit in parse_part(f"{number}/16").deal("arm", units)} for number in range(1, 17)]

    units = [Unit(f"episode_{number}", "x", 1) for number in range(1000)]
    found, fewer = deal(units), deal(units[::2])
    assert sum(map(len, found)) == 1000 == len(set.union(*found))
    assert min(map(len, found)) > 35  # 62 on average
    assert all(few <= many for few, many in zip(fewer, found, strict=True))


@pytest.mark.slow
def test_parts_killed_at_random_times_go_on_to_the_same_store(
    corpus: Path, whole: robossl.Store, tmp_path: Path
) -> None:
    rng, killed = random.Random(0), 0
    for number in (1, 2):
        out, options = tmp_path / str(number), ("--part", f"{number}/2")
        while killed < 10 * number:
            process = start(corpus, out, *options)
            time.sleep(rng.uniform(0.5, 4.0))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            else:
                shutil.rmtree(out)
            process.communicate(timeout=60)
        finish(start(corpus, out, *options))
    merged = robossl.merge([tmp_path / "1", tmp_path / "2"], out=tmp_path / "joined")
    assert merged.content_hash == whole.content_hash


def test_a_merge_that_was_killed_goes_on(parts: list[Path], whole: robossl.Store, tmp_path: Path) -> None:
    out = tmp_path / "joined"
    (out / "shards").mkdir(parents=True)
    first = sorted((parts[0] / "shards").iterdir())
    os.link(first[0], out / "shards" / first[0].name)  # what a merge left that was killed after one file
    (out / "shards" / f"{first[0].name}.123.tmp").write_bytes(b"half")
    assert robossl.merge(parts, out=out).content_hash == whole.content_hash
    assert not list((out / "shards").glob("*.tmp"))
    assert robossl.merge(parts, out=out).content_hash == whole.content_hash


def test_stores_of_other_sources_are_merged(
    parts: list[Path], corpus: Path, whole: robossl.Store, tmp_path: Path
) -> None:
    other = tmp_path / "hand"
    shutil.copytree(corpus, other)
    for picture in other.glob("*/*.png"):
        if picture.parent.name != "episode_05":
            with Image.open(picture) as image:
                image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(picture)
    second = robossl.ingest(other, out=tmp_path / "second", short_side=32, workers=1)
    merged = robossl.merge([whole.path, second.path], out=tmp_path / "joined")
    assert merged.num_episodes == 22 and {source.name for source in merged.manifest.sources} == {"arm", "hand"}


def test_bad_input_is_one_clear_line(parts: list[Path], whole: robossl.Store, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "joined"
    cases: list[tuple[list[Path], str]] = [
        ([parts[0]], "merge needs two stores or more, got"),
        ([parts[0], whole.path], "merge takes the parts of one ingest, or whole stores, not both; got"),
        ([parts[0], tmp_path / "none"], "is not a store"),
    ]
    copy = tmp_path / "copy"
    shutil.copytree(parts[0], copy)
    cases.append(([parts[0], copy], r"part 2/2 is missing; ingest it, and name its store too"))
    cases.append(([parts[0], parts[1], copy], "part 1/2 is there twice"))
    twice = tmp_path / "twice"
    shutil.copytree(whole.path, twice)
    cases.append(([whole.path, twice], r"both hold the episode arm/episode_00; merge stores of different sources"))
    small = robossl.ingest(corpus, out=tmp_path / "small", short_side=16, workers=1)
    cases.append(([whole.path, small.path], "made with other settings: .* with --short-side 32 --quality 90, "))
    for stores, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            robossl.merge(stores, out=out)
        assert "\n" not in str(caught.value) and not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="is not empty; choose another folder"):
        robossl.merge(parts, out=out)
    assert (out / "mine.txt").read_text() == "keep"
    with pytest.raises(InputError, match="is one of the stores"):
        robossl.merge(parts, out=parts[0])
    for wrong in ("3", "0/2", "3/2", "a/b"):
        with pytest.raises(InputError, match=f"--part must be a number and a count, .*got '{wrong}'"):
            robossl.ingest(corpus, out=tmp_path / "new", part=wrong)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"holds part 1/2 of an ingest, got --part 2/2; choose another --out"):
        robossl.ingest(corpus, out=parts[0], part="2/2")
    with pytest.raises(InputError, match="holds a whole ingest, got --part 1/2"):
        robossl.ingest(corpus, out=whole.path, part="1/2")
    assert read_manifest(parts[0]).part == "1/2"
