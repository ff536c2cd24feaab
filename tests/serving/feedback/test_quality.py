"""``GET /models/<name>/quality``: what people are told."""

import pytest
from flask.testing import FlaskClient

from tests.serving.api.test_feedback import label, predicted
from tests.serving.front import Client
from tests.serving.samples import assert_error


def test_it_tells_accuracy_with_its_interval_calibration_drift_and_coverage(
    client: FlaskClient | Client,
) -> None:
    given = [{"id": predicted(client, 255), "label": each} for each in ["light"] * 6 + ["dark"] * 2]
    predicted(client, 0)
    predicted(client, 0)
    label(client, given)
    told = client.get("/models/shade/quality").json
    assert told
    assert told["model"] == "shade"
    one, two = told["versions"]
    assert (one["version"], one["labels"]["count"]) == (1, 0)
    assert one["since_start"] == {"predictions": 0, "labels": 0}
    assert two["baseline"] == {"accuracy": 1.0}
    labels = two["labels"]
    assert (labels["count"], labels["correct"], labels["accuracy"]) == (8, 6, 0.75)
    assert labels["interval"] == [0.4093, 0.9285]
    assert labels["expected_accuracy"] == 1.0
    assert labels["calibration_error"] == 0.25
    assert labels["recall"] == {"dark": 0.0, "light": 1.0}
    since = two["since_start"]
    assert (since["predictions"], since["labels"], since["coverage"]) == (10, 8, 0.8)
    assert since["classes_psi"] == pytest.approx(0.8318 * 0.5, abs=0.01)


def test_only_the_newest_labels_are_looked_at(client: FlaskClient | Client) -> None:
    for each in ("dark", "light"):
        label(client, {"id": predicted(client), "label": each})
    told = client.get("/models/shade/quality?labels=1").json
    assert told
    assert told["versions"][-1]["labels"]["accuracy"] == 1.0


def test_an_invalid_label_gets_its_error(client: FlaskClient | Client) -> None:
    assert_error(client.get("/models/nothing/quality"), 404, "unknown_model")
    assert_error(client.get("/models/shade/quality?labels=few"), 400, "bad_request")
    assert_error(client.get("/models/shade/quality?labels=0"), 400, "bad_request")
    assert "'label'" in assert_error(
        client.get("/models/shade/quality?label=2"), 400, "bad_request"
    )
