"""`robossl embed`: write the features of frames to a file."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.common.atomic_io import check_out, share
from robossl.common.paths import StrPath
from robossl.data.parts import parse_part
from robossl.data.store import open_store
from robossl.encoders.embed_table import EncoderSource, embed_store
from robossl.encoders.inference import FrameEncoder, load_encoder
from robossl.errors import InputError, ResourceError, reason

Frame = tuple[str, UInt8[ndarray, "h w 3"]]  # name, RGB pixels

_OUT = (".npz", ".safetensors")
MAX_KINDS_SAID = 5


def embed(
    source: StrPath,
    frames: StrPath | Sequence[StrPath],
    *,
    out: StrPath,
    split: str | None = None,
    outputs: tuple[str, ...] = ("pooled",),
    device: str = "cpu",
    batch_size: int = 32,
    part: str | None = None,
    on: Literal["local", "ray"] = "local",
) -> Path:
    """Write the features of frames and the card of their encoder to a file, or to a folder of parquet files.

    The file has an array for each output, with a row for each frame. Its entry `frames` has the names of the frames:
    file names of images, VIDEO@SECONDS for frames of a video, EPISODE@SECONDS for frames of a store. Its entry `card`
    describes the encoder, in JSON. In a .safetensors file, both entries are JSON in the metadata.

    A folder is for a store that is too large for one file: a parquet file for every 4,096 frames, with the columns
    episode, frame, row, time_seconds and the outputs. A run that was killed goes on with the same command.

    Args:
        source: A run folder, an encoder folder, an exported model, grpc://HOST:PORT/MODEL, timm:NAME or pip:NAME.
        frames: Images, videos and folders of them, or one store. Videos are read frame by frame.
        out: A .npz or .safetensors file; for a store also a folder, a name without a suffix.
        split: Embed only this split of the store.
        outputs: Which outputs to write: pooled, cls, dense, keypoints.
        device: cpu or cuda.
        batch_size: Frames that go through the encoder together.
        part: Write only one part of a folder's files, such as 3/16, so that several machines share the work.
        on: Where a folder's files are computed: local, or ray, the Ray cluster that RAY_ADDRESS names. All its machines
            must see the encoder, the store and `out` at the same paths.

    Raises:
        InputError: there is no such encoder, frame, output or device; `out` ends in another suffix, or holds features
            of another store or encoder.
        ResourceError: the file cannot be written.
    """
    out = Path(out)
    places = [Path(frames)] if isinstance(frames, str | os.PathLike) else [Path(place) for place in frames]
    if out.suffix not in ("", *_OUT):
        raise InputError(f"out must end in {' or '.join(_OUT)}, or be a folder without a suffix, got {out}")
    if not out.suffix:
        place = Path(source)
        opened = EncoderSource(str(place.absolute()) if place.exists() else str(source), device, outputs, batch_size)
        return _embed_table(opened, places, out, split, part, on)
    if part is not None or on != "local":
        said = f"part {part}" if part is not None else f"on {on}"
        raise InputError(f"{said} needs a folder of parquet files as out, got {out}")
    check_out(out)
    encode = load_encoder(source, device=device, outputs=outputs, batch_size=batch_size)
    names, features = embed_frames(encode, read_frames(places, split=split), batch_size=batch_size)
    _save(out, names, features, card=encode.card.to_json())
    shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape[1:]))}" for name, value in features.items())
    print(f"wrote {out}: {len(names)} frames, {shapes}, by {encode.card.name} ({encode.card.digest[:12]})")
    return out


def _embed_table(
    opened: EncoderSource, places: Sequence[Path], out: Path, split: str | None, part: str | None, on: str
) -> Path:
    if len(places) != 1:
        raise InputError(f"out {out} is a folder, which takes one store, got {len(places)} sources")
    dealt = parse_part(part) if part else None
    store = open_store(places[0])
    size = opened.batch_size
    encode = load_encoder(opened.source, device=opened.device, outputs=opened.outputs, batch_size=size)
    workers = opened if on == "ray" else None
    num_frames = embed_store(encode, store, out.resolve(), split=split, part=dealt, batch_size=size, on_ray=workers)
    print(f"{out}: {num_frames} frames, by {encode.card.name} ({encode.card.digest[:12]})")
    return out


def embed_frames(
    encode: FrameEncoder, frames: Iterator[Frame], *, batch_size: int = 32
) -> tuple[list[str], dict[str, ndarray]]:
    """Return names and features of frames of any sizes, in order; consecutive frames of the same size are batched.

    Raises:
        InputError: there is no frame.
    """
    names: list[str] = []
    parts: list[dict[str, ndarray]] = []
    for _, alike in itertools.groupby(frames, key=lambda frame: frame[1].shape):
        while batch := list(itertools.islice(alike, batch_size)):
            names += [name for name, _ in batch]
            parts.append(encode(np.stack([pixels for _, pixels in batch])))
    if not parts:
        raise InputError("no frame could be read, nothing is written; pass images or videos that are whole")
    return names, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_frames(places: Sequence[Path], *, split: str | None = None) -> Iterator[Frame]:
    """Decode images and videos, or the frames of a store, one by one; print which files of a folder are ignored.

    If a file in a folder is damaged, this function skips it and prints a message.

    Raises:
        InputError: there is nothing to decode, or a file that `places` names is damaged or neither image nor video.
    """
    from robossl.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    if len(places) == 1 and (places[0] / "manifest.json").is_file():
        return _store_frames(places[0], split)
    if split is not None:
        raise InputError(f"split {split!r} needs a store; got {', '.join(map(str, places))}")
    files = [file for place in places for file in _media_files(place, IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    if not files:
        raise InputError("no frames to embed; pass images, videos, folders of them, or one store")
    num_videos = sum(file.suffix.lower() in VIDEO_SUFFIXES for file in files)
    print(f"reading {len(files) - num_videos} images and every frame of {num_videos} videos", flush=True)
    return itertools.chain.from_iterable(
        _frames(file, is_video=file.suffix.lower() in VIDEO_SUFFIXES, may_skip=file not in places) for file in files
    )


def _media_files(place: Path, suffixes: Collection[str]) -> list[Path]:
    if not place.exists():
        raise InputError(f"{place} does not exist; pass images, videos, folders of them, or one store")
    if not place.is_dir():
        return [place]
    everything = sorted(file for file in place.rglob("*") if file.is_file() and not _is_hidden(file, place))
    files = [file for file in everything if file.suffix.lower() in suffixes]
    if not files:
        raise InputError(f"{place} holds no images, no videos ({' '.join(sorted(suffixes))}) and is no store")
    others = Counter(file.suffix or file.name for file in everything if file.suffix.lower() not in suffixes)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(MAX_KINDS_SAID))
        print(f"skipped in {place}: {others.total()} files that are no images and no videos ({kinds})", flush=True)
    return files


def _is_hidden(file: Path, place: Path) -> bool:
    """Return whether a file, or a folder on the way from `place` to it, is hidden, such as macOS's `._a.mp4`."""
    return any(part.startswith(".") for part in file.relative_to(place).parts)


