"""Metrics of a network with one output: scores against labels that are 0 or 1.

Knows NumPy only.
"""

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(n / 10 for n in range(10))

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def mean_squared_error(scores: Floats, labels: Labels) -> float:
    """Return the mean squared difference of scores ``(N,)`` and labels ``(N,)``."""
    return float(np.mean((scores.astype(np.float64) - labels) ** 2))


def correlation(scores: Floats, labels: Labels) -> float:
    """Return Pearson's r of scores and labels; 0 if either is constant."""
    x, y = (values - values.mean(dtype=np.float64) for values in (scores, labels))
    scale = np.sqrt(np.sum(x * x) * np.sum(y * y))
    return float(np.sum(x * y) / scale) if scale else 0.0


def accuracy(scores: Floats, labels: Labels, *, threshold: float) -> float:
    """Return the accuracy if a score above the threshold means label 1."""
    return float(np.mean((scores > threshold) == (labels == 1)))


def best_threshold(scores: Floats, labels: Labels) -> float:
    """Return the most accurate of the ten thresholds 0.0, 0.1 … 0.9; the lowest of equals."""
    return max(THRESHOLDS, key=lambda each: accuracy(scores, labels, threshold=each))
