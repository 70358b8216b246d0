"""An ONNX model of others: no card, so its input is described, and its output is pooled as its shape tells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.errors import InputError, reason
from robossl.names import suggest_name
from robossl.probes.result import Subject
from robossl.probes.subjects.backbone import find_backbone
from robossl.probes.subjects.described import Contract, Described, settle
from robossl.probes.subjects.probed import Output, Probed, digest_of
from robossl.session import file_sha256, open_session

if TYPE_CHECKING:
    import onnxruntime

BATCH = 64  # frames, where the graph leaves it open
LAYERS = {2: "as it is", 3: "mean over tokens", 4: "mean over positions"}  # by the axes of an output


def open_onnx(source: str, said: Described, *, device: str) -> Probed:
    """Open a model.onnx that has no card.

    Raises:
        InputError: no model, more than one input, or something of its input or output that is not known.
    """
    path = _existing(source)
    session = open_session(path, provider="cuda" if device.startswith("cuda") else "cpu")
    backbone = find_backbone(path, session, said.backbone)
    contract, output = _contract(source, session, said)
    model = _Model(source, session, contract, output, said.dense)
    frame = np.full((1, *(contract.size or (64, 64)), 3), 128, np.uint8)
    first, layer = model(frame), LAYERS[model.raw(frame)[0].ndim]
    if said.output_layout is None:
        _check_layout(source, model.raw(frame), contract)
    sha256 = _sha256(path)
    about = Subject(
        name=path.stem if path.stem != "model" else path.resolve().parent.name,
        source=source,
        kind="onnx",
        sha256=sha256,
        layer=f"output {output!r}, {layer}",
        dim=int(first["pooled"].shape[1]),
        dtype=np.dtype(contract.dtype).name,
        preprocessing=contract.words,
    )
    outputs: tuple[Output, ...] = ("pooled", "dense") if "dense" in first else ("pooled",)
    digest = digest_of("described onnx", sha256, contract, output, said.dense)
    return Probed(about, digest, model, outputs, None, contract.size, backbone)


def check_onnx(source: str, said: Described) -> None:
    """Refuse what the graph alone shows to be wrong; nothing is optimised or run.

    Raises:
        InputError: as `open_onnx` does.
    """
    path = _existing(source)
    session = open_session(path, optimise=False)
    find_backbone(path, session, said.backbone)
    _contract(source, session, said)


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no ONNX model at {source}; pass the path of a .onnx file")
    return path


def _contract(source: str, session: onnxruntime.InferenceSession, said: Described) -> tuple[Contract, str]:
    """How frames go in, and the output that is probed."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise InputError(f"{source} has {len(inputs)} inputs ({names}); it must take frames alone")
    contract = settle(source, inputs[0].name, inputs[0].shape, inputs[0].type, said)
    if said.dense is not None:
        _choose(source, session, said.dense)
    return contract, _choose(source, session, said.output)


def _sha256(path: Path) -> str:
    """Of the model file, and of the files beside it where it keeps its weights there."""
    import onnx

    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = {entry.value for each in tensors for entry in each.external_data if entry.key == "location"}
    own = file_sha256(path)
    return digest_of(own, *(file_sha256(path.parent / place) for place in sorted(places))) if places else own


def _choose(source: str, session: onnxruntime.InferenceSession, name: str | None) -> str:
    shapes: dict[str, list[int | str]] = {each.name: each.shape for each in session.get_outputs()}
    if name is None and len(shapes) == 1:
        return next(iter(shapes))
    if name is None:
        listed = ", ".join(f"{each} {shape}" for each, shape in shapes.items())
        raise InputError(f"{source} has {len(shapes)} outputs; say which is probed, output being one of {listed}")
    if name not in shapes:
        raise InputError(suggest_name(f"output of {source}", name, shapes))
    return name


def _check_layout(source: str, found: list[ndarray], contract: Contract) -> None:
    """Refuse a map whose channels seem to lie elsewhere than the input's: frames go in square, maps come out square."""
    for values in found:
        if values.ndim == 4:
            sides = values.shape[2:] if contract.layout == "nchw" else values.shape[1:3]
            others = values.shape[1:3] if contract.layout == "nchw" else values.shape[2:]
            if sides[0] != sides[1] and others[0] == others[1]:
                other = "nhwc" if contract.layout == "nchw" else "nchw"
                raise InputError(
                    f"{source} takes {contract.layout} and gives {list(values.shape)}, which looks like {other}; pass "
                    f"--input.output-layout {other}, or {contract.layout} where the channels stay where they were"
                )


class _Model:
    """Frames through a session, in batches of the size that it takes."""

    def __init__(
        self, source: str, session: onnxruntime.InferenceSession, contract: Contract, output: str, dense: str | None
    ) -> None:
        self._source = source
        self._session = session
        self._contract = contract
        self._asked = [output] if dense in (None, output) else [output, dense]
        self._size = contract.batch or BATCH

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Features of frames."""
        parts = [self._run(frames[start : start + self._size]) for start in range(0, len(frames), self._size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def raw(self, frames: UInt8[ndarray, "b h w 3"]) -> list[ndarray]:
        """What the session says of at most a batch; a batch of fixed size is filled up with its last frame."""
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        tensor = self._contract.tensor(frames)
        if self._contract.batch is not None and len(frames) < self._size:
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], self._size - len(frames), axis=0)])
        try:
            found: list[ndarray] = self._session.run(self._asked, {self._contract.name: tensor})
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException) as error:
            raise InputError(
                f"{self._source} does not run on {tensor.dtype} {tensor.shape} ({reason(error)}); check layout and size"
            ) from error
        for name, values in zip(self._asked, found, strict=True):
            shape = values.shape if isinstance(values, ndarray) else ()
            if len(shape) not in LAYERS or shape[0] != len(tensor):
                raise InputError(
                    f"{self._source}: output {name!r} is {shape or 'no tensor'} for {len(tensor)} frames; it must be a "
                    "vector, tokens or a map for each: name another output"
                )
        return [values[: len(frames)] for values in found]

    def _run(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        values, *rest = self.raw(frames)
        maps = next((each for each in (*rest, values) if each.ndim == 4), None)
        channels_last = self._contract.output_layout == "nhwc"
        if values.ndim > 2:
            values = values.mean(axis=(1, 2) if channels_last else (2, 3)) if values.ndim == 4 else values.mean(axis=1)
        if maps is None:
            return {"pooled": values}
        return {"pooled": values, "dense": maps.transpose(0, 3, 1, 2) if channels_last else maps}
