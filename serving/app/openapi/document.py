"""The OpenAPI 3.1 document, made from the error tree and the settings so that it cannot drift.

Knows the JSON of the handlers; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.api.feedback import MOST, SOURCES
from serving.app.openapi import protocols
from serving.app.openapi.schemas import (
    BASE64,
    BINARY,
    BYTES,
    COUNT,
    JSON,
    NUMBER,
    OBJECT,
    POSITIVE,
    PREDICTION,
    SHARE,
    TEXT,
    TIMEOUT,
    UNREADY,
    Schema,
    content,
    get,
    listed,
    mapping,
    parameter,
    post,
    ref,
    structure,
)
from serving.feedback.quality import DEFAULT_LABELS, MAX_LABELS
from serving.inference.models.routing import LABEL
from serving.settings import Settings

NAME = parameter("name", "path", TEXT)
PRECISION = {"enum": ["float32", "int8"]}
REFUSED = mapping(
    TEXT, description="Reasons why published files are not served, by path in the models folder."
)


def document(settings: Settings) -> dict[str, Any]:
    """Return the document, ready for ``json.dumps``."""
    own = {**_prediction_schemas(), **_model_schemas(), **_feedback_schemas()}
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
            "/feedback": _feedback(),
            "/models": get("All models.", ref("Models"), errors.Overloaded),
            "/models/{name}": get(
                "One model.",
                ref("Model"),
                *(errors.UnknownModel, errors.Overloaded),
                parameters=[NAME],
            ),
            "/models/{name}/quality": _quality(),
            "/healthz": get("The process is alive.", structure(status={"const": "alive"})),
            "/readyz": get(
                "The models are loaded and tested, and the replica is not draining.",
                structure(status={"const": "ready"}),
                *UNREADY,
            ),
            "/metrics": get(
                "Prometheus metrics of all workers.", TEXT, errors.Overloaded, kind="text/plain"
            ),
            "/openapi.json": get("This document.", OBJECT),
            **protocols.paths(),
        },
        "components": {"schemas": {**own, **protocols.schemas()}},
    }


def _predict(settings: Settings, name: dict[str, Any]) -> dict[str, Any]:
    model = {**TEXT, "description": "The model, if the path names none."}
    form = structure({"model": model}, image=listed(BYTES))
    batch = structure(images=listed(BASE64))
    version = {"oneOf": [POSITIVE, {**TEXT, "pattern": f"^{LABEL.pattern}$"}]}
    coverage = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    about_typical = (
        "Mark each image whose `typicality` is lower as `unusual`. Only for models with typicality."
    )
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
            parameter("typical", "query", SHARE, about_typical),
            TIMEOUT,
        ],
    )


def _feedback() -> dict[str, Any]:
    several = {**listed(ref("Feedback")), "maxItems": MOST}
    recorded = {"oneOf": [ref("Recorded"), ref("Results")]}
    return post(
        "True labels of predictions.",
        f"One label, or a list of up to {MOST}. Repeating a label is safe: it is recorded once."
        " Each label of a list has its own result, in its place.",
        {JSON: {"oneOf": [ref("Feedback"), several]}},
        content("Recorded, or a duplicate.", JSON, recorded),
        *(errors.BadRequest, errors.MalformedId, errors.ForgedId, errors.ConflictingFeedback),
        *(errors.ExpiredId, errors.UnknownModel, errors.RequestTooLarge, errors.UnsupportedMedia),
        *(errors.UnknownLabel, errors.InternalError, errors.Overloaded),
        *(errors.FeedbackUnavailable, errors.BodyTooSlow, errors.DeadlineExceeded),
    )


def _quality() -> dict[str, Any]:
    about = f"The number of newest labels to use, at most {MAX_LABELS}."
    return get(
        "Accuracy, calibration and drift of a model.",
        ref("Quality"),
        *(errors.BadRequest, errors.UnknownModel, errors.Overloaded, errors.FeedbackUnavailable),
        parameters=[
            NAME,
            parameter("labels", "query", {**POSITIVE, "default": DEFAULT_LABELS}, about),
        ],
    )


def _prediction_schemas() -> dict[str, Schema]:
    label = {"label": TEXT, "probability": SHARE}
    signed = {**TEXT, "description": "Send it to `/feedback` with the true label."}
    chosen = {
        "type": "array",
        "items": TEXT,
        "description": "Only with `coverage`. Empty if no label is probable enough.",
    }
    typicality = {
        **SHARE,
        "description": "The share of validation images that look no more typical. Only where the"
        " model has it.",
    }
    unusual = {"const": True, "description": "Only with `typical`, if `typicality` is lower."}
    optional = {"set": chosen, "typicality": typicality, "unusual": unusual}
    either = {"oneOf": [ref("Prediction"), ref("Error")]}
    return {
        "Error": structure(error=structure(code=TEXT, message=TEXT)),
        "Label": structure(**label),
        "Prediction": structure(optional, **label, top=listed(ref("Label")), id=signed),
        "Answer": structure(model=TEXT, version=POSITIVE, predictions=listed(either)),
    }


def _model_schemas() -> dict[str, Schema]:
    running = mapping(structure(provider=TEXT, precision=PRECISION))
    states = structure(default_version=POSITIVE, versions=listed(POSITIVE), running=running)
    part = structure(version=POSITIVE, share=SHARE)
    conformal = mapping(
        SHARE, description="By coverage, the least probability of a label in a prediction set."
    )
    pixels = structure(height=POSITIVE, width=POSITIVE, channels={"enum": [1, 3]}, fit=TEXT)
    return {
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


def _feedback_schemas() -> dict[str, Schema]:
    label = {"oneOf": [TEXT, {"type": "integer"}]}
    given = structure({"source": {"enum": list(SOURCES)}}, id=TEXT, label=label)
    return {
        "Feedback": {**given, "additionalProperties": False},
        "Recorded": structure(
            status={"enum": ["recorded", "duplicate"]},
            correct={"type": "boolean"},
            model=TEXT,
            version=COUNT,
            predicted=TEXT,
            label=TEXT,
        ),
        "Results": structure(results=listed({"oneOf": [ref("Recorded"), ref("Error")]})),
        "Quality": structure(model=TEXT, versions=listed(_quality_schema())),
    }


def _quality_schema() -> Schema:
    accuracy = {"accuracy": SHARE, "calibration_error": SHARE}
    expected = {"expected_accuracy": SHARE}
    labels = structure(
        {**accuracy, **expected, "recall": mapping(SHARE), "from": TEXT, "to": TEXT},
        count=COUNT,
        correct=COUNT,
        interval={"type": "array", "items": SHARE, "minItems": 2, "maxItems": 2},
    )
    names = ("coverage", "classes_psi", "confidence_psi", "typicality_psi")
    drift = dict.fromkeys(names, NUMBER)
    since_start = structure({**drift, **expected}, predictions=COUNT, labels=COUNT)
    return structure(
        version=COUNT, baseline=structure(accuracy), labels=labels, since_start=since_start
    )
