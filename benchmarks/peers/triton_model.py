"""The encoder as a model of Triton's Python backend: the wheel that brings Triton's server has no other backend."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # comes with the backend
from encoder import Encoder


class TritonPythonModel:
    """What the backend asks of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session."""
        self._encoder = Encoder(os.environ["ROBOSSL_MODEL"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Features of each request's frame."""
        return [triton.InferenceResponse([triton.Tensor("pooled", self._features(each))]) for each in requests]

    def _features(self, request: Any) -> np.ndarray:
        raw = triton.get_input_tensor_by_name(request, "frames").as_numpy().tobytes()
        return np.frombuffer(self._encoder(raw), np.float32).reshape(1, -1).copy()  # it takes arrays that own theirs
