"""The encoder as a model of Triton's Python backend, the only backend in the wheel of Triton's server."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as triton  # comes with the backend
from encoder import Encoder


class TritonPythonModel:
    """A model as the backend requires it."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session."""
        self._encoder = Encoder(os.environ["ROBOSSL_MODEL"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return the features of each request's frame."""
        return [triton.InferenceResponse([triton.Tensor("pooled", self._features(each))]) for each in requests]

    def _features(self, request: Any) -> np.ndarray:
        raw = triton.get_input_tensor_by_name(request, "frames").as_numpy().tobytes()
        # Triton accepts only arrays that own their memory.
        return np.frombuffer(self._encoder(raw), np.float32).reshape(1, -1).copy()
