"""The routes of labels and of quality, described in OpenAPI 3.1.

Knows the shapes of ``feedback.py`` and ``quality.py``; knows nothing of Flask.
"""

from typing import Any

from serving import errors
from serving.api.feedback import MOST, SOURCES
from serving.app.openapi.schemas import (
    JSON,
    Schema,
    content,
    failures,
    listed,
    ref,
    structure,
    text,
)
from serving.feedback.quality import DEFAULT_LABELS, MAX_LABELS

_COUNT = {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_NUMBER = {"type": "number"}


def feedback() -> dict[str, Any]:
    """``POST /feedback``."""
    several = {**listed(ref("Feedback")), "maxItems": MOST}
    return {
        "summary": "True labels of predictions.",
        "description": (
            f"One, or up to {MOST}. To send a label again is safe: it is kept once. Of several each"
            " has its own result, in its place."
        ),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"oneOf": [ref("Feedback"), several]}}},
        },
        "responses": {
            "200": content(
                "Recorded, or known already.",
                JSON,
                {"oneOf": [ref("Recorded"), ref("Results")]},
            ),
            **failures(
                errors.BadRequest,
                errors.MalformedId,
                errors.ForgedId,
                errors.ConflictingFeedback,
                errors.ExpiredId,
                errors.UnknownModel,
                errors.RequestTooLarge,
                errors.UnsupportedMedia,
                errors.UnknownLabel,
                errors.InternalError,
                errors.Overloaded,
                errors.FeedbackUnavailable,
                errors.BodyTooSlow,
                errors.DeadlineExceeded,
            ),
        },
    }


def quality(name: dict[str, Any]) -> dict[str, Any]:
    """``GET /models/<name>/quality``; ``name`` describes the model's."""
    return {
        "summary": "How right a model is.",
        "parameters": [
            name,
            {
                "name": "labels",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "default": DEFAULT_LABELS},
                "description": f"Of so many labels, the newest; at most {MAX_LABELS}.",
            },
        ],
        "responses": {
            "200": content("By version.", JSON, ref("Quality")),
            **failures(
                errors.BadRequest,
                errors.UnknownModel,
                errors.Overloaded,
                errors.FeedbackUnavailable,
            ),
        },
    }


def schemas() -> dict[str, Schema]:
    """What they are made of."""
    label = {"oneOf": [text(), {"type": "integer"}]}
    given = structure({"id": text(), "label": label}, optional={"source": {"enum": list(SOURCES)}})
    recorded = structure(
        {
            "status": {"enum": ["recorded", "duplicate"]},
            "correct": {"type": "boolean"},
            "model": text(),
            "version": _COUNT,
            "predicted": text(),
            "label": text(),
        }
    )
    result = {"oneOf": [ref("Recorded"), ref("Error")]}
    return {
        "Feedback": {**given, "additionalProperties": False},
        "Recorded": recorded,
        "Results": structure({"results": listed(result)}),
        "Quality": structure({"model": text(), "versions": listed(_version())}),
    }


def _version() -> Schema:
    labels = structure(
        {
            "count": _COUNT,
            "correct": _COUNT,
            "interval": {"type": "array", "items": _SHARE, "minItems": 2, "maxItems": 2},
        },
        optional={
            "accuracy": _SHARE,
            "expected_accuracy": _SHARE,
            "calibration_error": _SHARE,
            "recall": {"type": "object", "additionalProperties": _SHARE},
            "from": text(),
            "to": text(),
        },
    )
    since_start = structure(
        {"predictions": _COUNT, "labels": _COUNT},
        optional={
            "coverage": _NUMBER,
            "expected_accuracy": _SHARE,
            "classes_psi": _NUMBER,
            "confidence_psi": _NUMBER,
        },
    )
    baseline = structure({}, optional={"accuracy": _SHARE, "calibration_error": _SHARE})
    return structure(
        {"version": _COUNT, "baseline": baseline, "labels": labels, "since_start": since_start}
    )
