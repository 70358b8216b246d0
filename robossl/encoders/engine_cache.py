"""Keep TensorRT's engines and timings on disk: an engine is built once for a model, a GPU and a set of versions.

onnxruntime writes engines in place, byte by byte, and two processes that start together would both build. So a process
builds in a folder of its own, under a lock, and renames the folder when the engine is complete:

    CACHE/NVIDIA-H200-sm90-onnxruntime1.31.1-cuda13.0-tensorrt10.13.3/    one GPU and set of versions, with its lock
        *.timing                                                          the timings of kernels, for all models
        0123456789ab-cdef01234567/                                        one model with one set of options
            *.engine, *.profile, key.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from robossl.common.atomic_io import check_folder, locked
from robossl.encoders.gpus import GpuInfo

_log = logging.getLogger("robossl.encoders")
_KEY = "key.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnginePlace:
    """Where the engines of one model lie."""

    machine: Path  # folder of the GPU and the versions
    folder: Path  # folder of the model in it; it exists if the engines are complete
    key: dict[str, object]  # everything that the names of both folders stand for

    @property
    def is_built(self) -> bool:
        """Whether the engines are there."""
        return (self.folder / _KEY).is_file()


def default_cache() -> Path:
    """Return robossl/engines in the user's cache folder (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robossl" / "engines"


def engine_place(
    cache: Path | None,
    *,
    model_sha256: str,
    gpu: GpuInfo | None,
    versions: Mapping[str, str | None],
    options: Mapping[str, str],
    tf32: bool = False,
) -> EnginePlace:
    """Return the folder of a model's engines.

    Args:
        cache: The folder of all engines; None for `default_cache`.
        model_sha256: Digest of the model file.
        gpu: The GPU; None if there is none, as in a dry run.
        versions: Versions of the libraries by name.
        options: Options of the provider, without the paths of the cache.
        tf32: Whether TF32 is allowed; TensorRT's provider has no option for it.
    """
    where = f"{gpu.name}-sm{gpu.capability[0]}{gpu.capability[1]}" if gpu else "no-gpu"
    names = "-".join(f"{name}{version or '-missing'}" for name, version in sorted(versions.items()))
    machine = (cache or default_cache()) / re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{where}-{names}")
    kept = {name: value for name, value in sorted(options.items()) if not name.endswith("_path")}
    key = {"model_sha256": model_sha256, "gpu": where, "versions": dict(versions), "options": kept, "tf32": tf32}
    digest = hashlib.sha256(json.dumps([kept, tf32]).encode()).hexdigest()
    return EnginePlace(machine, machine / f"{model_sha256[:12]}-{digest[:12]}", key)


def with_engines(place: EnginePlace, open_model: Callable[[Path], T]) -> T:
    """Return `open_model(folder)` with a folder that holds the engines, or in which they are built and then kept.

    If another process builds on this GPU, wait for it: it may be the same engine, and two builds at once would spoil
    each other's timings. Engines that cannot be opened are built again.

    Raises:
        InputError: the cache cannot be written to.
        Exception: any error of `open_model`.
    """
    if place.is_built:
        try:
            return open_model(place.folder)
        except Exception as error:
            _log.warning("engines in the cache cannot be opened", extra={"folder": str(place.folder), "reason": error})
    check_folder(place.machine, option="--gpu.cache")
    with locked(place.machine, "build of engines", wait=True):
        return _build(place, open_model)


def _build(place: EnginePlace, open_model: Callable[[Path], T]) -> T:
    """Open the engines that another process has built meanwhile, or build them; the lock must be held."""
    if place.is_built:
        try:
            return open_model(place.folder)
        except Exception:
            _log.info("engines are built again", extra={"folder": str(place.folder)})
    for leftover in place.machine.glob(".building-*"):  # of processes that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    aside = place.machine / f".building-{place.folder.name}"
    aside.mkdir()
    for timing in place.machine.glob("*.timing"):
        shutil.copy(timing, aside)
    facts = {"folder": str(place.folder), "model_sha256": str(place.key["model_sha256"])[:12]}
    _log.info("building an engine; this takes seconds to minutes", extra=facts)
    began_s = time.monotonic()
    try:
        opened = open_model(aside)
        _publish(place, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _log.info("built an engine", extra={**facts, "seconds": round(time.monotonic() - began_s, 1)})
    return opened


def _publish(place: EnginePlace, aside: Path) -> None:
    """Give the finished engines their place; keep nothing if TensorRT made none."""
    if not any(aside.glob("*.engine")):
        _log.warning("TensorRT took no part of the model, CUDA runs all of it", extra={"folder": str(place.folder)})
        return
    for timing in aside.glob("*.timing"):
        os.replace(timing, place.machine / timing.name)
    (aside / _KEY).write_text(json.dumps(place.key, indent=2, default=str) + "\n", encoding="utf-8")
    shutil.rmtree(place.folder, ignore_errors=True)
    aside.rename(place.folder)
