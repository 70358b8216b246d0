"""Repository: a folder of exported models as Triton lays it out, NAME/config.pbtxt and NAME/VERSION/model.onnx.

The card lies beside each model.onnx, since versions differ in weights; Triton passes over it. All versions of a
name share one config.pbtxt, so their inputs and outputs are the same.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robossl_client.card import EncoderCard

from robossl.errors import InputError, ResourceError

_TRITON_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def allowed_name(name: str) -> str:
    """The name that a model can have which is nearest to this one.

    >>> allowed_name("my run (2)")
    'my-run-2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-_.") or "encoder"


def choose_version(out: Path, *, name: str, version: int | None) -> int:
    """The version to write: the one asked for, or the next.

    Raises:
        InputError: a name that is no plain folder name, or a version that is taken.
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
    """The text of config.pbtxt; its dims are without the batch, which max_batch_size stands for."""

    def tensor(name: str, dtype: str, shape: tuple[int | str, ...]) -> str:
        dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in shape[1:])
        return f'  {{ name: "{name}" data_type: {_TRITON_TYPES[dtype]} dims: [ {dims} ] }}'

    inputs = tensor(card.input.name, card.input.tensor.dtype, card.input.tensor.shape)
    outputs = ",\n".join(tensor(name, spec.dtype, spec.shape) for name, spec in card.outputs.items())
    return (
        f'name: "{card.name}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {max_batch}\n'
        f"input [\n{inputs}\n]\noutput [\n{outputs}\n]\n"
    )


def check_config(out: Path, *, name: str, config: str) -> None:
    """Check that the versions already there take and give the same.

    Raises:
        InputError: they do not.
    """
    path = out / name / "config.pbtxt"
    if path.exists() and path.read_text() != config:
        raise InputError(f"{path} has other inputs, outputs or batch size; choose another --name than {name!r}")


@contextmanager
def new_version(out: Path, *, name: str, version: int, config: str) -> Iterator[Path]:
    """A folder to fill: it becomes NAME/VERSION when all went well, and nothing is left when not.

    Raises:
        ResourceError: the disk refuses.
    """
    aside = out / f".{name}.{version}.{os.getpid()}"
    is_new = not out.exists()
    try:
        aside.mkdir(parents=True)
        yield aside
        (out / name).mkdir(exist_ok=True)
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
