"""ONNX models without a card: the owner describes the input; the output's number of axes decides how it is pooled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.encoders.onnx_session import file_sha256, open_session
from robossl.errors import InputError, reason
from robossl.measure.subjects.backbone import find_backbone
from robossl.measure.subjects.input_description import InputDescription, InputFormat, resolve_input
from robossl.measure.subjects.subject import Output, Subject, SubjectInfo, available_outputs, digest_of

if TYPE_CHECKING:
    import onnxruntime

BATCH = 64  # frames in a batch if the graph does not fix their number
LAYERS = {2: "as it is", 3: "mean over tokens", 4: "mean over positions"}  # how an output of 2, 3 or 4 axes is pooled


def open_onnx(source: str, given: InputDescription, *, device: str, outputs: Sequence[Output]) -> Subject:
    """Open a model.onnx that has no card.

    Raises:
        InputError: the file is missing, the model has several inputs or lacks an output, or the description of its
            input is incomplete.
    """
    path = _existing(source)
    session = open_session(path, provider="cuda" if device.startswith("cuda") else "cpu")
    backbone = find_backbone(path, session, given.backbone)
    contract, output = _contract(source, session, given)
    model = _Model(source, session, contract, output, given.dense)
    frame = np.full((1, *(contract.size or (64, 64)), 3), 128, np.uint8)
    first, layer = model(frame), LAYERS[model.raw(frame)[0].ndim]
    if given.output_layout is None:
        _check_layout(source, model.raw(frame), contract)
    sha256 = _sha256(path)
    info = SubjectInfo(
        name=path.stem if path.stem != "model" else path.resolve().parent.name,
        source=source,
        kind="onnx",
        sha256=sha256,
        layer=f"output {output!r}, {layer}",
        dim=int(first["pooled"].shape[1]),
        dtype=np.dtype(contract.dtype).name,
        preprocessing=contract.words,
    )
    for each in available_outputs(outputs, first):
        if each not in first:
            raise InputError(f"{source} has no output {each!r}; choose from {', '.join(first)}")
    digest = digest_of("described onnx", sha256, contract, output, given.dense)
    return Subject(info, digest, model, available_outputs(outputs, first), None, contract.size, backbone)


def check_onnx(source: str, given: InputDescription) -> None:
    """Check the graph and the description without optimising or running the model.

    Raises:
        InputError: for the reasons that `open_onnx` gives.
    """
    path = _existing(source)
    session = open_session(path, optimise=False)
    find_backbone(path, session, given.backbone)
    _contract(source, session, given)


def _existing(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no ONNX model at {source}; pass the path of a .onnx file")
    return path


def _contract(source: str, session: onnxruntime.InferenceSession, given: InputDescription) -> tuple[InputFormat, str]:
    """Return the format of the model's input, and the name of the output that becomes the feature."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise InputError(f"{source} has {len(inputs)} inputs ({names}); it must take frames alone")
    contract = resolve_input(source, inputs[0].name, inputs[0].shape, inputs[0].type, given)
    if given.dense is not None:
        _choose(source, session, given.dense)
    return contract, _choose(source, session, given.output)


def _sha256(path: Path) -> str:
    """Return one digest of the model file and the external weight files beside it."""
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


def _check_layout(source: str, outputs: list[ndarray], contract: InputFormat) -> None:
    """Refuse a feature map whose channels seem to be on a different axis than the channels of the input.

    A square frame gives a square map, so the two axes of equal size should be height and width.
    """
    for values in outputs:
        if values.ndim == 4:
            sides = values.shape[2:] if contract.layout == "nchw" else values.shape[1:3]
            others = values.shape[1:3] if contract.layout == "nchw" else values.shape[2:]
            if sides[0] != sides[1] and others[0] == others[1]:
                other = "nhwc" if contract.layout == "nchw" else "nchw"
                raise InputError(
                    f"{source} takes {contract.layout} and gives {list(values.shape)}, which looks like {other}; pass "
                    f"--input.output-layout {other}, or {contract.layout} if the channels stay on the same axis"
                )


class _Model:
    """An ONNX session that is run on frames, in batches of the size that the graph allows."""

    def __init__(
        self,
        source: str,
        session: onnxruntime.InferenceSession,
        contract: InputFormat,
        output: str,
        dense: str | None,
    ) -> None:
        self._source = source
        self._session = session
        self._contract = contract
        self._names = [output] if dense in (None, output) else [output, dense]
        self._size = contract.batch or BATCH

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Return features by output name."""
        parts = [self._run(frames[start : start + self._size]) for start in range(0, len(frames), self._size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def raw(self, frames: UInt8[ndarray, "b h w 3"]) -> list[ndarray]:
        """Run at most one batch of frames and return the raw outputs.

        If the graph fixes the batch size, copies of the last frame fill the batch up.
        """
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        tensor = self._contract.tensor(frames)
        if self._contract.batch is not None and len(frames) < self._size:
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], self._size - len(frames), axis=0)])
        try:
            outputs: list[ndarray] = self._session.run(self._names, {self._contract.name: tensor})
        except (errors.Fail, errors.InvalidArgument, errors.RuntimeException) as error:
            raise InputError(
                f"{self._source} does not run on {tensor.dtype} {tensor.shape} ({reason(error)}); check layout and size"
            ) from error
        for name, values in zip(self._names, outputs, strict=True):
            shape = values.shape if isinstance(values, ndarray) else ()
            if len(shape) not in LAYERS or shape[0] != len(tensor):
                raise InputError(
                    f"{self._source}: output {name!r} is {shape or 'no tensor'} for {len(tensor)} frames; it must be a "
                    "vector, tokens or a map for each: name another output"
                )
        return [values[: len(frames)] for values in outputs]

    def _run(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        values, *rest = self.raw(frames)
        maps = next((each for each in (*rest, values) if each.ndim == 4), None)
        channels_last = self._contract.output_layout == "nhwc"
        if values.ndim > 2:
            values = values.mean(axis=(1, 2) if channels_last else (2, 3)) if values.ndim == 4 else values.mean(axis=1)
        if maps is None:
            return {"pooled": values}
        return {"pooled": values, "dense": maps.transpose(0, 3, 1, 2) if channels_last else maps}
