"""What was predicted since the service's start, read back from its series.

Knows the names of these series and the samples of prometheus-client; knows no registry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

LABELS = "convserve_images_total"
BUCKETS = "convserve_confidence_bucket"
SUM = "convserve_confidence_sum"


@dataclass
class Predicted:
    """The answers of one version."""

    labels: dict[str, int] = field(default_factory=dict)
    below: dict[float, int] = field(default_factory=dict)  # answers of at most this confidence
    confidence: float = 0.0  # sum of all

    @property
    def images(self) -> int:
        """How many."""
        return sum(self.labels.values())


def predicted(families: Iterable[Metric], name: str) -> Mapping[int, Predicted]:
    """The answers of one model, by version."""
    found: dict[int, Predicted] = {}
    samples = (sample for family in families for sample in family.samples)
    for sample in samples:
        if sample.labels.get("model") != name or sample.name not in {LABELS, BUCKETS, SUM}:
            continue
        version = found.setdefault(int(sample.labels["version"]), Predicted())
        if sample.name == LABELS:
            version.labels[sample.labels["label"]] = int(sample.value)
        elif sample.name == BUCKETS:
            version.below[float(sample.labels["le"])] = int(sample.value)
        else:
            version.confidence = sample.value
    return found
