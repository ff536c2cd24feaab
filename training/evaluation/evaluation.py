"""Judge an exported file: accuracy, calibration, thresholds and milliseconds.

Knows which of the figures its metadata hold; knows nothing of Keras or of how the file was made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.datasets import Dataset
from training.data.splits import Split
from training.evaluation import calibration, cost
from training.evaluation.scoring import Score, probabilities, score, typicality


@dataclass(frozen=True)
class Judgement:
    """The results of a file on the test split."""

    score: Score
    calibration_error: float
    answers: NDArray[np.float32]  # probabilities (N, K), in the order of the test split
    typicality: NDArray[np.float32]  # (N,), in the same order
    thresholds: Mapping[float, float]  # of the prediction sets, by coverage, from validation data
    milliseconds: float  # of one image at one thread of this machine

    @property
    def summary(self) -> str:
        """Accuracy, calibration error and time, in words."""
        return (
            f"{self.score}, calibration error {self.calibration_error:.2%}, "
            f"{self.milliseconds:.2f} ms an image"
        )

    def metadata(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return the results as part of the file's metadata."""
        return {
            "metrics": {
                "accuracy": round(self.score.accuracy, 6),
                "correct": self.score.correct,
                "images": self.score.images,
                "calibration_error": round(self.calibration_error, 6),
            },
            "baseline": calibration.baseline(self.answers, self.typicality, labels),
            "conformal": {f"{coverage:g}": value for coverage, value in self.thresholds.items()},
        }


def judge(file: Path, data: Dataset) -> Judgement:
    """Run a file on the test split and, for the thresholds, on the validation split."""
    held_out = probabilities(file, data.validation.images)
    return on_test(file, data.test, calibration.thresholds(held_out, data.validation.labels))


def on_test(file: Path, test: Split, thresholds: Mapping[float, float]) -> Judgement:
    """Run a file, with known thresholds, on the test split."""
    typical, answers = typicality(file, test.images)
    return Judgement(
        score=score(answers, test.labels),
        calibration_error=calibration.calibration_error(answers, test.labels),
        answers=answers,
        typicality=typical,
        thresholds=thresholds,
        milliseconds=cost.milliseconds(file),
    )
