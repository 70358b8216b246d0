"""Write and read a calibration as JSON with the schema `robossl.calibration/1`: the fields of its dataclasses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from robossl.errors import InputError
from robossl.policies.calibration.result import SCHEMA, CalibrationResult
from robossl.probes.document import WrongFieldError, build_record, plain


def to_json(result: CalibrationResult) -> str:
    """Return the text of a calibration's JSON file."""
    return json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_calibration(path: Path) -> CalibrationResult:
    """Read a calibration from its file, or from the folder that holds calibration.json.

    Raises:
        InputError: the file is not a calibration, has another schema, or a field is missing, unknown or of a wrong
            type.
    """
    path = path / "calibration.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no result of robossl calibrate ({error}); write one with --out") from error
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}; calibrate again")
    try:
        return cast(CalibrationResult, build_record(CalibrationResult, content, ""))
    except WrongFieldError as error:
        raise InputError(f"{path} is not a valid {SCHEMA} result: {error}; calibrate again") from None
