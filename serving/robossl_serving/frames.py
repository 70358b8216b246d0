"""Read the frames and the state of a request: from raw bytes, typed contents, images or shared memory."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import STATE, EncoderCard
from robossl_client.states import state_problem

from robossl.encoders.run_session import empty_state, input_specs
from robossl_serving.images import EncodedImages, inspect_images
from robossl_serving.limits import Limits
from robossl_serving.refused import bad_request


class RegionReader(Protocol):
    """Reads inputs from shared memory."""

    def read(self, parameters: Any, *, max_bytes: int) -> bytes:
        """Return the bytes that an input's parameters point at; refuse more than `max_bytes`."""
        ...


def read_frames(
    request: pb.ModelInferRequest, card: EncoderCard, *, max_batch: int, limits: Limits, regions: RegionReader | None
) -> UInt8[ndarray, "b h w 3"] | EncodedImages:
    """Check the input of a request, and return its frames, or its images if they still have to be decoded.

    Raises:
        RefusedError: the frames do not match the card, or exceed a limit.
    """
    tensor = _find_inputs(request, card)[card.input.name]
    shape = tuple(tensor.shape)
    frames: UInt8[ndarray, "b h w 3"] | EncodedImages
    if tensor.datatype == "UINT8":
        _check_shape(shape, max_batch=max_batch, limits=limits)
        raw = _raw(request, tensor, regions, max_bytes=limits.decoded_bytes)
        frames = _pixels(raw, tensor, shape, limits=limits)
        hw = (shape[1], shape[2])
    elif tensor.datatype == "BYTES":
        _check_images(shape, max_batch=max_batch)
        raw = _raw(request, tensor, regions, max_bytes=limits.message_bytes)
        frames = inspect_images(_images(raw, tensor, shape[0]), limits=limits)
        hw = frames.hw
    else:
        raise bad_request("frames are UINT8 pixels or BYTES, one JPEG or PNG each")
    fixed_hw = card.input.fixed_hw
    if fixed_hw is not None and hw != fixed_hw:
        raise bad_request(f"the model takes frames of {fixed_hw[0]}x{fixed_hw[1]} only")
    return frames


def read_state(
    request: pb.ModelInferRequest,
    card: EncoderCard,
    *,
    num_frames: int,
    outputs: Sequence[str],
    limits: Limits,
    regions: RegionReader | None,
) -> Float32[ndarray, "b v"] | None:
    """Return the state of a request, zeros if no output asked for depends on it, or None if the model takes none.

    Raises:
        RefusedError: the state is missing, or does not match the card or the frames.
    """
    spec = input_specs(card).get(STATE)
    if spec is None:
        return None
    tensor = _find_inputs(request, card).get(STATE)
    state: Float32[ndarray, "b v"] | None = None
    if tensor is not None:
        if tensor.datatype != "FP32":
            raise bad_request(f"{STATE} is FP32, got {tensor.datatype[:16]!r}")
        state = _numbers(request, tensor, limits=limits, regions=regions)
    problem = state_problem(card, state, num_frames=num_frames, outputs=outputs)
    if problem is not None:
        raise bad_request(problem)
    return empty_state(spec, num_frames) if state is None else state


def _find_inputs(request: pb.ModelInferRequest, card: EncoderCard) -> dict[str, pb.ModelInferRequest.InferInputTensor]:
    """Return the inputs of a request by name; the frames are among them."""
    found, known = {tensor.name: tensor for tensor in request.inputs}, input_specs(card)
    if len(found) != len(request.inputs) or card.input.name not in found or not found.keys() <= known.keys():
        words = (
            f"one input, {card.input.name!r}" if len(known) == 1 else f"the inputs {card.input.name!r} and {STATE!r}"
        )
        raise bad_request(f"the model takes {words}; ModelMetadata describes it")
    return found


def _numbers(
    request: pb.ModelInferRequest,
    tensor: pb.ModelInferRequest.InferInputTensor,
    *,
    limits: Limits,
    regions: RegionReader | None,
) -> ndarray:
    shape = tuple(tensor.shape)
    if not shape or not all(0 < size < 2**31 for size in shape) or math.prod(shape) > limits.typed_values:
        raise bad_request(f"{STATE} has the shape (batch, dims), and at most {limits.typed_values} values")
    size = math.prod(shape)
    raw = _raw(request, tensor, regions, max_bytes=4 * size)
    if raw is None:
        raw = np.array(tensor.contents.fp32_contents, np.float32).tobytes()
    if len(raw) != 4 * size:
        raise bad_request(f"the shape of {STATE} says {size} values of 4 bytes, {len(raw)} bytes were sent")
    return np.frombuffer(raw, np.float32).reshape(shape)


