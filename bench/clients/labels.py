"""Pictures whose labels are known: predicted, and the feedback on the ids of their predictions.

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
    """A picture, and what it shows."""

    picture: bytes
    label: str


@dataclass(frozen=True)
class Predicted:
    """An id, the label that the model gave, and the one that is true."""

    id: str
    predicted: str
    label: str


def published(name: str) -> list[Known]:
    """The pictures that were published with a model."""
    return [
        Known(picture, label)
        for label, several in bodies.pictures(name).items()
        for picture in several
    ]


def predict(
    server: Server, name: str, several: Sequence[Known], version: str = ""
) -> list[Predicted]:
    """All in one request, by the default version or another.

    Raises:
        RuntimeError: it was refused.
    """
    form = bodies.form([each.picture for each in several])
    path = f"/predict/{name}" + (f"?version={version}" if version else "")
    status, body = server.answer("POST", path, form, bodies.FORM)
    if status != 200:
        raise RuntimeError(f"A prediction was answered {status}: {body[:200]!r}")
    told = json.loads(body)["predictions"]
    return [
        Predicted(prediction["id"], prediction["label"], one.label)
        for prediction, one in zip(told, several, strict=True)
    ]


def one_label(identity: str, label: str) -> Call:
    """The feedback on one prediction."""
    return Call(FEEDBACK, json.dumps({"id": identity, "label": label}).encode(), JSON)


def all_labels(several: Sequence[Predicted]) -> Call:
    """The true labels of up to 1,000 predictions."""
    items = [{"id": each.id, "label": each.label} for each in several]
    return Call(FEEDBACK, json.dumps(items).encode(), JSON)
