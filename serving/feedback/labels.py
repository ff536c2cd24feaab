"""What is known of a prediction once its true label has come.

Knows no database and no protocol.
"""

from dataclasses import dataclass

SCALE = 65535  # of a confidence in a sum: as finely as an id tells it


@dataclass(frozen=True)
class Label:
    """What a prediction should have been."""

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
        """Whether the prediction was right."""
        return self.predicted == self.label


@dataclass(frozen=True)
class Sum:
    """Labels of one kind. Whole numbers: floats that are summed in another order may fall by a bit,
    which Prometheus takes for a restart."""

    model: str
    version: int
    predicted: str
    label: str
    bin: int  # of the confidence
    labels: int
    confidence: int  # sum of them, in 65,535ths
    brier: int  # sum of (confidence - correct)², in squares of such
