"""Render the views (transformed frames) of a probe once for all encoders, into a cache of uint8 files.

A file's name depends on everything that its pixels depend on: the frames, the strengths and the code of the factor, the
seed, and the positions of the frames. A file is written in one step, so it is complete or absent. A new run therefore
continues where a killed run stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.common.atomic_io import atomic_write, is_whole_array, raise_disk_full
from robossl.errors import InputError
from robossl.probes import factors
from robossl.probes.factor_checks import check_views
from robossl.probes.factors import resolve_factor
from robossl.probes.factors.factor import Factor, Values
from robossl.probes.factors.warping import crop_square, identities, make_disc, mask_outside_disc, warp_frames
from robossl.probes.frames import ProbeFrames, Split
from robossl.probes.result import ViewFigures
from robossl.probes.similarity import psnr, ssim

_CHUNK = 32  # number of frames that are rendered at once
_HEADER_BYTES = 128  # size of the header of a .npy file
# Number of evenly chosen frames on which SSIM is computed. For all frames, it would take longer than rendering them.
_SSIM_FRAMES = 64
_BASES = ("plain", "disc", "resampled", "square")

Part = Literal["reference", "evaluation"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RenderJob:
    """The content of one file: the reference frames or the judged frames, transformed by a factor or clean.

    Args:
        factor: A name in FACTORS, or "floor" (noise of one grey level). For clean frames, the base instead, which says
            how frames are cut: "plain", "disc", "resampled" or "square".
        level: Strength from 1 to 5; 0 for clean frames.
        draw: "clean": no transformation. "level": the strength of the level. "decode": different strengths up to the
            level (see `Factor.draw`).
        part: Which frames: "reference" (for fits) or "evaluation" (judged).
    """

    factor: str
    level: int
    draw: Literal["clean", "level", "decode"]
    part: Part


class Views:
    """The views (transformed frames) of the reference frames and the judged frames, in files of a cache."""

    def __init__(self, frames: ProbeFrames, split: Split, folder: Path, *, seed: int = 0) -> None:
        """Set the frames and the cache folder; render nothing yet."""
        self.frames, self.split, self.seed = frames, split, seed
        self.folder = folder / frames.digest[:16]

    def positions(self, job: RenderJob) -> Int[ndarray, " n"]:
        """Return the positions (indices among all frames) of the frames that a render job uses."""
        return self.split.reference if job.part == "reference" else self.split.evaluation

    def values(self, job: RenderJob) -> Values:
        """Return for each frame the factor's strength and random numbers. For clean frames, the rows are empty."""
        at = self.positions(job)
        if job.draw == "clean":
            return np.zeros((len(at), 0))
        return resolve_factor(job.factor).draw(job.level, at, seed=self.seed, draw=job.draw)

    def pixels(self, job: RenderJob) -> UInt8[ndarray, "n h w 3"]:
        """Return the rendered frames of a job as a memory map; render the job's file if it is missing."""
        path = self.path(job)
        if not self._is_done(job):
            self._write(job, path, lambda _: None)
        found: UInt8[ndarray, "n h w 3"] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found

    def view(self, job: RenderJob) -> ViewFigures:
        """Return the report's entry for a render job: its strength, and how much it changed the pixels."""
        self.pixels(job)
        factor = resolve_factor(job.factor)
        apart = json.loads(self.path(job).with_suffix(".json").read_text())
        strengths = factor.strengths(job.level)
        return ViewFigures(
            factor=job.factor,
            family=factor.family,
            level=job.level,
            params={"unit": factor.unit, "values": list(strengths)},
            psnr=apart["psnr"],
            ssim=apart["ssim"],
        )

    def clean(self, job: RenderJob) -> RenderJob:
        """Return the render job of the clean frames with which the transformed frames of a job are compared."""
        return RenderJob(resolve_factor(job.factor).base, 0, "clean", job.part)

    def shape(self, job: RenderJob) -> tuple[int, int, int, int]:
        """Return the shape of the pixels that a render job makes."""
        base = job.factor if job.draw == "clean" else resolve_factor(job.factor).base
        return _shape(len(self.positions(job)), self.frames, base)

    def path(self, job: RenderJob) -> Path:
        """Return the path of the file that a render job makes."""
        about: list[object] = [
            _code_digest(job.factor),
            self.frames.digest,
            self.shape(job),
            job.factor,
            job.level,
            job.draw,
        ]
        if job.draw != "clean":
            factor = resolve_factor(job.factor)
            about += [self.seed, factor.clean, factor.sides, factor.num_draws, factor.scale, factor.base]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(self.positions(job).astype(np.int64).tobytes())
        return self.folder / f"{job.factor}-{job.level}-{job.draw}-{job.part}-{digest.hexdigest()[:12]}.npy"

    def num_bytes(self, jobs: Iterable[RenderJob]) -> int:
        """Return the size in bytes of the files of some render jobs, whether the files exist or not."""
        return sum(_HEADER_BYTES + int(np.prod(self.shape(job))) for job in set(jobs))

    def num_missing(self, jobs: Iterable[RenderJob]) -> int:
        """Return the number of frames of some render jobs that are not rendered yet."""
        return sum(len(self.positions(job)) for job in set(jobs) if not self._is_done(job))

    def render(self, jobs: Sequence[RenderJob], *, progress: Progress = lambda done, total: None) -> None:
        """Render the missing files of some render jobs.

        Args:
            jobs: Render jobs in order: clean frames come before the transformed frames that are compared with them.
            progress: Function that is called with the number of frames rendered so far and the number to render.

        Raises:
            InputError: the cache is not writable.
            ResourceError: the disk is full. Files that were rendered are kept.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None
        remove_leftovers(self.folder)
        todo = [job for job in dict.fromkeys(jobs) if not self._is_done(job)]
        total, done = sum(len(self.positions(job)) for job in todo), 0
        for job in todo:

            def tell(frames: int, before: int = done) -> None:
                progress(before + frames, total)

            if not self._is_done(job):
                self._write(job, self.path(job), tell)
            done += len(self.positions(job))

    def _is_done(self, job: RenderJob) -> bool:
        """Return whether the file of a render job is complete.

        If the job's `draw` is "level", a .json file must also lie beside it.
        """
        path = self.path(job)
        return is_whole_array(path) and (job.draw != "level" or path.with_suffix(".json").is_file())

    def _write(self, job: RenderJob, path: Path, tell: Callable[[int], None]) -> None:
        """Render a job into the file `path`.

        If the job's `draw` is "level", first write PSNR and SSIM into a .json file beside it.
        """
        compared = self.pixels(self.clean(job)) if job.draw == "level" else None
        at, values = self.positions(job), self.values(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with raise_disk_full(path.parent), atomic_write(path) as aside:
            out = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=self.shape(job))
            for start in range(0, len(at), _CHUNK):
                rows = slice(start, start + _CHUNK)
                out[rows] = self._render(job, at[rows], values[rows])
                tell(min(start + _CHUNK, len(at)))
            out.flush()
            if compared is not None:
                with atomic_write(path.with_suffix(".json")) as beside:
                    beside.write_text(
                        json.dumps(_measure_change(compared, out, plain=self.clean(job).factor == "plain"))
                    )

    def _render(self, job: RenderJob, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        if job.draw == "clean":
            return render_clean(self.frames, at, job.factor)
        return render_frames(resolve_factor(job.factor), self.frames, at, values)


@cache
def _code_digest(factor: str) -> str:
    """Return a hash of the source code that renders a factor, so that files rendered by other code are not used."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in [*sorted(Path(factors.__path__[0]).glob("*.py")), *factors.FACTORS.source_files(factor)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def render_frames(
    factor: Factor, frames: ProbeFrames, at: Int[ndarray, " b"], values: Values
) -> UInt8[ndarray, "b h w 3"]:
    """Return the frames at the positions `at`, transformed by a factor.

    At the clean strength, a factor changes nothing. Therefore a frame with this strength is only cut and resampled,
    like the clean frame that it is compared with.
    """
    changed = values[:, 0] != factor.clean
    if not changed.any():
        return render_clean(frames, at, factor.base)
    views = apply_factor(factor, frames, at[changed], values[changed])
    out = np.empty((len(at), *views.shape[1:]), np.uint8)
    out[changed] = views
    if not changed.all():
        out[~changed] = render_clean(frames, at[~changed], factor.base)
    return out


