"""Find an encoder on disk: in a run folder, an encoder folder, an exported model folder or a model file."""

from __future__ import annotations

from pathlib import Path

from robossl.errors import InputError


def find_encoder(path: Path) -> Path | None:
    """Return the encoder folder in a run folder, or the path itself if it is an encoder folder; else None."""
    return next((folder for folder in (path / "encoder", path) if (folder / "encoder.json").is_file()), None)


def find_model(path: Path) -> Path:
    """Return the ONNX file in a version folder or in a model folder (its newest version), or the path of an ONNX file.

    Raises:
        InputError: the path is a folder without a model, or does not exist.
    """
    if path.suffix == ".onnx":
        return path
    versions = [each for each in path.glob("*/model.onnx") if each.parent.name.isdecimal()]
    newest = max(versions, key=lambda each: int(each.parent.name), default=path / "model.onnx")
    if not newest.is_file():
        below = next((each for each in sorted(path.glob("*")) if find_encoder(each)), None) if path.is_dir() else None
        raise InputError(
            f"{path} is no encoder; pass a run folder (RUN or RUN/encoder) or an exported model (models/NAME)"
            + (f"; did you mean {below}?" if below else "")
        )
    return newest
