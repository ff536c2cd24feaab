"""Pieces of a description in OpenAPI 3.1.

Knows JSON Schema; knows none of our routes.
"""

from collections.abc import Mapping
from typing import Any

from serving.errors import ServingError

JSON = "application/json"

Schema = dict[str, Any]


def text() -> Schema:
    """A string."""
    return {"type": "string"}


def base64() -> Schema:
    """Bytes in a string."""
    return {"type": "string", "contentEncoding": "base64"}


def listed(items: Schema) -> Schema:
    """One or many of a kind."""
    return {"type": "array", "items": items, "minItems": 1}


def structure(
    properties: Mapping[str, Any], *, optional: Mapping[str, Any] | None = None
) -> Schema:
    """An object; what is not ``optional`` is always there."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
    }


def ref(name: str) -> Schema:
    """A schema told elsewhere."""
    return {"$ref": f"#/components/schemas/{name}"}


def content(about: str, kind: str, schema: Schema) -> dict[str, Any]:
    """The body of an answer."""
    return {"description": about, "content": {kind: {"schema": schema}}}


def failures(*errors: type[ServingError], shape: str = "Error") -> dict[str, Any]:
    """The answers of so many errors, by their status."""
    by_status: dict[str, list[str]] = {}
    for error in errors:
        by_status.setdefault(str(error.status), []).append(f"`{error.code}`: {error.__doc__}")
    return {
        status: content(" ".join(about), JSON, ref(shape)) for status, about in by_status.items()
    }
