"""Parts of an OpenAPI 3.1 document.

Knows JSON Schema and the error tree; knows no route.
"""

from collections.abc import Mapping
from typing import Any

from serving import errors
from serving.errors import ServingError

JSON = "application/json"
BINARY = "application/octet-stream"

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
BYTES: Schema = {"type": "string", "format": "binary"}
BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
NUMBER: Schema = {"type": "number"}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
OBJECT: Schema = {"type": "object"}

UNKNOWN = (errors.UnknownModel, errors.UnknownVersion)
UNREADY = (errors.DeviceMissing, errors.Draining)
# The errors of a request with images.
PREDICTION = (
    *(errors.BadRequest, errors.InvalidImage, *UNKNOWN, errors.RequestTooLarge),
    *(errors.ImageTooLarge, errors.TargetTooLong, errors.UnsupportedMedia, errors.HeaderTooLarge),
    *(errors.InternalError, errors.Overloaded, errors.OutOfMemory),
    *(errors.BodyTooSlow, errors.DeadlineExceeded),
)


def listed(items: Schema) -> Schema:
    """Return the schema of a non-empty list."""
    return {"type": "array", "items": items, "minItems": 1}


def mapping(values: Schema, **more: Any) -> Schema:
    """Return the schema of an object with any keys."""
    return {"type": "object", "additionalProperties": values, **more}


def structure(optional: Mapping[str, Any] | None = None, /, **members: Schema) -> Schema:
    """Return the schema of an object; ``members`` are required."""
    properties = {**members, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(members)}


def ref(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str, place: str, schema: Schema, about: str = "") -> dict[str, Any]:
    """Return a parameter in a ``place``: path, query or header."""
    found: dict[str, Any] = {"name": name, "in": place, "schema": schema}
    if place == "path":
        found["required"] = True
    return {**found, "description": about} if about else found


TIMEOUT = parameter("X-Request-Timeout-Ms", "header", POSITIVE, "Shortens the deadline.")


def content(about: str, kind: str, schema: Schema) -> dict[str, Any]:
    """Return the content of an answer."""
    return {"description": about, "content": {kind: {"schema": schema}}}


def failures(*raised: type[ServingError], shape: str = "Error") -> dict[str, Any]:
    """Return the answers of errors, by status."""
    by_status: dict[str, list[str]] = {}
    for error in raised:
        by_status.setdefault(str(error.status), []).append(f"`{error.code}`: {error.__doc__}")
    return {
        status: content(" ".join(about), JSON, ref(shape)) for status, about in by_status.items()
    }


def get(
    summary: str,
    schema: Schema,
    *raised: type[ServingError],
    shape: str = "Error",
    kind: str = JSON,
    **more: Any,
) -> dict[str, Any]:
    """Return a GET without a body."""
    answers = {"200": content(summary, kind, schema), **failures(*raised, shape=shape)}
    return {"get": {"summary": summary, "responses": answers, **more}}


def post(
    summary: str,
    about: str,
    bodies: Mapping[str, Schema],
    answer: dict[str, Any],
    *raised: type[ServingError],
    shape: str = "Error",
    **more: Any,
) -> dict[str, Any]:
    """Return a POST with a body of one of several content types."""
    accepted = {kind: {"schema": schema} for kind, schema in bodies.items()}
    return {
        "post": {
            "summary": summary,
            "description": about,
            "requestBody": {"required": True, "content": accepted},
            "responses": {"200": answer, **failures(*raised, shape=shape)},
            **more,
        }
    }
