"""The JSON file of a transfer result, with the schema `robossl.transfer/1`.

`python -m robossl.policies.document > robossl/policies/schema.json` writes the published schema. A test checks that the
file matches the dataclasses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from robossl.policies.records import read_record, record_schema, record_text
from robossl.policies.result import SCHEMA, TransferResult


def to_json(result: TransferResult) -> str:
    """Return the text of a result's JSON file."""
    return record_text(result)


def read_result(path: Path) -> TransferResult:
    """Read a result from its file, or from the folder that holds transfer.json.

    Raises:
        InputError: the file is not a result, has another schema, or a field is missing, unknown or of a wrong type.
    """
    found = read_record(path, TransferResult, SCHEMA, file_name="transfer.json", remedy="measure again")
    return cast(TransferResult, found)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of results."""
    return record_schema(TransferResult, SCHEMA, title="RoboSSL transfer result")


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
