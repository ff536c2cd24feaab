"""Calibrate the confidence of a classifier: temperature, calibration error, thresholds of the
prediction sets, and the baseline of its answers.

Knows NumPy only: logits and probabilities in, numbers out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10
COVERAGES = (0.9, 0.95, 0.99)
COLDEST, HOTTEST = 0.05, 20.0

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    """Map logits ``(N, K)`` to probabilities ``(N, K)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def without_temperature(probabilities: Floats, t: float) -> Floats:
    """Return ``softmax(logits)`` of ``softmax(logits / t)``, both ``(N, K)``."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return softmax((t * logs).astype(np.float32))


def temperature(logits: Floats, labels: Labels) -> float:
    """Return the T that maximises the likelihood of ``softmax(logits / T)`` (Guo et al., *On
    calibration of modern neural networks*, 2017), for logits ``(N, K)`` and labels ``(N,)``.

    The loss has a single minimum in ``log T``, found by golden-section search to 0.1 %; if no
    image is wrong, the result is ``COLDEST``.
    """
    shrink = (math.sqrt(5) - 1) / 2
    low, high = math.log(COLDEST), math.log(HOTTEST)
    while high - low > 1e-3:
        a, b = high - shrink * (high - low), low + shrink * (high - low)
        if _loss(logits, labels, math.exp(a)) < _loss(logits, labels, math.exp(b)):
            high = b
        else:
            low = a
    return math.exp((low + high) / 2)


def _loss(logits: Floats, labels: Labels, t: float) -> float:
    scaled = logits.astype(np.float64) / t
    top = scaled.max(axis=1)
    partition = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float(np.mean(partition - scaled[np.arange(len(labels)), labels]))


def reliability(probabilities: Floats, labels: Labels) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return images, mean confidence and accuracy of each of ten bins of confidence; 0 if a bin is
    empty."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = tenths(confidence)
    count = np.bincount(bins, minlength=BINS)
    divisor = np.maximum(count, 1)
    mean = np.bincount(bins, confidence, BINS) / divisor
    accuracy = np.bincount(bins, right, BINS) / divisor
    return count, mean.astype(np.float32), accuracy.astype(np.float32)


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Return the expected calibration error: the gap between confidence and accuracy, averaged
    over bins weighted by images (Naeini et al., 2015)."""
    count, mean, accuracy = reliability(probabilities, labels)
    return float(np.sum(count * np.abs(mean - accuracy)) / max(count.sum(), 1))


def tenths(shares: Floats) -> NDArray[np.int64]:
    """Return the bin, 0 to 9, of each confidence or typicality; 1.0 belongs to the last."""
    return np.minimum((shares * BINS).astype(np.int64), BINS - 1)


def thresholds(probabilities: Floats, labels: Labels) -> dict[float, float]:
    """Return, for each coverage, the least probability that puts a label into the prediction set,
    from probabilities ``(N, K)`` of images that the network was not trained on.

    Split conformal prediction (Vovk, Gammerman and Shafer, *Algorithmic learning in a random
    world*, 2005) with the score ``1 - probability of the true label``, which gives the smallest
    sets on average (Sadinle, Lei and Wasserman, *Least ambiguous set-valued classifiers with
    bounded error levels*, 2019). The threshold is the ``ceil((n + 1) * coverage)``-th best of the
    true labels' probabilities; 0, which accepts every label, if there are too few images.
    """
    best = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    ranks = {coverage: math.ceil((len(best) + 1) * coverage) for coverage in COVERAGES}
    return {
        coverage: float(best[rank - 1]) if rank <= len(best) else 0.0
        for coverage, rank in ranks.items()
    }


@dataclass(frozen=True)
class Sets:
    """Statistics of the prediction sets of one coverage; all but ``size`` are shares."""

    coverage: float  # of sets that hold the true label
    size: float  # labels in a set, on average
    single: float  # of sets of one label
    empty: float


def sets(probabilities: Floats, labels: Labels, threshold: float) -> Sets:
    """Return the statistics of the sets ``{label: probability >= threshold}``."""
    inside = probabilities >= threshold
    sizes = inside.sum(axis=1)
    return Sets(
        coverage=float(inside[np.arange(len(labels)), labels].mean()),
        size=float(sizes.mean()),
        single=float(np.mean(sizes == 1)),
        empty=float(np.mean(sizes == 0)),
    )


def baseline(probabilities: Floats, typicality: Floats, labels: Sequence[str]) -> dict[str, object]:
    """Return the share of each predicted class, and of each bin of confidence and of typicality, on
    the test split."""

    def shares(bins: NDArray[np.int64], count: int) -> list[float]:
        found: list[float] = (np.bincount(bins, minlength=count) / len(bins)).round(6).tolist()
        return found

    classes = shares(probabilities.argmax(axis=1), len(labels))
    return {
        "classes": dict(zip(labels, classes, strict=True)),
        "confidence": shares(tenths(probabilities.max(axis=1)), BINS),
        "typicality": shares(tenths(typicality), BINS),
    }
