"""The API described in OpenAPI 3.1, made from the error tree and the settings: it cannot drift.

Knows the shapes of ``api.py``; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.settings import Settings

JSON = "application/json"


def document(settings: Settings) -> dict[str, Any]:
    """The whole description, ready for ``json.dumps``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convserve",
            "version": "1",
            "description": "Image classifiers over HTTP: images in, classes out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/predict/{name}": {"post": _predict(settings, [_path_name(), *_parameters()])},
            "/predict": {"post": _predict(settings, [_model_parameter(), *_parameters()])},
            "/models": {"get": _get("What is served.", _object({"models": _list(_ref("Model"))}))},
            "/models/{name}": {
                "get": {
                    **_get("One model.", _ref("Model"), errors.UnknownModel),
                    "parameters": [_path_name()],
                }
            },
            "/healthz": {"get": _get("The process is alive.", _status("alive"))},
            "/readyz": {
                "get": _get(
                    "All models are loaded and tested, and the replica is not about to stop.",
                    _status("ready"),
                    errors.Draining,
                )
            },
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics of all workers.",
                    "responses": {"200": _content("The page.", "text/plain", {"type": "string"})},
                }
            },
            "/openapi.json": {"get": _get("This document.", {"type": "object"})},
        },
        "components": {"schemas": _schemas()},
    }


def _predict(settings: Settings, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    form = _object({"image": _list({"type": "string", "format": "binary"})})
    form["properties"]["model"] = {"type": "string", "description": "Where the path names none."}
    form["additionalProperties"] = False
    listed = {**_object({"images": _list(_base64())}), "additionalProperties": False}
    return {
        "summary": "Classify one or many images.",
        "description": (
            f"At most {settings.max_images} images and {settings.max_body_bytes} bytes in a"
            f" request, {settings.max_pixels} pixels in an image. In a request of many images a bad"
            " one fails alone, in its place."
        ),
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {
                "image/*": file,
                "application/octet-stream": file,
                "multipart/form-data": {"schema": form},
                JSON: {"schema": listed},
            },
        },
        "responses": {
            "200": _content("One prediction for each image, in order.", JSON, _ref("Answer")),
            **_error_responses(
                errors.BadRequest,
                errors.InvalidImage,
                errors.UnknownModel,
                errors.UnknownVersion,
                errors.RequestTooLarge,
                errors.ImageTooLarge,
                errors.UnsupportedMedia,
                errors.InternalError,
                errors.Overloaded,
                errors.DeadlineExceeded,
            ),
        },
    }


def _get(
    summary: str, schema: dict[str, Any], *failures: type[errors.ServingError]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": _content(summary, JSON, schema), **_error_responses(*failures)},
    }


def _error_responses(*failures: type[errors.ServingError]) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for failure in failures:
        by_status.setdefault(str(failure.status), []).append(
            f"`{failure().code}`: {failure.__doc__}"
        )
    return {
        status: _content(" ".join(about), JSON, _ref("Error"))
        for status, about in by_status.items()
    }


def _content(about: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {kind: {"schema": schema}}}


def _path_name() -> dict[str, Any]:
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _model_parameter() -> dict[str, Any]:
    return {"name": "model", "in": "query", "schema": {"type": "string"}}


def _parameters() -> list[dict[str, Any]]:
    number = {"type": "integer", "minimum": 1}
    return [
        {
            "name": "version",
            "in": "query",
            "schema": number,
            "description": "The highest unless given.",
        },
        {
            "name": "top",
            "in": "query",
            "schema": {**number, "default": 5},
            "description": "How many labels to list.",
        },
        {
            "name": "coverage",
            "in": "query",
            "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "description": "Add to each prediction the smallest set of labels that holds the truth"
            " this often, one of the model's `conformal`.",
        },
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "schema": number,
            "description": "Shortens the deadline.",
        },
    ]


def _schemas() -> dict[str, Any]:
    labelled = {
        "label": {"type": "string"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
    }
    count = {"type": "integer", "minimum": 1}
    version = _object(
        {
            "version": count,
            "state": {"const": "ready"},
            "labels": _list({"type": "string"}),
            "input": _object(
                {
                    "height": count,
                    "width": count,
                    "channels": {"enum": [1, 3]},
                    "fit": {"type": "string"},
                }
            ),
            "provider": {"type": "string"},
        }
    )
    prediction = _object({**labelled, "top": _list(_ref("Label"))})
    prediction["properties"]["set"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Where `coverage` was asked for: empty where nothing fits.",
    }
    version["properties"]["conformal"] = {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        "description": "By coverage, the probability that puts a label into a prediction set.",
    }
    return {
        "Error": _object({"error": _object({"code": _text(), "message": _text()})}),
        "Label": _object(labelled),
        "Prediction": prediction,
        "Answer": _object(
            {
                "model": _text(),
                "version": count,
                "predictions": _list({"oneOf": [_ref("Prediction"), _ref("Error")]}),
            }
        ),
        "Model": _object(
            {"name": _text(), "default_version": count, "versions": _list(_ref("Version"))}
        ),
        "Version": version,
    }


def _text() -> dict[str, Any]:
    return {"type": "string"}


def _base64() -> dict[str, Any]:
    return {"type": "string", "contentEncoding": "base64"}


def _status(value: str) -> dict[str, Any]:
    return _object({"status": {"const": value}})


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
