"""Pictures with known labels: predictions, and the feedback on the ids of predictions.

Knows the JSON of /predict and of /feedback; knows nothing of what is measured.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from bench.clients import bodies
from bench.clients.traffic import JSON, Call
from bench.rig.service import Server

FEEDBACK = "/feedback"


@dataclass(frozen=True)
class Known:
    """A picture and its true label."""

    picture: bytes
    label: str


@dataclass(frozen=True)
class Predicted:
    """The id of a prediction, the predicted label, and the true label."""

    id: str
    predicted: str
    label: str


def published(name: str) -> list[Known]:
    """Return the pictures that were published with a model."""
    pictures = bodies.pictures(name).items()
    return [Known(picture, label) for label, several in pictures for picture in several]


def predict(
    server: Server, name: str, several: Sequence[Known], version: str = ""
) -> list[Predicted]:
    """Predict all pictures in one request, by the default version or another.

    Raises:
        RuntimeError: if the request was refused.
    """
    form = bodies.form([each.picture for each in several])
    path = f"/predict/{name}" + (f"?version={version}" if version else "")
    status, body = server.answer("POST", path, form, bodies.FORM)
    if status != 200:
        raise RuntimeError(f"A prediction was answered {status}: {body[:200]!r}")
    return [
        Predicted(prediction["id"], prediction["label"], known.label)
        for prediction, known in zip(json.loads(body)["predictions"], several, strict=True)
    ]


def feedback_call(identity: str, label: str) -> Call:
    """Return the feedback on one prediction."""
    return Call(FEEDBACK, json.dumps({"id": identity, "label": label}).encode(), JSON)


def post_labels(server: Server, several: Sequence[Predicted]) -> int:
    """Post the true labels of up to 1,000 predictions; return how many were recorded.

    Raises:
        RuntimeError: if the request was refused.
    """
    items = [{"id": each.id, "label": each.label} for each in several]
    status, body = server.answer("POST", FEEDBACK, json.dumps(items).encode(), JSON)
    if status != 200:
        raise RuntimeError(f"Feedback was answered {status}: {body[:200]!r}")
    return body.count(b'"recorded"')
