"""Compute the statistics that judge a service: intervals, calibration, drift.

Knows numbers alone; the Prometheus rules use the same formulas.
"""

import math
from collections.abc import Mapping, Sequence

BINS = 10  # of confidence, each 0.1 wide
Z = 1.959964  # two-sided 95 % quantile of the normal distribution
LEAST = 1e-4  # the share that ``psi`` assumes of an empty class, to keep its logarithm finite


def wilson(correct: int, labels: int) -> tuple[float, float]:
    """Return the 95 % interval of a share; (0, 1) without labels.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not labels:
        return 0.0, 1.0
    share, square = correct / labels, Z * Z / labels
    middle = share + square / 2
    half = Z * math.sqrt((share * (1 - share) + square / 4) / labels)
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def calibration_error(bins: Sequence[tuple[int, int, float]]) -> float:
    """Return the expected calibration error of bins of (labels, correct, sum of confidences).

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    labels = sum(count for count, _, _ in bins)
    return sum(abs(right - confidence) for _, right, confidence in bins) / labels if labels else 0.0


def psi(counts: Mapping[str, int], baseline: Mapping[str, float]) -> float:
    """Return the population stability index of counts p against shares q: sum of (p - q) ln(p / q).

    Below 0.1 is stable, above 0.25 a large shift (Siddiqi, "Credit Risk Scorecards", 2006); of n
    images and K classes, chance alone yields about (K - 1) / n.
    """
    total = sum(counts.values())
    if not total:
        return 0.0
    pairs = [(max(counts.get(key, 0) / total, LEAST), max(q, LEAST)) for key, q in baseline.items()]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def bin_of(confidence: float) -> int:
    """Return the bin of a confidence; its upper edge is included, as in a Prometheus bucket."""
    return min(max(math.ceil(confidence * BINS - 1e-9) - 1, 0), BINS - 1)
