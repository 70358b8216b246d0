"""Views in their cache: sizes said before, used again, whole after a kill; PSNR, SSIM, splits and the sheet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from probe_pictures import Pictures

from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.probes.frames import ProbeFrames
from robossl.probes.plan import FLOOR_JOB, make_decode_job, plan_views
from robossl.probes.sheet import GAP, TITLE, WIDTH, draw_contact_sheet, write_sheet
from robossl.probes.similarity import psnr, ssim
from robossl.probes.sources.store import StoreProbeFrames
from robossl.probes.split import split_frames
from robossl.probes.views import RenderJob, Views

LEVELS = {"hue": (1, 5), "rotation": (3,), "rot90": (1,), "hflip": (1,), "latency": (2,)}
DECODE = {"rotation": (3,), "rot90": (1, 2)}


@pytest.fixture(scope="module")
def frames(clip_store_path: Path) -> ProbeFrames:
    return StoreProbeFrames(open_store(clip_store_path))


def opened(frames: ProbeFrames, folder: Path, *, seed: int = 0) -> Views:
    return Views(frames, split_frames(frames, n_reference=12, n_evaluation=6, seed=seed), folder, seed=seed)


@pytest.fixture(scope="module")
def views(frames: ProbeFrames, tmp_path_factory: pytest.TempPathFactory) -> Views:
    made = opened(frames, tmp_path_factory.mktemp("cache"))
    made.render(plan_views(made, LEVELS, decode=DECODE).jobs)
    return made


def test_the_size_that_is_said_is_the_size_on_disk(views: Views) -> None:
    plan = plan_views(views, LEVELS, decode=DECODE)
    files = list(views.folder.glob("*.npy"))
    assert plan.num_bytes == sum(path.stat().st_size for path in files)
    assert len(files) == len(plan.jobs) == 8 + 1 + 6 + 4
    assert views.num_missing(plan.jobs) == 0 and plan.seconds == 0


def test_what_is_there_is_not_rendered_again(views: Views) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in views.folder.iterdir()}
    told: list[tuple[int, int]] = []
    views.render(plan_views(views, LEVELS, decode=DECODE).jobs, progress=lambda *each: told.append(each))
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in views.folder.iterdir()} == before
    assert told == []


def test_progress_ends_at_what_was_missing(frames: ProbeFrames, tmp_path: Path) -> None:
    views = opened(frames, tmp_path)
    told: list[tuple[int, int]] = []
    plan = plan_views(views, {"hue": (1,)})
    views.render(plan.jobs, progress=lambda *each: told.append(each))
    assert told[-1] == (30, 30) and [done for done, _ in told] == sorted(done for done, _ in told)


def test_another_seed_or_split_is_another_file(views: Views, frames: ProbeFrames) -> None:
    job = RenderJob("hue", 1, "level", "evaluation")
    other = Views(frames, views.split, views.folder.parent, seed=1)
    assert other.path(job) != views.path(job)
    assert other.path(views.clean(job)) == views.path(views.clean(job))
    assert opened(frames, views.folder.parent, seed=2).path(views.clean(job)) != views.path(views.clean(job))


@pytest.mark.parametrize("damage", ["cut", "no figures"])
def test_a_damaged_file_is_rendered_again(frames: ProbeFrames, tmp_path: Path, damage: str) -> None:
    views, job = opened(frames, tmp_path), RenderJob("hue", 1, "level", "evaluation")
    whole = views.pixels(job).copy()
    path = views.path(job)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.with_suffix(".json").unlink()
    (path.parent / "notes.tmp").write_text("not ours")
    assert views.num_missing([job]) == len(whole)
    views.render([job])
    assert np.array_equal(views.pixels(job), whole) and views.view(job).psnr is not None


def test_a_cache_that_is_no_folder_is_said_in_one_line(frames: ProbeFrames, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    views = opened(frames, tmp_path / "cache")
    with pytest.raises(InputError, match=r"cannot write to .*: Not a directory"):
        views.render([FLOOR_JOB])


def test_records_say_how_far_pixels_moved(views: Views) -> None:
    mild, severe = (views.view(RenderJob("hue", level, "level", "evaluation")) for level in (1, 5))
    assert mild.psnr is not None and severe.psnr is not None and mild.psnr > severe.psnr
    assert mild.ssim is not None and 0.9 < mild.ssim <= 1
    assert mild.params == {"unit": "turns", "values": [-0.02, 0.02]}
    floor = views.view(FLOOR_JOB)
    assert floor.psnr is not None and 47 < floor.psnr < 49.5  # one grey level, and its rounding


def test_kinds_are_read_back_from_one_draw() -> None:
    assert make_decode_job("rot90", 1, "reference") == make_decode_job("rot90", 3, "reference")
    assert make_decode_job("rotation", 1, "reference") != make_decode_job("rotation", 3, "reference")


def test_what_frames_cannot_show_is_said_with_its_reason(tmp_path: Path) -> None:
    noise = Pictures(np.random.default_rng(0).integers(0, 255, (12, 32, 40, 3), np.uint8))
    views = opened(noise, tmp_path)
    plan = plan_views(views, {"latency": (1, 2), "table_texture": (1,), "blur": (5,)})
    assert plan.unavailable == {"latency": "pictures have no past", "table_texture": "pictures cannot be changed"}
    assert {job.factor for job in plan.jobs} == {"plain", "floor", "blur"}


def test_a_level_that_is_none_is_refused(views: Views) -> None:
    with pytest.raises(InputError, match="rot90 has levels 1 to 3, got 5"):
        plan_views(views, {"rot90": (5,)})


PROGRAM = """
import sys
from pathlib import Path
from robossl.data.store import open_store
from robossl.probes.plan import plan_views
from robossl.probes.sources.store import StoreProbeFrames
from robossl.probes.split import split_frames
from robossl.probes.views import Views
frames = StoreProbeFrames(open_store(Path(sys.argv[1])))
views = Views(frames, split_frames(frames, n_reference=12, n_evaluation=6), Path(sys.argv[2]))
plan = plan_views(views, {name: (1, 2, 3, 4, 5) for name in ("rotation", "perspective")})
views.render(plan.jobs)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_files(clip_store_path: Path, tmp_path: Path) -> None:
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    command = [sys.executable, "-c", PROGRAM, str(clip_store_path)]
    process = subprocess.Popen([*command, str(cache)])
    deadline = time.monotonic() + 120
    while len(list(cache.glob("*/*.npy"))) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path.name: path.stat().st_ino for path in cache.glob("*/*.npy")}
    assert done
    left = cache / next(cache.iterdir()).name / f"half.npy.{process.pid}.tmp"
    left.write_bytes(b"half")
    for folder in (cache, whole):
        subprocess.run([*command, str(folder)], check=True)
    again = {path.name: path for path in cache.glob("*/*")}
    assert {path.name for path in whole.glob("*/*")} == set(again)
    assert all(again[path.name].read_bytes() == path.read_bytes() for path in whole.glob("*/*"))
    assert all(again[name].stat().st_ino == number for name, number in done.items())