def _frames(file: Path, *, is_video: bool, may_skip: bool) -> Iterator[Frame]:
    num_frames = 0
    try:
        for frame in _video_frames(file) if is_video else _image_frame(file):
            yield frame
            num_frames += 1
    except InputError as error:
        if not may_skip:
            raise
        print(f"skipped {f'after {num_frames} frames' if num_frames else 'whole'}: {error}", flush=True)


def _image_frame(file: Path) -> Iterator[Frame]:
    from robossl.data.pictures import decode_image
    from robossl.data.source import Damaged

    try:
        yield str(file), decode_image(file.read_bytes())
    except (OSError, Damaged) as error:
        raise InputError(f"cannot read the image {file}: {error}") from error


def _video_frames(file: Path) -> Iterator[Frame]:
    from robossl.data.labels import NO_LABELS
    from robossl.data.source import Damaged
    from robossl.data.sources.mp4 import Mp4Source

    source = Mp4Source(file, NO_LABELS)
    listing = source.listing()
    if listing.skipped:
        raise InputError(f"cannot read the video {file}: {listing.skipped[0].reason}")
    try:
        for frame in source.frames(listing.units[0]):
            yield f"{file}@{frame.time_seconds:.3f}", frame.pixels
    except (OSError, Damaged) as error:
        raise InputError(f"cannot read the video {file}: {error}") from error


def _store_frames(path: Path, split: str | None) -> Iterator[Frame]:
    from robossl.data.store import open_store

    store = open_store(path)
    for row in store.rows(split):
        episode = store.episode_id[store.episode_of(np.array([row]))[0]]
        yield f"{episode}@{store.time_seconds[row]:.3f}", store.decode([row])[0].permute(1, 2, 0).numpy()


def _save(out: Path, names: list[str], features: dict[str, ndarray], *, card: str) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The temporary name ends in the same suffix, because numpy would add .npz to any other name.
    aside = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".npz":
            arrays: dict[str, Any] = {**features, "frames": np.array(names), "card": np.array(card)}
            np.savez(aside, **arrays)
        else:
            contiguous = {name: np.ascontiguousarray(value) for name, value in features.items()}
            save_file(contiguous, aside, metadata={"frames": json.dumps(names), "card": card})
        share(aside)
        os.replace(aside, out)
    except (OSError, SafetensorError) as error:
        # A SafetensorError has no strerror.
        why = getattr(error, "strerror", None) or reason(error)
        raise ResourceError(f"cannot write {out} ({why}); make room, or choose another place") from error
    finally:
        aside.unlink(missing_ok=True)
