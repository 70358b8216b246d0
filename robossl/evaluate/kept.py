"""Scores of a protocol kept on disk: a reference stands in every table and is fitted once."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import safe_open
from safetensors.numpy import save_file

from robossl.durable import share
from robossl.evaluate.protocol import EvaluationProtocol, Scores


def keeping(protocol: EvaluationProtocol, folder: Path | None) -> EvaluationProtocol:
    """The same protocol, which reads in `folder` what it computed before; None keeps nothing.

    Files are named by all that decides them: features, classes, groups, the seed, the protocol's own source and
    scikit-learn's version.
    """
    if folder is None:
        return protocol
    source = hashlib.sha256(inspect.getsource(inspect.getmodule(protocol)).encode())  # type: ignore[arg-type]
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
        if path.is_file():
            with safe_open(path, framework="numpy") as file:
                return Scores(file.get_tensor("scores"), json.loads(file.metadata()["details"]))
        found = protocol(train, labels, groups, test, seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        scores = {"scores": np.ascontiguousarray(found.scores)}
        save_file(scores, aside, metadata={"details": json.dumps(dict(found.details))})
        share(aside)
        aside.replace(path)
        return found

    return kept
