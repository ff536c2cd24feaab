"""``GET /models/<name>/quality`` reports figures with and without labels."""

from dataclasses import replace
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from serving.feedback.labels import Label
from serving.feedback.quality import quality
from serving.inference.models.model import Model
from serving.monitoring.prediction_counts import PredictionCounts
from serving.monitoring.statistics import psi
from tests.serving.api.test_feedback import label, predicted
from tests.serving.front import Client
from tests.serving.samples import assert_error, publish


def test_the_route_reports_labels_drift_and_coverage(
    client: FlaskClient | Client,
) -> None:
    given = [{"id": predicted(client, 255), "label": each} for each in ["light"] * 6 + ["dark"] * 2]
    predicted(client, 0)
    predicted(client, 0)
    label(client, given)
    body = client.get("/models/shade/quality").json
    assert body
    assert body["model"] == "shade"
    one, two = body["versions"]
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


def test_only_the_newest_labels_count(client: FlaskClient | Client) -> None:
    for each in ("dark", "light"):
        label(client, {"id": predicted(client), "label": each})
    body = client.get("/models/shade/quality?labels=1").json
    assert body
    assert body["versions"][-1]["labels"]["accuracy"] == 1.0


def test_wrong_requests_are_refused(client: FlaskClient | Client) -> None:
    assert_error(client.get("/models/nothing/quality"), 404, "unknown_model")
    assert_error(client.get("/models/shade/quality?labels=few"), 400, "bad_request")
    assert_error(client.get("/models/shade/quality?labels=0"), 400, "bad_request")
    assert "'label'" in assert_error(
        client.get("/models/shade/quality?label=2"), 400, "bad_request"
    )


METRICS = '{"accuracy": 0.9, "calibration_error": 0.02, "images": 2}'
SHARES = [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.2, 0.5]
BASELINE = f'{{"classes": {{"dark": 0.4, "light": 0.6}}, "confidence": {SHARES}}}'
FIRST = Label("a", "shade", 1, "dark", 0.95, "dark", "user", 1_700_000_000, 1_700_000_060.0)


def model(folder: Path, **metadata: str) -> Model:
    return Model(publish(folder, metadata=metadata) / "model.onnx", name="shade", version=1)


def below(*counts: int) -> dict[float, int]:
    """Return cumulated counts, as in Prometheus buckets, of bins 0.1 wide."""
    edges = [edge / 10 for edge in range(1, 11)]
    cumulated = {edge: sum(counts[: place + 1]) for place, edge in enumerate(edges)}
    return cumulated | {0.95: cumulated[0.9], 0.99: cumulated[0.9]}


def test_the_figures_of_labels_are_those_of_their_formulas() -> None:
    labels = [
        FIRST,
        replace(FIRST, id="b", predicted="light", confidence=0.85, labelled_at=1_700_000_000.0),
        replace(FIRST, id="c", confidence=0.95, labelled_at=1_700_000_300.0),
        replace(FIRST, id="d", predicted="light", label="light", confidence=0.54321),
    ]
    (version,) = quality([], labels, {}, {1: 7})["versions"]
    assert version == {
        "version": 1,
        "baseline": {},
        "labels": {
            "count": 4,
            "correct": 3,
            "interval": [0.3006, 0.9544],
            "accuracy": 0.75,
            "expected_accuracy": 0.8233,
            "calibration_error": 0.3517,
            "recall": {"dark": 0.6667, "light": 1.0},
            "from": "2023-11-14T22:13:20Z",
            "to": "2023-11-14T22:18:20Z",
        },
        "since_start": {"predictions": 0, "labels": 7},
    }


def test_versions_are_those_served_or_labelled_in_their_order(tmp_path: Path) -> None:
    labels = [replace(FIRST, version=3), replace(FIRST, version=2), replace(FIRST, version=3)]
    found = quality([model(tmp_path, metrics=METRICS)], labels, {}, {})["versions"]
    counts = [(each["version"], each["labels"]["count"]) for each in found]
    assert counts == [(1, 0), (2, 1), (3, 2)]
    assert [each["baseline"] for each in found] == [
        {"accuracy": 0.9, "calibration_error": 0.02},
        {},
        {},
    ]
    assert found[0]["labels"] == {"count": 0, "correct": 0, "interval": [0.0, 1.0]}
    assert found[0]["since_start"] == {"predictions": 0, "labels": 0}


def test_drift_is_zero_while_predictions_look_like_the_baseline(tmp_path: Path) -> None:
    counts = PredictionCounts(
        {"dark": 40, "light": 60}, below(0, 0, 0, 0, 0, 10, 10, 10, 20, 50), 80
    )
    served = model(tmp_path, baseline=BASELINE)
    (version,) = quality([served], [], {1: counts}, {1: 25})["versions"]
    assert version["since_start"] == {
        "predictions": 100,
        "labels": 25,
        "coverage": 0.25,
        "expected_accuracy": 0.8,
        "classes_psi": 0.0,
        "confidence_psi": 0.0,
    }


def test_drift_is_the_stability_index_of_classes_and_of_confidence(tmp_path: Path) -> None:
    counts = PredictionCounts({"dark": 9, "light": 1}, below(0, 0, 0, 0, 1, 2, 3, 0, 1, 3), 7.0)
    served = model(tmp_path, baseline=BASELINE)
    (version,) = quality([served], [], {1: counts}, {})["versions"]
    bins = dict(zip("abcdefghij", [0, 0, 0, 0, 1, 2, 3, 0, 1, 3], strict=True))
    expected = psi(bins, dict(zip("abcdefghij", SHARES, strict=True)))
    assert expected > 1
    since = version["since_start"]
    assert since["confidence_psi"] == round(expected, 4)
    assert since["classes_psi"] == round(psi(counts.labels, {"dark": 0.4, "light": 0.6}), 4)


def test_a_bin_that_was_never_counted_is_empty(tmp_path: Path) -> None:
    counts, served = PredictionCounts({"dark": 1}), model(tmp_path, baseline=BASELINE)
    (version,) = quality([served], [], {1: counts}, {})["versions"]
    assert version["since_start"]["confidence_psi"] == 0.0


@pytest.mark.parametrize("baseline", ["", "{}"], ids=["no baseline", "an empty one"])
def test_without_a_baseline_no_drift_is_reported(tmp_path: Path, baseline: str) -> None:
    counts = PredictionCounts({"dark": 1}, below(0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 1.0)
    (version,) = quality([model(tmp_path, baseline=baseline)], [], {1: counts}, {})["versions"]
    assert version["since_start"].keys() == {
        *("predictions", "labels", "coverage", "expected_accuracy"),
    }
