"""Keep the predictions of evaluation protocols on disk, so that no fit is repeated.

For example, the same baselines are in every table, but each baseline is fitted only once.
"""

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

from robossl.common.atomic_io import atomic_write, check_folder, share
from robossl.errors import ResourceError, reason
from robossl.evaluation import protocol as checks
from robossl.evaluation.protocol import EvaluationProtocol, Predictions
from robossl.measure import knn, logistic, metrics, ridge

# Modules that protocols use. If their source code changes, predictions that were kept before are not used any more.
CODE = (checks, knn, logistic, metrics, ridge)


def _read(path: Path) -> tuple[dict[str, ndarray], dict[str, str]] | None:
    """Return the arrays and the metadata of a file; None if the file is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata()
    except (OSError, SafetensorError):
        return None


def _write(path: Path, arrays: dict[str, ndarray], metadata: dict[str, str]) -> None:
    """Write arrays and metadata to a file in one step; `_read` reads the file.

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
    """Return a protocol that keeps its predictions in `folder`; without a folder, return `protocol` itself.

    The name of each file is a hash of everything that determines the predictions: features, classes, groups, the seed,
    the source code of the protocol and of the modules in `CODE`, and the version of scikit-learn.
    """
    if folder is None:
        return protocol
    source = hashlib.sha256(inspect.getsource(inspect.getmodule(protocol)).encode())  # type: ignore[arg-type]
    for module in CODE:
        source.update(inspect.getsource(module).encode())
    source.update(version("scikit-learn").encode())

    def kept(
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Predictions:
        digest = source.copy()
        for array in (train, labels, groups, test):
            digest.update(f"{array.shape} {array.dtype} ".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(str(seed).encode())
        path = folder / f"{digest.hexdigest()[:32]}.scores.safetensors"
        if before := _read(path):
            arrays, metadata = before
            return Predictions(arrays["scores"], json.loads(metadata["details"]))
        check_folder(folder, option="--cache")
        predictions = protocol(train, labels, groups, test, seed=seed)
        scores = {"scores": np.ascontiguousarray(predictions.scores)}
        _write(path, scores, {"details": json.dumps(dict(predictions.details))})
        return predictions

    return kept
