"""``GET /models/<name>/quality``: how right a model is, for people.

Knows the labels of the database and the counts of this replica; knows no server. What a label is
needed for is told of the newest labels of all replicas; what needs none, of this replica since it
started.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.feedback.labels import Label
from serving.inference.models.model import Model
from serving.monitoring.prediction_counts import Predicted
from serving.monitoring.statistics import BINS, bin_of, calibration_error, psi, wilson

NEWEST, MOST = 1000, 10_000  # labels, unless asked for others, and at most


def quality(
    served: Iterable[Model],
    labels: Iterable[Label],
    predicted: Mapping[int, Predicted],
    written: Mapping[int, int],
) -> dict[str, Any]:
    """The JSON of a model: of each version that is served, or that has labels among these.

    ``written`` counts, by version, the labels that this replica wrote for what it has predicted.
    """
    models = {model.version: model for model in served}
    by_version: dict[int, list[Label]] = {version: [] for version in models}
    for label in labels:
        by_version.setdefault(label.version, []).append(label)
    return {
        "versions": [
            {
                "version": version,
                **_baseline(models.get(version)),
                "labels": _labelled(by_version[version]),
                "since_start": _predicted(
                    models.get(version),
                    predicted.get(version, Predicted()),
                    written.get(version, 0),
                ),
            }
            for version in sorted(by_version)
        ]
    }


def _baseline(model: Model | None) -> dict[str, Any]:
    metrics: Any = model.about.get("metrics", {}) if model else {}
    names = ("accuracy", "calibration_error")
    return {"baseline": {name: metrics[name] for name in names if name in metrics}}


def _labelled(labels: Sequence[Label]) -> dict[str, Any]:
    """What the true labels say."""
    count, correct = len(labels), sum(each.correct for each in labels)
    low, high = wilson(correct, count)
    told: dict[str, Any] = {"count": count, "correct": correct, "interval": _rounded(low, high)}
    if not labels:
        return told
    bins = [[0, 0, 0.0] for _ in range(BINS)]
    recall: dict[str, list[int]] = {}
    for each in labels:
        for place, more in enumerate((1, each.correct, each.confidence)):
            bins[bin_of(each.confidence)][place] += more
        seen = recall.setdefault(each.label, [0, 0])
        seen[0] += each.correct
        seen[1] += 1
    return {
        **told,
        "accuracy": _round(correct / count),
        "expected_accuracy": _round(sum(each.confidence for each in labels) / count),
        "calibration_error": _round(calibration_error([(int(a), int(b), c) for a, b, c in bins])),
        "recall": {label: _round(right / n) for label, (right, n) in sorted(recall.items())},
        "from": _clock(min(each.labelled_at for each in labels)),
        "to": _clock(max(each.labelled_at for each in labels)),
    }


def _predicted(model: Model | None, predicted: Predicted, written: int) -> dict[str, Any]:
    """What the predictions of this replica say without any label, and how many got one."""
    told: dict[str, Any] = {"predictions": predicted.images, "labels": written}
    if not predicted.images:
        return told
    told["coverage"] = _round(written / predicted.images)
    told["expected_accuracy"] = _round(predicted.confidence / predicted.images)
    baseline: Any = model.about.get("baseline", {}) if model else {}
    if classes := baseline.get("classes"):
        told["classes_psi"] = _round(psi(predicted.labels, classes))
    if shares := baseline.get("confidence"):
        edges = [(place + 1) / BINS for place in range(BINS)]
        below = [0, *(predicted.below.get(edge, 0) for edge in edges)]
        found = {str(place): below[place + 1] - below[place] for place in range(BINS)}
        told["confidence_psi"] = _round(
            psi(found, {str(place): q for place, q in enumerate(shares)})
        )
    return told


def _round(value: float) -> float:
    return round(value, 4)


def _rounded(*values: float) -> list[float]:
    return [_round(value) for value in values]


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
