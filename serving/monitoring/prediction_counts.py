"""Read back, from the series, what was predicted since the service started."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

LABELS = "convserve_images_total"
CONFIDENCE = "convserve_confidence_bucket"
TYPICALITY = "convserve_typicality_bucket"
SUM = "convserve_confidence_sum"
SERIES = {LABELS, CONFIDENCE, TYPICALITY, SUM}


@dataclass
class PredictionCounts:
    """The predictions of one version."""

    labels: dict[str, int] = field(default_factory=dict)
    below: dict[float, int] = field(default_factory=dict)  # those of at most this confidence
    confidence: float = 0.0  # sum over all
    typicality: dict[float, int] = field(default_factory=dict)  # those of at most this typicality

    @property
    def images(self) -> int:
        """The number of predicted images."""
        return sum(self.labels.values())


def by_version(families: Iterable[Metric], name: str) -> Mapping[int, PredictionCounts]:
    """Return the predictions of the model ``name``, by version."""
    found: dict[int, PredictionCounts] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.labels.get("model") != name or sample.name not in SERIES:
            continue
        counts = found.setdefault(int(sample.labels["version"]), PredictionCounts())
        if sample.name == LABELS:
            counts.labels[sample.labels["label"]] = int(sample.value)
        elif sample.name == CONFIDENCE:
            counts.below[float(sample.labels["le"])] = int(sample.value)
        elif sample.name == TYPICALITY:
            counts.typicality[float(sample.labels["le"])] = int(sample.value)
        else:
            counts.confidence = sample.value
    return found
