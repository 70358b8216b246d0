"""The encoder of every peer: the exported model in onnxruntime with our server's settings; raw bytes in and out."""

from __future__ import annotations

import numpy as np
import onnxruntime

SIDE = 224


class Encoder:
    """An onnxruntime session on one thread."""

    def __init__(self, model: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, raw: bytes) -> bytes:
        """Return the float32 features of one frame."""
        frame = np.frombuffer(raw, np.uint8).reshape(1, SIDE, SIDE, 3)
        features: bytes = self._session.run(["pooled"], {"frames": frame})[0].tobytes()
        return features
