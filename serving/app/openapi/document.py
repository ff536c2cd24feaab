"""The OpenAPI 3.1 document, made from the error tree and the settings so that it cannot drift.

Knows the JSON of the handlers; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.app.openapi import feedback, protocols
from serving.app.openapi.schemas import (
    JSON,
    base64,
    content,
    failures,
    listed,
    ref,
    structure,
    text,
)
from serving.inference.models.routing import LABEL
from serving.settings import Settings

_COUNT = {"type": "integer", "minimum": 1}
_PRECISION = {"enum": ["float32", "int8"]}


def document(settings: Settings) -> dict[str, Any]:
    """Return the document, ready for ``json.dumps``."""
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
            "/feedback": {"post": feedback.feedback()},
            "/models": {"get": _get("All models.", ref("Models"), errors.Overloaded)},
            "/models/{name}": {
                "get": {
                    **_get("One model.", ref("Model"), errors.UnknownModel, errors.Overloaded),
                    "parameters": [_path_name()],
                }
            },
            "/models/{name}/quality": {"get": feedback.quality(_path_name())},
            "/healthz": {"get": _get("The process is alive.", _status("alive"))},
            "/readyz": {
                "get": _get(
                    "The models are loaded and tested, and the replica is not draining.",
                    _status("ready"),
                    errors.DeviceMissing,
                    errors.Draining,
                )
            },
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics of all workers.",
                    "responses": {
                        "200": content("The page.", "text/plain", {"type": "string"}),
                        **failures(errors.Overloaded),
                    },
                }
            },
            "/openapi.json": {"get": _get("This document.", {"type": "object"})},
            **protocols.paths(),
        },
        "components": {"schemas": {**_schemas(), **feedback.schemas(), **protocols.schemas()}},
    }


def _predict(settings: Settings, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    file = {"schema": {"type": "string", "format": "binary"}}
    form = structure({"image": listed({"type": "string", "format": "binary"})})
    form["properties"]["model"] = {
        "type": "string",
        "description": "The model, if the path names none.",
    }
    form["additionalProperties"] = False
    batch = {**structure({"images": listed(base64())}), "additionalProperties": False}
    return {
        "summary": "Classify one or many images.",
        "description": (
            f"At most {settings.max_images} images and {settings.max_body_bytes} bytes in a"
            f" request, {settings.max_pixels} pixels in an image. In a request of many images an"
            " unreadable one is an error in its place."
        ),
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {
                "image/*": file,
                "application/octet-stream": file,
                "multipart/form-data": {"schema": form},
                JSON: {"schema": batch},
            },
        },
        "responses": {
            "200": content("One prediction for each image, in order.", JSON, ref("Answer")),
            **failures(
                errors.BadRequest,
                errors.InvalidImage,
                errors.UnknownModel,
                errors.UnknownVersion,
                errors.RequestTooLarge,
                errors.ImageTooLarge,
                errors.TargetTooLong,
                errors.UnsupportedMedia,
                errors.HeaderTooLarge,
                errors.InternalError,
                errors.Overloaded,
                errors.BodyTooSlow,
                errors.DeadlineExceeded,
            ),
        },
    }


def _get(
    summary: str, schema: dict[str, Any], *raised: type[errors.ServingError]
) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": content(summary, JSON, schema), **failures(*raised)},
    }


def _path_name() -> dict[str, Any]:
    return {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _model_parameter() -> dict[str, Any]:
    return {"name": "model", "in": "query", "schema": {"type": "string"}}


def _parameters() -> list[dict[str, Any]]:
    return [
        {
            "name": "version",
            "in": "query",
            "schema": {"oneOf": [_COUNT, {"type": "string", "pattern": f"^{LABEL.pattern}$"}]},
            "description": "A number, or a label of `routing.json`. The default is the default"
            " version or, for its share of the requests, the canary.",
        },
        {
            "name": "top",
            "in": "query",
            "schema": {**_COUNT, "default": 5},
            "description": "The number of labels to list.",
        },
        {
            "name": "coverage",
            "in": "query",
            "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "description": "Add to each prediction the smallest set of labels that holds the truth"
            " with this probability. Must be one of the model's `conformal`.",
        },
        {
            "name": "X-Request-Timeout-Ms",
            "in": "header",
            "schema": _COUNT,
            "description": "Shortens the deadline.",
        },
    ]


def _schemas() -> dict[str, Any]:
    labelled = {
        "label": {"type": "string"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
    }
    signed = {"type": "string", "description": "Send it to `/feedback` with the true label."}
    prediction = structure({**labelled, "top": listed(ref("Label")), "id": signed})
    prediction["properties"]["set"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Only with `coverage`. Empty if no label is probable enough.",
    }
    return {
        "Error": structure({"error": structure({"code": text(), "message": text()})}),
        "Label": structure(labelled),
        "Prediction": prediction,
        "Answer": structure(
            {
                "model": text(),
                "version": _COUNT,
                "predictions": listed({"oneOf": [ref("Prediction"), ref("Error")]}),
            }
        ),
        "Models": structure(
            {
                "models": listed(ref("Model")),
                "refused": _refused(),
                "workers": listed(ref("Worker")),
            }
        ),
        "Model": _model(),
        "Worker": _worker(),
        "Version": _version(),
    }


def _version() -> dict[str, Any]:
    version = structure(
        {
            "version": _COUNT,
            "state": {"const": "ready"},
            "labels": listed({"type": "string"}),
            "input": structure(
                {
                    "height": _COUNT,
                    "width": _COUNT,
                    "channels": {"enum": [1, 3]},
                    "fit": {"type": "string"},
                }
            ),
            "provider": {"type": "string"},
            "precision": _PRECISION,
        }
    )
    version["properties"]["conformal"] = {
        "type": "object",
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
        "description": "By coverage, the least probability of a label in a prediction set.",
    }
    return version


def _model() -> dict[str, Any]:
    model = structure(
        {
            "name": text(),
            "default_version": _COUNT,
            "version_labels": {"type": "object", "additionalProperties": _COUNT},
            "versions": listed(ref("Version")),
            "refused": _refused(),
        }
    )
    share = {"type": "number", "minimum": 0, "maximum": 1}
    for part in ("canary", "shadow"):
        model["properties"][part] = structure({"version": _COUNT, "share": share})
    return model


def _worker() -> dict[str, Any]:
    """Describe the state of one worker."""
    number = {"type": "integer", "minimum": 0}
    running = structure({"provider": text(), "precision": _PRECISION})
    each = structure(
        {
            "default_version": _COUNT,
            "versions": listed(_COUNT),
            "running": {"type": "object", "additionalProperties": running},
        }
    )
    return structure(
        {
            "worker": number,
            "process": number,
            "state": {"enum": ["loading", "ready"]},
            "models": {"type": "object", "additionalProperties": each},
            "refused": _refused(),
        }
    )


def _refused() -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": text(),
        "description": "Reasons why published files are not served, by path in the"
        " folder of the models: the reason.",
    }


def _status(value: str) -> dict[str, Any]:
    return structure({"status": {"const": value}})
