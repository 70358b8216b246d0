"""Results as JSON files: the fields of their dataclasses, with the name of a schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robossl.errors import InputError
from robossl.probes.document import WrongFieldError, build_record, plain
from robossl.probes.schema import describe_type


def record_text(result: Any) -> str:
    """Return the text of a result's JSON file."""
    return json.dumps(plain(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_record(path: Path, kind: type, schema: str, *, file_name: str, remedy: str) -> Any:
    """Read a result from its file, or from the folder that holds it.

    Args:
        path: The file or the folder.
        kind: Dataclass of the result.
        schema: Name of the schema that the file must have, such as robossl.transfer/1.
        file_name: Name of the file in a folder.
        remedy: What to do if the file is another, such as "measure again".

    Raises:
        InputError: the file is not a result, has another schema, or a field is missing, unknown or of a wrong type.
    """
    path = path / file_name if path.is_dir() else path
    command = schema.partition("/")[0].replace(".", " ")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no result of {command} ({error}); write one with --out") from error
    if found != schema:
        raise InputError(f"{path} has schema {found!r}, this version reads {schema!r}; {remedy}")
    try:
        return build_record(kind, content, "")
    except WrongFieldError as error:
        raise InputError(f"{path} is not a valid {schema} result: {error}; {remedy}") from None


def record_schema(kind: type, schema: str, *, title: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a result."""
    definitions: dict[str, Any] = {}
    root = describe_type(kind, definitions)
    definitions[kind.__name__]["properties"]["schema"] = {"const": schema}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{schema.replace('/', ':')}",
        "title": f"{title}, {schema}",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }
