"""``GET /models/<name>/quality``: report how right a model is, to people.

Figures that need labels use the newest labels of all replicas; those that need none, the
predictions of this replica since it started.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serving.feedback.labels import Label
from serving.inference.models.model import Model
from serving.monitoring.prediction_counts import PredictionCounts
from serving.monitoring.statistics import BINS, bin_of, calibration_error, psi, wilson

DEFAULT_LABELS, MAX_LABELS = 1000, 10_000  # the newest labels, unless a request asks for others


def quality(
    served: Iterable[Model],
    labels: Iterable[Label],
    predictions: Mapping[int, PredictionCounts],
    written: Mapping[int, int],
) -> dict[str, Any]:
    """Return the JSON of a model: each version that is served, or that has any of the ``labels``.
    By version, ``predictions`` are this replica's; ``written`` counts the labels it wrote for them.
    """
    models = {model.version: model for model in served}
    by_version: dict[int, list[Label]] = {version: [] for version in models}
    for label in labels:
        by_version.setdefault(label.version, []).append(label)
    versions = []
    for version in sorted(by_version):
        about: Mapping[str, Any] = models[version].about if version in models else {}
        metrics = about.get("metrics", {})
        names = ("accuracy", "calibration_error")
        counts = predictions.get(version, PredictionCounts()), written.get(version, 0)
        versions.append(
            {
                "version": version,
                "baseline": {name: metrics[name] for name in names if name in metrics},
                "labels": _of_labels(by_version[version]),
                "since_start": _since_start(*counts, about.get("baseline", {})),
            }
        )
    return {"versions": versions}


def _of_labels(labels: Sequence[Label]) -> dict[str, Any]:
    """Return the figures that need true labels."""
    count, correct = len(labels), sum(each.correct for each in labels)
    interval = [_round(each) for each in wilson(correct, count)]
    found: dict[str, Any] = {"count": count, "correct": correct, "interval": interval}
    if not labels:
        return found
    bins = [(0, 0, 0.0)] * BINS
    recall: dict[str, tuple[int, int]] = {}
    for each in labels:
        place = bin_of(each.confidence)
        n, right, confidence = bins[place]
        bins[place] = (n + 1, right + each.correct, confidence + each.confidence)
        right, n = recall.get(each.label, (0, 0))
        recall[each.label] = (right + each.correct, n + 1)
    return {
        **found,
        "accuracy": _round(correct / count),
        "expected_accuracy": _round(sum(each.confidence for each in labels) / count),
        "calibration_error": _round(calibration_error(bins)),
        "recall": {label: _round(right / n) for label, (right, n) in sorted(recall.items())},
        "from": _clock(min(each.labelled_at for each in labels)),
        "to": _clock(max(each.labelled_at for each in labels)),
    }


def _since_start(
    counts: PredictionCounts, written: int, baseline: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the figures of this replica's predictions, and how many of them were labelled."""
    found: dict[str, Any] = {"predictions": counts.images, "labels": written}
    if not counts.images:
        return found
    found["coverage"] = _round(written / counts.images)
    found["expected_accuracy"] = _round(counts.confidence / counts.images)
    if classes := baseline.get("classes"):
        found["classes_psi"] = _round(psi(counts.labels, classes))
    for name, held in (("confidence", counts.below), ("typicality", counts.typicality)):
        if shares := baseline.get(name):
            found[f"{name}_psi"] = _round(_psi(held, shares))
    return found


def _psi(held: Mapping[float, int], shares: Sequence[float]) -> float:
    """Return the stability index of cumulated counts against the shares of the tenths."""
    below = [0, *(held.get((place + 1) / BINS, 0) for place in range(BINS))]
    binned = {str(place): below[place + 1] - below[place] for place in range(BINS)}
    return psi(binned, {str(place): share for place, share in enumerate(shares)})


def _round(value: float) -> float:
    return round(value, 4)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
