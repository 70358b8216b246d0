"""A user's function that changes each frame before ingest stores it, such as one that blurs faces."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.common.plugins import describe_error, search_working_folder, type_name
from robossl.data.source import Frame
from robossl.errors import InputError

FrameHook = Callable[[UInt8[ndarray, "h w 3"]], object]


def load_frame_hook(name: str) -> FrameHook:
    """Import the function that `--frame-hook MODULE:FUNCTION` names. The working folder is searched last.

    Raises:
        InputError: the name has another form, or it cannot be imported, or it is no function.
    """
    module, _, function = name.partition(":")
    if not (module and function):
        raise InputError(f"--frame-hook must be MODULE:FUNCTION, such as blur:blur_faces, got {name!r}")
    search_working_folder()
    try:
        hook = pkgutil.resolve_name(name)
    except Exception as error:  # the module's own code may raise any error
        raise InputError(
            f"--frame-hook {name} cannot be imported ({describe_error(error)}); "
            "start in the folder of the module, or install it"
        ) from error
    if not callable(hook):
        raise InputError(f"--frame-hook {name} must be a function of one frame, got {type_name(hook)}; name another")
    found: FrameHook = hook
    return found


def apply_frame_hook(name: str, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield each frame with the pixels that the hook returns for it.

    Args:
        name: the hook, as MODULE:FUNCTION. The function gets RGB pixels, uint8 (h, w, 3), which it may change in place,
            and returns pixels of the same shape and type.
        frames: frames to change.

    Raises:
        InputError: the hook cannot be imported, raises an error, or returns another shape or type.
    """
    hook = load_frame_hook(name)
    for frame in frames:
        given = frame.pixels.copy()
        try:
            pixels = hook(given)
        except Exception as error:  # the user's code may raise any error
            raise InputError(f"--frame-hook {name} failed ({describe_error(error)}); mend it") from error
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != frame.pixels.shape:
            is_array = isinstance(pixels, np.ndarray)
            got = f"{pixels.shape} {pixels.dtype}" if is_array else type_name(pixels)  # type: ignore[attr-defined]
            raise InputError(f"--frame-hook {name} returned {got}; return an array of {frame.pixels.shape} uint8")
        # A hook may return the same buffer for every frame, so its pixels are copied.
        yield replace(frame, pixels=pixels if pixels is given else pixels.copy())
