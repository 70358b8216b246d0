"""Compile encoders with torch's inductor: check for a compiler, and keep the kernels for the next run.

Heads and losses are not compiled. Some read numbers that change in every step (temperatures, seeds of negatives). Torch
would compile them again for each number, and give up after eight. A resumed run would then not be exact.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Method

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # read by torch


def compile_encoders(method: Method) -> None:
    """Compile the encoders of a method in place, also those of teachers.

    The first step then takes a minute or more, or seconds if the kernels are kept from an earlier run. Every size of
    views has kernels of its own: with kernels for all sizes, the result would depend on which size came first.

    Args:
        method: The method. The kernels are kept in `cache_folder`, where later runs and the other ranks find them.
    """
    os.environ[VARIABLE] = str(cache_folder())
    for module in method.modules():
        if isinstance(module, Encoder):
            module.compile(dynamic=False)


def uncompiled(encoder: Encoder) -> AbstractContextManager[object]:
    """Run an encoder without its compiled kernels in a `with` block, as for batches of many sizes."""
    is_compiled = encoder._compiled_call_impl is not None
    return torch.compiler.set_stance("force_eager") if is_compiled else contextlib.nullcontext()


def cache_folder() -> Path:
    """Return the folder of the kernels: $TORCHINDUCTOR_CACHE_DIR if it is set, else one in the user's cache folder.

    Torch's default is a temporary folder, which many machines empty.
    """
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(VARIABLE) or users / "robossl" / "inductor")


def check_compiler() -> None:
    """Check that inductor can compile for a CPU here.

    Raises:
        InputError: there is no C++ compiler, or the headers of Python are missing.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which((shlex.split(compiler) or [""])[0]) is None:
        raise InputError(
            f"train.compile needs a C++ compiler, and {compiler} is not here; install g++ (apt install g++), name "
            "another in the variable CXX, or leave out --train.compile"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        raise InputError(
            f"train.compile needs the headers of Python, and {header} is not here; install them (apt install "
            "python3-dev), or leave out --train.compile"
        )


def describe_compiling(seconds: float) -> str:
    """Describe how long the first step of a compiled run took."""
    return f"compiled: the first step took {seconds:.1f} s; the kernels are kept in {cache_folder()}"
