"""The true labels of predictions, and their sums."""

from dataclasses import dataclass

SCALE = 65535  # units of a confidence of 1 in ids and sums


@dataclass(frozen=True)
class Label:
    """The true label of a prediction."""

    id: str
    model: str
    version: int
    predicted: str
    confidence: float  # 0 to 1
    label: str
    source: str
    predicted_at: int  # seconds since 1970
    labelled_at: float

    @property
    def correct(self) -> bool:
        """True if the prediction was right."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Sum:
    """Labels of one kind. Integers: the last bit of a sum of floats depends on their order, and
    Prometheus takes a counter that falls for a restart."""

    model: str
    version: int
    predicted: str
    label: str
    bin: int  # of the confidence
    labels: int
    confidence: int  # sum of confidences, in 1 / SCALE
    brier: int  # sum of (confidence - correct)², in 1 / SCALE²
