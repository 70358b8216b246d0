"""The model repository: exported models in Triton's layout, NAME/config.pbtxt and NAME/VERSION/model.onnx.

Each version has its card (a description of the encoder) beside its model.onnx; Triton ignores the card. All versions of
a model share one config.pbtxt, so they have the same inputs and outputs. Settings that a user adds to config.pbtxt,
such as a version policy (which versions to serve), stay when the next version is exported.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import text_format
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import STATE, EncoderCard

from robossl.encoders.run_session import input_specs
from robossl.errors import InputError, ResourceError, reason

_TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def allowed_name(name: str) -> str:
    """Change a name so that a model may have it.

    >>> allowed_name("my run (2)")
    'my-run-2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.") or "encoder"


def choose_version(out: Path, *, name: str, version: int | None) -> int:
    """Return the version to write: `version`, or the next free version if that is None.

    Raises:
        InputError: the name has characters that a model's name may not have, or the version exists or is less than 1.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"a model's name has letters, digits, '_', '.' and '-' only, got {name!r}; pass --name")
    taken = [int(each.name) for each in (out / name).glob("*") if each.name.isdecimal()]
    free = max(taken, default=0) + 1
    if version is None:
        return free
    if version in taken or version < 1:
        raise InputError(f"{out / name} cannot take version {version}; the next free one is {free}")
    return version


def triton_config(card: EncoderCard, *, max_batch: int) -> str:
    """Return the text of config.pbtxt. Its dims leave out the batch axis, because max_batch_size declares it.

    A model with a fixed batch has max_batch_size 0, and its dims name the batch. The input states its format
    (FORMAT_NHWC), because Triton's `image_client` needs this entry. Triton allows the format only with three dims.
    """

    def tensor(name: str, dtype: str, shape: tuple[int | str, ...], *, layout: str = "") -> str:
        dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in (shape if is_fixed else shape[1:]))
        return f'  {{ name: "{name}" data_type: {_TRITON_TYPES[dtype]}{layout} dims: [ {dims} ] }}'

    given, state = card.input.tensor, input_specs(card).get(STATE)
    is_fixed = isinstance(given.shape[0], int)
    layout = "" if is_fixed else " format: FORMAT_NHWC"
    inputs = tensor(card.input.name, given.dtype, given.shape, layout=layout)
    if state is not None:
        inputs += ",\n" + tensor(STATE, state.dtype, state.shape)
    outputs = ",\n".join(tensor(name, spec.dtype, spec.shape) for name, spec in card.outputs.items())
    return (
        f'name: "{card.name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {0 if is_fixed else max_batch}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\n"
    )


def read_config(path: Path) -> pb.ModelConfig:
    """Read a config.pbtxt; settings that only Triton uses are ignored.

    Raises:
        InputError: the file cannot be read.
    """
    config = pb.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config, allow_unknown_field=True)
    except (OSError, text_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}); mend it, or export the model again") from error
    return config


def check_config(out: Path, *, name: str, config: str) -> None:
    """Check that a model's existing versions have the same inputs, outputs and largest batch as the new `config`.

    Raises:
        InputError: the versions differ, or the existing config.pbtxt cannot be read.
    """
    path = out / name / "config.pbtxt"
    if path.exists() and _tensors(read_config(path)) != _tensors(text_format.Parse(config, pb.ModelConfig())):
        raise InputError(f"{path} has other inputs, outputs or batch size; choose another --name than {name!r}")


def _tensors(config: pb.ModelConfig) -> pb.ModelConfig:
    """Return the part of a configuration that all versions of a model must share.

    The format of the input is left out, because earlier exports do not state it.
    """
    part = pb.ModelConfig(max_batch_size=config.max_batch_size, input=config.input, output=config.output)
    for each in part.input:
        each.ClearField("format")
    return part


@contextmanager
def new_version(out: Path, *, name: str, version: int, config: str) -> Iterator[Path]:
    """Yield a new folder to fill. It becomes NAME/VERSION if the block succeeds and is removed if the block fails.

    Raises:
        ResourceError: the folder cannot be written.
    """
    aside = out / f".{name}.{version}.{os.getpid()}"
    is_new = not out.exists()
    try:
        aside.mkdir(parents=True)
        yield aside
        (out / name).mkdir(exist_ok=True)
        if not (out / name / "config.pbtxt").exists():
            text = aside / "config.pbtxt"
            text.write_text(config)
            os.replace(text, out / name / "config.pbtxt")
        aside.rename(out / name / str(version))
    except OSError as error:
        raise ResourceError(f"cannot write {out} ({error.strerror}); nothing was exported, run again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if is_new and not any(out.glob("*")):
            shutil.rmtree(out, ignore_errors=True)
