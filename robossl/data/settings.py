"""The settings with which a store keeps its frames: size, quality, thinning and a hook. They never change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from robossl.data.frame_hook import load_frame_hook
from robossl.data.manifest import Manifest, read_manifest
from robossl.errors import InputError

SHORT_SIDE, QUALITY = 256, 90  # defaults of a new store: shorter side in pixels, JPEG quality


def check_settings(short_side: int | None, quality: int | None, thin: float | None, frame_hook: str | None) -> None:
    """Check the values of settings; None is a setting that is not given.

    Raises:
        InputError: a number is out of its range, or the hook cannot be imported.
    """
    if short_side is not None and not 16 <= short_side <= 4096:
        raise InputError(f"short_side must be 16 to 4096 pixels, got {short_side}")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"quality must be 1 to 100, got {quality}")
    if thin is not None and not 0 <= thin <= 255:
        raise InputError(f"thin must be 0 to 255 grey levels, where 0 keeps all frames, got {thin}")
    if frame_hook is not None:
        load_frame_hook(frame_hook)


def open_or_create(
    out: Path,
    part: str,
    *,
    short_side: int | None,
    quality: int | None,
    thin: float | None,
    frame_hook: str | None,
) -> Manifest:
    """Return the manifest of a store, or that of a new store if `out` holds none. None takes the store's setting.

    Raises:
        InputError: the store has another setting or is another part, or its hook is not named.
    """
    if not (out / "manifest.json").exists():
        return Manifest(
            short_side=short_side or SHORT_SIDE,
            quality=quality or QUALITY,
            thin=thin or 0.0,
            frame_hook=frame_hook or "",
            part=part,
        )
    manifest = read_manifest(out)
    if manifest.part != part:
        held = f"part {manifest.part} of an ingest" if manifest.part else "a whole ingest"
        raise InputError(
            f"{out} holds {held}, got {f'--part {part}' if part else 'no --part'}; "
            "choose another --out, or merge the parts with robossl merge"
        )
    given = {"short_side": short_side, "quality": quality, "thin": thin, "frame_hook": frame_hook}
    given = {name: value for name, value in given.items() if value is not None}
    if replace(manifest, **given) != manifest:  # type: ignore[arg-type]
        said = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
        raise InputError(
            f"{out} was made with {describe_settings(manifest)}, got {said}; "
            "leave these options out to add to it, or choose another --out"
        )
    if manifest.frame_hook and frame_hook is None:
        # A file of data must not decide which code runs.
        raise InputError(
            f"{out} was made with --frame-hook {manifest.frame_hook}, got none; name it again, or choose another --out"
        )
    return manifest


def describe_settings(manifest: Manifest) -> str:
    """Return the settings of a store as options of `robossl ingest`."""
    said = f"--short-side {manifest.short_side} --quality {manifest.quality}"
    said += f" --thin {manifest.thin:g}" if manifest.thin else ""
    return said + (f" --frame-hook {manifest.frame_hook}" if manifest.frame_hook else "")
