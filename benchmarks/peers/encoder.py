"""What every peer serves: the exported model in onnxruntime, set up as our server sets it up; raw bytes in and out."""

from __future__ import annotations

import numpy as np
import onnxruntime

SIDE = 224


class Encoder:
    """One session on one thread."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, raw: bytes) -> bytes:
        """Features of one frame, float32."""
        frame = np.frombuffer(raw, np.uint8).reshape(1, SIDE, SIDE, 3)
        features: bytes = self._session.run(["pooled"], {"frames": frame})[0].tobytes()
        return features
