"""Parts of an OpenAPI 3.1 document.

Knows JSON Schema; knows no route.
"""

from collections.abc import Mapping
from typing import Any

from serving.errors import ServingError

JSON = "application/json"

Schema = dict[str, Any]


def text() -> Schema:
    """Return the schema of a string."""
    return {"type": "string"}


def base64() -> Schema:
    """Return the schema of bytes as base64."""
    return {"type": "string", "contentEncoding": "base64"}


def listed(items: Schema) -> Schema:
    """Return the schema of a non-empty list."""
    return {"type": "array", "items": items, "minItems": 1}


def structure(
    properties: Mapping[str, Any], *, optional: Mapping[str, Any] | None = None
) -> Schema:
    """Return the schema of an object; members that are not ``optional`` are required."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
    }


def ref(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def content(about: str, kind: str, schema: Schema) -> dict[str, Any]:
    """Return the content of an answer."""
    return {"description": about, "content": {kind: {"schema": schema}}}


def failures(*errors: type[ServingError], shape: str = "Error") -> dict[str, Any]:
    """Return the answers of errors, by status."""
    by_status: dict[str, list[str]] = {}
    for error in errors:
        by_status.setdefault(str(error.status), []).append(f"`{error().code}`: {error.__doc__}")
    return {
        status: content(" ".join(about), JSON, ref(shape)) for status, about in by_status.items()
    }
