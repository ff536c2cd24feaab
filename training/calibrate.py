"""Make confidence mean what it says: the temperature, the calibration error and the baseline of a
classifier.

Knows NumPy only: logits and probabilities in, numbers out.
"""

import math

import numpy as np
from numpy.typing import NDArray

BINS = 10

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def softmax(logits: Floats) -> Floats:
    """Logits ``(N, K)`` to probabilities ``(N, K)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), np.float32)


def temperature(logits: Floats, labels: Labels) -> float:
    """The T that makes ``softmax(logits / T)`` most likely (Guo et al., *On calibration of modern
    neural networks*, 2017).

    The negative log-likelihood has a single minimum in ``log T``, found by golden-section search
    to 0.1 %.
    """
    shrink = (math.sqrt(5) - 1) / 2
    low, high = math.log(0.05), math.log(20)
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
    """Per bin of confidence (ten of 0.1): images, mean confidence, accuracy; 0 where a bin is
    empty."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = confidence_bins(confidence)
    count = np.bincount(bins, minlength=BINS)
    divisor = np.maximum(count, 1)
    mean = np.bincount(bins, confidence, BINS) / divisor
    accuracy = np.bincount(bins, right, BINS) / divisor
    return count, mean.astype(np.float32), accuracy.astype(np.float32)


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Expected calibration error: the gap between confidence and accuracy, averaged over bins by
    images (Naeini et al., 2015)."""
    count, mean, accuracy = reliability(probabilities, labels)
    return float(np.sum(count * np.abs(mean - accuracy)) / max(count.sum(), 1))


def confidence_bins(confidence: Floats) -> NDArray[np.int64]:
    """Which of the ten bins each confidence falls into; 1.0 falls into the last."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def baseline(probabilities: Floats, labels: tuple[str, ...]) -> dict[str, object]:
    """What the model answers on data like its test set: the share of each class and of each bin of
    confidence."""
    count = len(probabilities)
    shares = np.bincount(probabilities.argmax(axis=1), minlength=len(labels)) / count
    confidence = np.bincount(confidence_bins(probabilities.max(axis=1)), minlength=BINS) / count
    return {
        "classes": {
            label: round(float(share), 6) for label, share in zip(labels, shares, strict=True)
        },
        "confidence": [round(float(share), 6) for share in confidence],
    }
