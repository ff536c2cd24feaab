"""The OpenAPI 3.1 document, made from the error tree and the settings so that it cannot drift.

Knows the JSON of the handlers; knows nothing of Flask.
"""

from typing import Any

from serving.app.openapi import feedback, protocols
from serving.app.openapi.schemas import (
    BASE64,
    BINARY,
    BYTES,
    COUNT,
    JSON,
    OBJECT,
    POSITIVE,
    PREDICTION,
    SHARE,
    TEXT,
    TIMEOUT,
    UNREADY,
    Schema,
    content,
    failures,
    get,
    listed,
    mapping,
    parameter,
    post,
    ref,
    structure,
)
from serving.errors import Overloaded, UnknownModel
from serving.inference.models.routing import LABEL
from serving.settings import Settings

NAME = parameter("name", "path", TEXT)
PRECISION = {"enum": ["float32", "int8"]}
REFUSED = mapping(
    TEXT, description="Reasons why published files are not served, by path in the models folder."
)


def document(settings: Settings) -> dict[str, Any]:
    """Return the document, ready for ``json.dumps``."""
    page = content("The page.", "text/plain", TEXT)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Convserve",
            "version": "1",
            "description": "Image classifiers over HTTP: images in, classes out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/predict/{name}": _predict(settings, NAME),
            "/predict": _predict(settings, parameter("model", "query", TEXT)),
            "/feedback": feedback.feedback(),
            "/models": get("All models.", ref("Models"), Overloaded),
            "/models/{name}": get(
                "One model.", ref("Model"), UnknownModel, Overloaded, parameters=[NAME]
            ),
            "/models/{name}/quality": feedback.quality(NAME),
            "/healthz": get("The process is alive.", _status("alive")),
            "/readyz": get(
                "The models are loaded and tested, and the replica is not draining.",
                _status("ready"),
                *UNREADY,
            ),
            "/metrics": {
                "get": {
                    "summary": "Prometheus metrics of all workers.",
                    "responses": {"200": page, **failures(Overloaded)},
                }
            },
            "/openapi.json": get("This document.", OBJECT),
            **protocols.paths(),
        },
        "components": {"schemas": {**_schemas(), **feedback.schemas(), **protocols.schemas()}},
    }


def _predict(settings: Settings, name: dict[str, Any]) -> dict[str, Any]:
    model = {**TEXT, "description": "The model, if the path names none."}
    form = structure({"model": model}, image=listed(BYTES))
    batch = structure(images=listed(BASE64))
    version = {"oneOf": [POSITIVE, {**TEXT, "pattern": f"^{LABEL.pattern}$"}]}
    coverage = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    return post(
        "Classify one or many images.",
        f"At most {settings.max_images} images and {settings.max_body_bytes} bytes in a"
        f" request, {settings.max_pixels} pixels in an image. In a request of many images an"
        " unreadable one is an error in its place.",
        {
            "image/*": BYTES,
            BINARY: BYTES,
            "multipart/form-data": {**form, "additionalProperties": False},
            JSON: {**batch, "additionalProperties": False},
        },
        content("One prediction for each image, in order.", JSON, ref("Answer")),
        *PREDICTION,
        parameters=[
            name,
            parameter(
                "version",
                "query",
                version,
                "A number, or a label of `routing.json`. The default is the default version or, for"
                " its share of the requests, the canary.",
            ),
            parameter("top", "query", {**POSITIVE, "default": 5}, "The number of labels to list."),
            parameter(
                "coverage",
                "query",
                coverage,
                "Add to each prediction the smallest set of labels that holds the truth with this"
                " probability. Must be one of the model's `conformal`.",
            ),
            TIMEOUT,
        ],
    )


def _schemas() -> dict[str, Schema]:
    label = {"label": TEXT, "probability": SHARE}
    signed = {**TEXT, "description": "Send it to `/feedback` with the true label."}
    chosen = {
        "type": "array",
        "items": TEXT,
        "description": "Only with `coverage`. Empty if no label is probable enough.",
    }
    running = mapping(structure(provider=TEXT, precision=PRECISION))
    states = structure(default_version=POSITIVE, versions=listed(POSITIVE), running=running)
    part = structure(version=POSITIVE, share=SHARE)
    conformal = mapping(
        SHARE, description="By coverage, the least probability of a label in a prediction set."
    )
    pixels = structure(height=POSITIVE, width=POSITIVE, channels={"enum": [1, 3]}, fit=TEXT)
    return {
        "Error": structure(error=structure(code=TEXT, message=TEXT)),
        "Label": structure(**label),
        "Prediction": structure({"set": chosen}, **label, top=listed(ref("Label")), id=signed),
        "Answer": structure(
            model=TEXT,
            version=POSITIVE,
            predictions=listed({"oneOf": [ref("Prediction"), ref("Error")]}),
        ),
        "Models": structure(
            models=listed(ref("Model")), refused=REFUSED, workers=listed(ref("Worker"))
        ),
        "Model": structure(
            {"canary": part, "shadow": part},
            name=TEXT,
            default_version=POSITIVE,
            version_labels=mapping(POSITIVE),
            versions=listed(ref("Version")),
            refused=REFUSED,
        ),
        "Worker": structure(
            worker=COUNT,
            process=COUNT,
            state={"enum": ["loading", "ready"]},
            models=mapping(states),
            refused=REFUSED,
        ),
        "Version": structure(
            {"conformal": conformal},
            version=POSITIVE,
            state={"const": "ready"},
            labels=listed(TEXT),
            input=pixels,
            provider=TEXT,
            precision=PRECISION,
        ),
    }


def _status(value: str) -> Schema:
    return structure(status={"const": value})
