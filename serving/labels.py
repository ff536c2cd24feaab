"""What is known of a prediction once its true label has come.

Knows no database and no protocol.
"""

from dataclasses import dataclass


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
    """Labels of one kind."""

    model: str
    version: int
    predicted: str
    label: str
    bin: int  # of the confidence
    labels: int
    confidence: float  # sum of them
    brier: float  # sum of (confidence - correct)²
