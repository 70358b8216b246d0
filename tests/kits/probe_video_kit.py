"""Help for probes of plain video: clips without any label, and an ONNX model of others that light does not move."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robossl.data.ingest import ingest
from robossl.exporting.parity import natural_frames

SIDE, CELLS, HZ, SECONDS, STEP = 64, 16, 4, 12, 4  # STEP: pixels between two frames


def write_plain_videos(folder: Path, *, num: int, seed: int = 0) -> None:
    """Clips of a camera that passes over a picture, one picture a clip; nothing else lies in the folder."""
    folder.mkdir(parents=True)
    for i, scene in enumerate(natural_frames(num, (SIDE, SIDE + STEP * HZ * SECONDS), seed=seed)):
        with av.open(str(folder / f"take_{i:03}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=HZ, options={"crf": "12"})
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, HZ)
            for left in range(0, STEP * HZ * SECONDS, STEP):
                pixels = np.ascontiguousarray(scene[:, left : left + SIDE])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())


def plain_video_store(folder: Path, *, num: int) -> Path:
    """A store of such clips."""
    write_plain_videos(folder / "videos", num=num)
    ingest((folder / "videos",), out=folder / "store", short_side=SIDE, workers=1)
    return folder / "store"


def write_steady_onnx(path: Path, *, metadata: dict[str, str] | None = None, graph: str = "g") -> str:
    """The logarithm of grey cells less that of the cells around each, over its norm: light hardly moves it."""
    size = SIDE // CELLS
    luma = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "luma"], ["grey"]),
        helper.make_node("AveragePool", ["grey"], ["cells"], kernel_shape=[size, size], strides=[size, size]),
        helper.make_node("Add", ["cells", "dark"], ["bright"]),
        helper.make_node("Log", ["bright"], ["log"]),
        helper.make_node("AveragePool", ["log"], ["around"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["log", "around"], ["edges"]),
        helper.make_node("Flatten", ["edges"], ["flat"], axis=1),
        helper.make_node("ReduceL2", ["flat", "axes"], ["norm"], keepdims=1),
        helper.make_node("Div", ["flat", "norm"], ["y"]),
    ]
    constants = {"luma": luma, "axes": np.array([1], np.int64), "dark": np.array(0.02, np.float32)}
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    frames = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, SIDE, SIDE])
    features = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, CELLS * CELLS])
    made = helper.make_graph(nodes, graph, [frames], [features], values)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return str(path)