def test_psnr_and_ssim_are_what_their_formulas_say() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (2, 20, 24, 3), np.uint8) for _ in range(2))
    inside = np.ones((20, 24), bool)
    assert np.allclose(psnr(a, b, 480)[0], 20 * np.log10(255 / np.sqrt(np.mean((a[0] * 1.0 - b[0]) ** 2))))
    assert psnr(a, a, 480)[0] == np.inf and np.allclose(ssim(a, a, inside), 1)
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = (pixels[0] @ np.array([0.299, 0.587, 0.114]) for pixels in (a, b))
    found = []
    for i in range(5, 15):
        for j in range(5, 19):
            p, q = x[i - 5 : i + 6, j - 5 : j + 6], y[i - 5 : i + 6, j - 5 : j + 6]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            c1, c2 = 2.55**2, 7.65**2
            found.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert np.allclose(ssim(a, b, inside)[0], np.mean(found))


def test_no_cluster_is_on_both_sides_and_frames_come_from_many() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(100), rng.integers(1, 60, 100))
    frames = Pictures(rng.integers(0, 255, (len(clusters), 4, 4, 3), np.uint8), clusters)
    split = split_frames(frames, n_reference=200, n_evaluation=50, seed=3)
    ours, theirs = clusters[split.reference], clusters[split.evaluation]
    assert not set(ours) & set(theirs)
    assert (len(ours), len(theirs)) == (200, 50)
    assert len(set(theirs)) >= 18 and np.unique(theirs, return_counts=True)[1].max() <= 6
    again = split_frames(frames, n_reference=200, n_evaluation=50, seed=3)
    assert (again.evaluation == split.evaluation).all() and (again.reference == split.reference).all()
    assert set(split_frames(frames, seed=4).evaluation) != set(split_frames(frames, seed=3).evaluation)


def test_few_frames_make_smaller_sides_with_clusters_enough_to_judge() -> None:
    frames = Pictures(np.random.default_rng(0).integers(0, 255, (60, 4, 4, 3), np.uint8))
    split = split_frames(frames)
    assert len(split.evaluation) == 30 and len(split.reference) == 30


def test_frames_that_say_nothing_are_refused() -> None:
    one = Pictures(np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=r"pictures has 1 frame\(s\) of 1 picture, a probe needs two or more"):
        split_frames(one)
    alike = Pictures(np.full((40, 8, 8, 3), 7, np.uint8))
    with pytest.raises(InputError, match="all are equal"):
        split_frames(alike)


def test_the_sheet_shows_every_level(views: Views, tmp_path: Path) -> None:
    plan = plan_views(views, LEVELS, decode=DECODE)
    write_sheet(draw_contact_sheet(views, plan.jobs), tmp_path / "sheet.png")
    height, width = views.frames.hw
    size = WIDTH, round(WIDTH * height / width)
    shown = Image.fromarray(views.pixels(RenderJob("hue", 5, "level", "evaluation"))[0]).resize(
        size, Image.Resampling.LANCZOS
    )
    with Image.open(tmp_path / "sheet.png") as seen:
        pixels = np.asarray(seen.convert("RGB"))
    top, left = GAP + 2 * TITLE, GAP + 2 * (WIDTH + GAP)  # the second level of the first factor
    assert (pixels[top : top + size[1], left : left + WIDTH] == np.asarray(shown)).all()