def apply_factor(
    factor: Factor, frames: ProbeFrames, at: Int[ndarray, " b"], values: Values
) -> UInt8[ndarray, "b h w 3"]:
    """Return the views (transformed frames) that a factor renders, cut like the clean views.

    Call the factor for every frame, even for frames with the clean strength (at which the factor changes nothing).

    Raises:
        InputError: the factor does not return uint8 pixels, or their shape is wrong.
        ViewUnavailableError: the factor cannot be rendered for these frames.
    """
    views = check_views(factor.apply(frames, at, values), factor, _shape(len(at), frames, factor.base))
    return views if factor.base == "plain" else mask_outside_disc(views)


def _shape(num_frames: int, frames: ProbeFrames, base: str) -> tuple[int, int, int, int]:
    height, width = frames.hw
    if base == "square":
        height = width = min(height, width)
    return num_frames, height, width, 3


def render_clean(frames: ProbeFrames, at: Int[ndarray, " b"], base: str) -> UInt8[ndarray, "b h w 3"]:
    """Return frames that are not transformed, but cut and resampled like the views of factors with this `base`."""
    if base not in _BASES:
        raise InputError(f"a clean view is one of {', '.join(_BASES)}, got {base!r}")
    pixels = frames.clean(at)
    match base:
        case "plain":
            return pixels
        case "resampled":
            pixels = warp_frames(pixels, identities(len(pixels)))
        case "square":
            pixels = crop_square(pixels)
    return mask_outside_disc(pixels)


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files of processes that no longer run."""
    for path in folder.glob("*.tmp"):
        pid = path.name.split(".")[-2]
        if not pid.isdigit():
            continue  # no probe wrote this file
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:
            continue  # the process runs and belongs to another user


def _measure_change(
    clean: UInt8[ndarray, "n h w 3"], view: UInt8[ndarray, "n h w 3"], *, plain: bool
) -> dict[str, float | None]:
    """Return mean PSNR and SSIM over the frames whose pixels changed; both are None if no frame changed.

    SSIM uses up to 64 of these frames. If frames are cut to a disc (not `plain`), only pixels inside the disc count.
    """
    height, width = clean.shape[1:3]
    inside = np.ones((height, width), bool) if plain else make_disc((height, width))
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(clean), _CHUNK)]
    ratios = np.concatenate([psnr(clean[rows], view[rows], int(inside.sum())) for rows in chunks])
    moved = np.flatnonzero(np.isfinite(ratios))
    if not len(moved):
        return {"psnr": None, "ssim": None}
    some = moved[np.unique(np.linspace(0, len(moved) - 1, min(len(moved), _SSIM_FRAMES)).astype(int))]
    return {"psnr": float(ratios[moved].mean()), "ssim": float(ssim(clean[some], view[some], inside).mean())}
