"""Write and read a result as JSON with the schema `robossl.transfer/1`: the fields of its dataclasses.

`python -m robossl.policies.document > robossl/policies/schema.json` writes the published schema. A test checks that the
file matches the dataclasses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from robossl.errors import InputError
from robossl.policies.result import SCHEMA, TransferResult
from robossl.probes.document import WrongFieldError, build_record, plain
from robossl.probes.schema import describe_type


def to_json(result: TransferResult) -> str:
    """Return the text of a result's JSON file."""
    return json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_result(path: Path) -> TransferResult:
    """Read a result from its file, or from the folder that holds transfer.json.

    Raises:
        InputError: the file is not a result, has another schema, or a field is missing, unknown or of a wrong type.
    """
    path = path / "transfer.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no result of robossl transfer ({error}); write one with --out") from error
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}; measure again")
    try:
        return cast(TransferResult, build_record(TransferResult, content, ""))
    except WrongFieldError as error:
        raise InputError(f"{path} is not a valid {SCHEMA} result: {error}; measure again") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of results."""
    definitions: dict[str, Any] = {}
    root = describe_type(TransferResult, definitions)
    definitions["TransferResult"]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": f"RoboSSL transfer result, {SCHEMA}",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
