"""The routes of labels and of quality in the OpenAPI document.

Knows the JSON of their handlers; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.api.feedback import MOST, SOURCES
from serving.app.openapi.schemas import (
    COUNT,
    JSON,
    NUMBER,
    POSITIVE,
    SHARE,
    TEXT,
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


def feedback() -> dict[str, Any]:
    """Describe ``POST /feedback``."""
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


def quality(name: dict[str, Any]) -> dict[str, Any]:
    """Describe ``GET /models/<name>/quality``; ``name`` is the parameter of the path."""
    about = f"The number of newest labels to use, at most {MAX_LABELS}."
    return get(
        "Accuracy, calibration and drift of a model.",
        ref("Quality"),
        *(errors.BadRequest, errors.UnknownModel, errors.Overloaded, errors.FeedbackUnavailable),
        parameters=[
            name,
            parameter("labels", "query", {**POSITIVE, "default": DEFAULT_LABELS}, about),
        ],
    )


def schemas() -> dict[str, Schema]:
    """Return the schemas."""
    given = structure(
        {"source": {"enum": list(SOURCES)}},
        id=TEXT,
        label={"oneOf": [TEXT, {"type": "integer"}]},
    )
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
        "Quality": structure(model=TEXT, versions=listed(_version())),
    }


def _version() -> Schema:
    accuracy = {"accuracy": SHARE, "calibration_error": SHARE}
    labels = structure(
        {
            **accuracy,
            "expected_accuracy": SHARE,
            "recall": mapping(SHARE),
            "from": TEXT,
            "to": TEXT,
        },
        count=COUNT,
        correct=COUNT,
        interval={"type": "array", "items": SHARE, "minItems": 2, "maxItems": 2},
    )
    drift = {"coverage": NUMBER, "classes_psi": NUMBER, "confidence_psi": NUMBER}
    since_start = structure({**drift, "expected_accuracy": SHARE}, predictions=COUNT, labels=COUNT)
    return structure(
        version=COUNT, baseline=structure(accuracy), labels=labels, since_start=since_start
    )
