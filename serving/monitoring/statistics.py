"""The statistics by which a service is judged: intervals, calibration, drift.

Knows numbers alone; the rules for Prometheus use the same formulas.
"""

import math
from collections.abc import Mapping, Sequence

BINS = 10  # of confidence, each 0.1 wide
Z = 1.959964  # of 95 %, two-sided
LEAST = 1e-4  # share by which an empty class counts in ``psi``: its logarithm must be finite


def wilson(correct: int, labels: int) -> tuple[float, float]:
    """The 95 % interval of a share; (0, 1) of nothing.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not labels:
        return 0.0, 1.0
    share, square = correct / labels, Z * Z / labels
    middle = share + square / 2
    half = Z * math.sqrt((share * (1 - share) + square / 4) / labels)
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))


def calibration_error(bins: Sequence[tuple[int, int, float]]) -> float:
    """The expected calibration error of bins of labels: how many, how many right, and the sum of
    their confidences. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""
    labels = sum(count for count, _, _ in bins)
    return sum(abs(right - confidence) for _, right, confidence in bins) / labels if labels else 0.0


def psi(found: Mapping[str, int], baseline: Mapping[str, float]) -> float:
    """The population stability index of counts against shares: the sum of (p - q) ln(p / q).

    Below 0.1 nothing has moved, above 0.25 much has (Siddiqi, "Credit Risk Scorecards", 2006); of
    n images and K classes, chance alone makes about (K - 1) / n.
    """
    total = sum(found.values())
    if not total:
        return 0.0
    pairs = [(max(found.get(key, 0) / total, LEAST), max(q, LEAST)) for key, q in baseline.items()]
    return sum((p - q) * math.log(p / q) for p, q in pairs)


def bin_of(confidence: float) -> int:
    """The bin of a confidence; its upper edge belongs to it, as to a bucket of Prometheus."""
    return min(max(math.ceil(confidence * BINS - 1e-9) - 1, 0), BINS - 1)