def _check_shape(shape: tuple[int, ...], *, max_batch: int, limits: Limits) -> None:
    if len(shape) != 4 or shape[3] != 3 or not all(0 < size < 2**31 for size in shape):
        raise bad_request("UINT8 frames have the shape (batch, height, width, 3)")
    _check_batch(shape[0], max_batch=max_batch)
    if math.prod(shape) > limits.decoded_bytes:
        raise bad_request(f"the frames are larger than {limits.decoded_bytes} bytes")


def _check_images(shape: tuple[int, ...], *, max_batch: int) -> None:
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise bad_request("BYTES frames have the shape (batch,) or (batch, 1)")
    _check_batch(shape[0], max_batch=max_batch)


def _check_batch(num_frames: int, *, max_batch: int) -> None:
    if not 0 < num_frames <= max_batch:
        raise bad_request(f"one call takes 1 to {max_batch} frames, got {num_frames}; send them in several calls")


def _raw(
    request: pb.ModelInferRequest,
    tensor: pb.ModelInferRequest.InferInputTensor,
    regions: RegionReader | None,
    *,
    max_bytes: int,
) -> bytes | None:
    """Return the raw bytes of the input, or None if its contents are typed (a list of numbers)."""
    is_shared = "shared_memory_region" in tensor.parameters
    raws = request.raw_input_contents
    # In Triton, an input in shared memory has no entry among the raw contents.
    raw_names = [each.name for each in request.inputs if "shared_memory_region" not in each.parameters]
    if raws and len(raws) != len(raw_names):
        raise bad_request("raw_input_contents has one entry for each input")
    is_raw = bool(raws) and not is_shared
    if is_raw + tensor.HasField("contents") + is_shared != 1:
        raise bad_request("an input has exactly one of raw_input_contents, contents and shared_memory_region")
    if is_shared:
        if regions is None:
            raise bad_request("this server has no shared memory; it is started with --shared-memory")
        return regions.read(tensor.parameters, max_bytes=max_bytes)
    if is_raw:
        raw: bytes = raws[raw_names.index(tensor.name)]
        return raw
    return None


def _pixels(
    raw: bytes | None,
    tensor: pb.ModelInferRequest.InferInputTensor,
    shape: tuple[int, ...],
    *,
    limits: Limits,
) -> UInt8[ndarray, "b h w 3"]:
    size = math.prod(shape)
    if raw is not None:
        if len(raw) != size:
            raise bad_request(f"the shape says {size} bytes, {len(raw)} were sent")
        return np.frombuffer(raw, np.uint8).reshape(shape)
    values = tensor.contents.uint_contents
    if len(values) > limits.typed_values:
        raise bad_request(f"typed contents take up to {limits.typed_values} values; send raw_input_contents")
    if len(values) != size:
        raise bad_request(f"the shape says {size} values, {len(values)} were sent in uint_contents")
    wide = np.array(values, np.uint32)
    if wide.max() > 255:
        raise bad_request("UINT8 values are at most 255")
    return wide.astype(np.uint8).reshape(shape)


def _images(raw: bytes | None, tensor: pb.ModelInferRequest.InferInputTensor, num_images: int) -> list[bytes]:
    images = list(tensor.contents.bytes_contents) if raw is None else _split(raw, num_images)
    if len(images) != num_images:
        raise bad_request(f"the shape says {num_images} images, {len(images)} were sent")
    return images


def _split(raw: bytes, num_images: int) -> list[bytes]:
    """Split raw BYTES into elements; each element comes after its length (4 bytes, little-endian)."""
    images, place = [], 0
    for _ in range(num_images):
        if place + 4 > len(raw):
            raise bad_request("raw BYTES end before their last element")
        (size,) = struct.unpack_from("<I", raw, place)
        place += 4
        if place + size > len(raw):
            raise bad_request("raw BYTES end before their last element")
        images.append(raw[place : place + size])
        place += size
    if place != len(raw):
        raise bad_request("raw BYTES go on after their last element")
    return images
