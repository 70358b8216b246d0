"""Small ONNX models without a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_onnx(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("batch", 3, 24, 32),
    dtype: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("map",),
    weight: float = 1.0,
) -> str:
    """A model whose map is its input with the colours weighted 1, 2, 3, and whose vector is its mean."""
    last = shape[-1] == 3
    weights = np.array([1, 2, 3], np.float32).reshape((1, 1, 1, 3) if last else (1, 3, 1, 1)) * weight
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "w"], ["map"]),
        helper.make_node("ReduceMean", ["map", "axes"], ["vector"], keepdims=0),
        helper.make_node("Transpose", ["map"], ["turned"], perm=(0, 3, 1, 2) if last else (0, 2, 3, 1)),
    ]
    axes = np.array([1, 2] if last else [2, 3], np.int64)
    values = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(axes, "axes")]
    known: dict[str, list[Any]] = {"map": [None] * 4, "turned": [None] * 4, "vector": [None, 3]}
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", dtype, shape)], made, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return str(path)
