"""Arrays and scores kept on disk: a reference stands in every table, and is embedded and fitted once."""

from __future__ import annotations

import hashlib
import inspect
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from robossl import statistics
from robossl.durable import atomic_write, check_folder, share
from robossl.errors import ResourceError, reason
from robossl.evaluate.protocol import EvaluationProtocol, Scores


def read_kept(path: Path) -> tuple[dict[str, ndarray], dict[str, str]] | None:
    """Arrays and their metadata; None where there is no file, or one that cannot be read and is to be made again."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata()
    except (OSError, SafetensorError):
        return None


def write_kept(path: Path, arrays: dict[str, ndarray], metadata: dict[str, str]) -> None:
    """Write what `read_kept` reads, aside, then renamed.

    Raises:
        ResourceError: the disk is full.
    """
    try:
        with atomic_write(path) as aside:
            save_file(arrays, aside, metadata=metadata)
            share(aside)
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"could not write {path} ({reason(error)}); make room and run again") from error


def keeping(protocol: EvaluationProtocol, folder: Path | None) -> EvaluationProtocol:
    """The same protocol, which reads in `folder` what it computed before; None keeps nothing.

    Files are named by all that decides them: features, classes, groups, the seed, the source of the protocol and of the
    statistics it may choose by, and scikit-learn's version.
    """
    if folder is None:
        return protocol
    source = hashlib.sha256(inspect.getsource(inspect.getmodule(protocol)).encode())  # type: ignore[arg-type]
    source.update(inspect.getsource(statistics).encode())
    source.update(version("scikit-learn").encode())

    def kept(
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Scores:
        digest = source.copy()
        for array in (train, labels, groups, test):
            digest.update(f"{array.shape} {array.dtype} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(str(seed).encode())
        path = folder / f"{digest.hexdigest()[:32]}.scores.safetensors"
        if before := read_kept(path):
            arrays, metadata = before
            return Scores(arrays["scores"], json.loads(metadata["details"]))
        check_folder(folder, option="--cache")
        found = protocol(train, labels, groups, test, seed=seed)
        scores = {"scores": np.ascontiguousarray(found.scores)}
        write_kept(path, scores, {"details": json.dumps(dict(found.details))})
        return found

    return kept
