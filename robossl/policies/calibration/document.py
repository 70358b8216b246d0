"""The JSON file of a calibration, with the schema `robossl.calibrate/1`.

`python -m robossl.policies.calibration.document > robossl/policies/calibration/schema.json` writes the published
schema. A test checks that the file matches the dataclasses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from robossl.policies.calibration.result import SCHEMA, CalibrationResult
from robossl.policies.records import read_record, record_schema, record_text


def to_json(result: CalibrationResult) -> str:
    """Return the text of a calibration's JSON file."""
    return record_text(result)


def read_calibration(path: Path) -> CalibrationResult:
    """Read a calibration from its file, or from the folder that holds calibration.json.

    Raises:
        InputError: the file is not a calibration, has another schema, or a field is missing, unknown or of a wrong
            type.
    """
    found = read_record(path, CalibrationResult, SCHEMA, file_name="calibration.json", remedy="calibrate again")
    return cast(CalibrationResult, found)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of calibrations."""
    return record_schema(CalibrationResult, SCHEMA, title="RoboSSL calibration")


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
