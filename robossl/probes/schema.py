"""Generate the JSON Schema of reports (`robossl.probe/1`) from the report's dataclasses.

`python -m robossl.probes.schema > robossl/probes/schema.json` writes the published file. A test checks that the file
matches the dataclasses.
"""

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from robossl.probes.document import field_types
from robossl.probes.result import SCHEMA, Report

_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of reports."""
    definitions: dict[str, Any] = {}
    root = describe_type(Report, definitions)
    definitions["Report"]["properties"]["schema"] = {"const": SCHEMA}
    definitions["Report"]["required"].append("schema")
    definitions["Figure"] |= _REASONED
    definitions["ViewFigures"]["properties"]["level"] |= {"minimum": 1, "maximum": 5}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": f"RoboSSL probe report, {SCHEMA}",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


# A `Figure` (a value with its interval) must have a reason if the value or a bound is missing.
_REASONED = {
    "if": {"properties": {name: {"type": "number"} for name in ("value", "low", "high")}},
    "else": {"properties": {"reason": {"type": "string", "minLength": 1}}},
}


def describe_type(wanted: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a type, and add those of its dataclasses to `definitions`."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return {}
    if dataclasses.is_dataclass(wanted):
        return _describe_record(wanted, definitions)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (types.UnionType, Union):
        return {"anyOf": [describe_type(inner[0], definitions), {"type": "null"}]}
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": describe_type(inner[0], definitions)}
    if origin is tuple:
        items = [describe_type(each, definitions) for each in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin is not None:  # the type is a mapping; all other generic types are handled above
        return {"type": "object", "additionalProperties": describe_type(inner[1], definitions)}
    return {"type": _SCALARS[wanted]}


def _describe_record(wanted: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if wanted.__name__ not in definitions:
        # Add an entry for the dataclass before its fields are described, because a field may refer to the dataclass.
        definitions[wanted.__name__] = {}
        fields = dataclasses.fields(wanted)
        definitions[wanted.__name__] |= {
            "type": "object",
            "description": (wanted.__doc__ or "").splitlines()[0],
            "properties": {name: describe_type(hint, definitions) for name, hint in field_types(wanted).items()},
            "required": [field.name for field in fields if field.default is dataclasses.MISSING],
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{wanted.__name__}"}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
